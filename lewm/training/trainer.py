"""The only training loop. Every step is a function of (settings, seed, step), so an interrupted run continues
to the same weights, bit for bit on a CPU with the same number of threads."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from lewm.data import Batch, Loader
from lewm.models import WorldModel
from lewm.registry import register
from lewm.training.distributed import Processes, join, synchronised
from lewm.training.heap import kept_heap
from lewm.training.latents import LATENT
from lewm.training.loggers import Logs
from lewm.training.start import learning, settled
from lewm.training.state import Average, TrainingState
from lewm.training.step import Objective, Share, Source, Stepper
from lewm.training.stopping import Stopped, StopRequest
from lewm.training.watch import Watch
from lewm.types import InputError

OnStep = Callable[[int, dict[str, float]], None]
Tell = Callable[[str], None]
PRECISIONS = ("float32", "bf16")


def _ignore(text: str) -> None:
    pass


@register("trainer", "default")
@dataclass(frozen=True, kw_only=True)
class Trainer:
    """AdamW with warm-up, cosine decay and gradient clipping.

    Attributes:
        steps: optimiser steps in all; batch_size: windows per step, of all processes; frames: per window.
        learning_rate, weight_decay, warmup, clip: of AdamW, in steps and gradient norm; final: share of the
            learning rate that is left at the end.
        ema: decay of an average of the weights, which the trained model then has; 0 is none.
        accumulate: micro-batches of a step. It takes the memory of one, and a statistic of the batch (SIGReg,
            BatchNorm) is one of a micro-batch.
        precision: `float32`, or `bf16` for autocast, which a CPU without bf16 units runs ten times slower.
        compile: whether encoder and predictor are compiled; needs a C++ compiler, rounds differently.
        device: `cpu`, `cuda`.
        log_every, save_every: steps between logged lines, and between saved states.
        loggers: further ones: `tensorboard`, `wandb`, or `{name: wandb, mode: online}`.
        workers: who reads the data, as in `lewm.data.Loader`: 0 is a thread, `auto` measures.
    """

    steps: int = 600
    batch_size: int = 64
    frames: int = 4
    learning_rate: float = 2e-3
    weight_decay: float = 1e-3
    warmup: int = 50
    final: float = 0.0
    clip: float = 1.0
    ema: float = 0.0
    accumulate: int = 1
    precision: str = "float32"
    compile: bool = False
    device: str = "cpu"
    log_every: int = 10
    save_every: int = 100
    loggers: Sequence[Any] = ()
    workers: int | str = 0

    def __post_init__(self) -> None:
        counts = (self.steps, self.log_every, self.save_every, self.accumulate, self.batch_size, self.frames)
        if min(counts[:4]) < 1 or min(counts[4:]) < 2:
            raise InputError(
                "a trainer needs steps, log_every, save_every, accumulate >= 1 and batch_size, frames >= 2; got "
                f"{', '.join(map(str, counts))}"
            )
        if not (self.learning_rate > 0 and self.weight_decay >= 0 and self.warmup >= 0 and self.clip > 0):
            raise InputError(
                "a trainer needs learning_rate and clip > 0, weight_decay and warmup >= 0; "
                f"got {self.learning_rate}, {self.clip}, {self.weight_decay}, {self.warmup}"
            )
        if not (0 <= self.final <= 1 and 0 <= self.ema < 1 and self.precision in PRECISIONS):
            raise InputError(
                f"a trainer needs final in [0, 1], ema in [0, 1) and a precision of {' or '.join(PRECISIONS)}; "
                f"got {self.final}, {self.ema} and '{self.precision}'"
            )

    def fit(
        self,
        model: WorldModel,
        objective: Objective,
        windows: Source,
        run: Path,
        seed: int,
        on_step: OnStep,
        tell: Tell = _ignore,
    ) -> None:
        """Train `model` in place, frozen parts aside; continue from `run/training_state.pt` if there is one.

        Under `torchrun` every process calls it with the same arguments, and the first one writes.

        Args:
            run: folder for metrics and the training state.
            on_step: called after each step with its number and, on logged steps, the metrics.
            tell: called with what a person should know: what goes wrong, and what to do about it.

        Raises:
            InputError: the loss is not finite any more; the last saved state is kept.
            Stopped: SIGTERM or SIGINT came; the state is saved.
        """
        processes = join(self.device)
        learning(model.to(processes.device))
        optimiser = torch.optim.AdamW(
            model.parameters(), self.learning_rate, weight_decay=self.weight_decay, fused=True
        )
        average = Average(model, self.ema) if self.ema else None
        state = TrainingState(run / "training_state.pt", model, optimiser, average)
        first = processes.agree(state.restore(), "the number of steps done")
        stepper = Stepper(self, model, objective, optimiser, average, processes, seed)
        with (
            torch.random.fork_rng(devices=[processes.device] if processes.device.type == "cuda" else []),
            kept_heap() if processes.device.type == "cpu" else nullcontext(),
            synchronised(model, processes),
            _compiled(model) if self.compile else nullcontext(),
            Logs(run, first, self.loggers, {**asdict(self), "seed": seed}, processes.main) as logs,
        ):
            batches = self._batches(windows, seed, first, processes, tell)
            shaped = not settled(model)
            watch = Watch(steps=self.steps, warmup=self.warmup, clip=self.clip, tell=tell, shaped=shaped)
            self._loop(stepper, watch.timed(batches), first, watch, state, logs, on_step, tell)
        if average:
            model.load_state_dict(average.tensors)
        model.eval()

    def _loop(
        self,
        stepper: Stepper,
        batches: Iterator[Batch],
        first: int,
        watch: Watch,
        state: TrainingState,
        logs: Logs,
        on_step: OnStep,
        tell: Tell,
    ) -> None:
        processes = stepper.processes
        with StopRequest() as stop:
            for step, batch in enumerate(batches, start=first):
                outcome = stepper(batch, step)
                done, metrics = step + 1, {}
                stops = processes.any(stop.number is not None) and done < self.steps
                logged, saved = (done % n == 0 or done == self.steps for n in (self.log_every, self.save_every))
                if logged or saved or stops:  # before anything is derived from the numbers or saved
                    stepper.check(outcome, done)
                if logged:
                    metrics, z_BTD = stepper.metrics(outcome, step)
                    logs.write(done, metrics)
                    watch.look(done, metrics["loss"], metrics["gradient_norm"], z_BTD[:, 0])
                if (saved or stops) and processes.main:
                    logs.sync()
                    state.save(done)
                on_step(done, metrics)
                if stops:
                    processes.wait()  # for the one that saves
                    number = stop.number or signal.SIGTERM  # another process got it
                    tell(f"stopped by {number.name} after step {done}; the same command goes on from there")
                    raise Stopped(number)

    def _batches(self, windows: Source, seed: int, first: int, processes: Processes, tell: Tell) -> Iterator[Batch]:
        kept = LATENT in getattr(windows, "columns", ())  # in the memory of one process
        if processes.world * self.accumulate > 1:
            windows = Share(windows, processes.rows(self.batch_size, self.accumulate))
        loader = Loader(windows, batch_size=self.batch_size, seed=seed, workers=0 if kept else self.workers)
        if self.workers == "auto":
            tell(f"data is read by {loader.choice}")
        return loader.batches(first, self.steps)


@contextmanager
def _compiled(model: WorldModel) -> Iterator[None]:
    """Compile what takes the time, in place: names of the state stay, unlike with `torch.compile(model)`."""
    parts = (model.encoder, model.predictor)
    for part in parts:
        part.compile()
    try:
        yield
    finally:
        for part in parts:
            part._compiled_call_impl = None  # a trained model is used at other shapes
