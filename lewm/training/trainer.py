"""The only training loop. Every step is a function of (settings, seed, step), so an interrupted run continues
to the same weights, bit for bit on a CPU with the same number of threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from lewm.data import Batch, Loader
from lewm.diagnosis.health import effective_rank
from lewm.models import WorldModel
from lewm.objectives import Encoded, LossTerms
from lewm.registry import register
from lewm.training.distributed import Processes, join, synchronised
from lewm.training.loggers import Logs
from lewm.training.schedule import warmup_cosine
from lewm.training.state import Average, TrainingState
from lewm.training.stopping import Stopped, StopRequest
from lewm.training.watch import Watch
from lewm.types import InputError

Objective = Callable[[Encoded], LossTerms]
OnStep = Callable[[int, dict[str, float]], None]
PRECISIONS = ("float32", "bf16")


class Source(Protocol):
    """What batches are drawn from: `lewm.data.Windows`, or anything else that does this."""

    def draw(self, step: int, batch_size: int, seed: int) -> Batch:
        """The batch of a training step: a function of its arguments alone."""


@dataclass(frozen=True)
class _Outcome:
    """What a step came to: the means of its loss terms, its latents (B, T, D) and the gradient's norm."""

    loss: Tensor
    parts: dict[str, Tensor]
    z_BTD: Tensor
    norm: Tensor


def _ignore(text: str) -> None:
    pass


@register("trainer", "default")
@dataclass(frozen=True, kw_only=True)
class Trainer:
    """AdamW with warm-up, cosine decay and gradient clipping.

    Attributes:
        steps: optimiser steps in all; batch_size: windows per step, of all processes together; frames: per window.
        learning_rate, weight_decay, warmup, clip: of AdamW, in steps and gradient norm; final: share of the learning
            rate that is left at the end.
        ema: decay of an average of the weights, which the trained model then has; 0 is none.
        accumulate: micro-batches of a step. Memory is that of one; what is a statistic of a batch (SIGReg, BatchNorm)
            then is one of a micro-batch.
        precision: `float32`, or `bf16` for autocast, which a CPU without bf16 units runs ten times slower.
        compile: whether encoder and predictor are compiled; needs a C++ compiler, rounds differently.
        device: `cpu`, `cuda`.
        log_every, save_every: steps between lines of metrics.jsonl, and between saved states.
        loggers: further ones by name: `tensorboard`, `wandb`.
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
        counts = (
            self.steps,
            self.log_every,
            self.save_every,
            self.accumulate,
            self.batch_size - 1,
            self.frames - 1,
        )
        if min(counts) < 1:
            raise InputError(
                "a trainer needs steps, log_every, save_every, accumulate >= 1 and batch_size, frames >= 2; got "
                f"{self.steps}, {self.log_every}, {self.save_every}, {self.accumulate}, {self.batch_size}, {self.frames}"
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
        tell: Callable[[str], None] = _ignore,
    ) -> None:
        """Train `model` in place; continue from `run/training_state.pt` if there is one.

        Under `torchrun` every process calls it with the same arguments; the first one writes.

        Args:
            run: folder for metrics and the training state.
            on_step: called after each step with its number and, on logged steps, the metrics.
            tell: called with what a person should know: what goes wrong, and what to do about it.

        Raises:
            InputError: the loss is not finite any more; the last saved state is kept.
            Stopped: SIGTERM or SIGINT came; the state is saved.
        """
        processes = join(self.device)
        model.to(processes.device)
        optimiser = torch.optim.AdamW(
            model.parameters(), self.learning_rate, weight_decay=self.weight_decay, fused=True
        )
        average = Average(model, self.ema) if self.ema else None
        state = TrainingState(run / "training_state.pt", model, optimiser, average)
        first = processes.agree(state.restore(), "the number of steps done")
        watch = Watch(steps=self.steps, warmup=self.warmup, clip=self.clip)
        settings = {**asdict(self), "seed": seed}
        with (
            torch.random.fork_rng(devices=[processes.device] if processes.device.type == "cuda" else []),
            synchronised(model.train(), processes),
            _compiled(model, self.compile),
            Logs(run, first, self.loggers, settings, processes.main) as logs,
            StopRequest() as stop,
        ):
            for text in watch.begin():
                tell(text)
            batches = watch.timed(self._batches(windows, seed, first, processes, tell))
            for step, batch in enumerate(batches, start=first):
                done, metrics = step + 1, {}
                outcome = self._step(model, objective, optimiser, batch, seed, step, processes)
                if average:
                    average.update(model, step)
                stops = processes.any(stop.number is not None) and done < self.steps
                logged, saved = (done % n == 0 or done == self.steps for n in (self.log_every, self.save_every))
                if logged or saved or stops:  # before anything is derived from the numbers or saved
                    self._check_finite("loss", processes.mean(outcome.loss), done)
                    self._check_finite("gradient", outcome.norm, done)
                if logged:
                    metrics, z_BTD = self._metrics(outcome, step, processes)
                    logs.write(done, metrics)
                    for text in watch.look(done, metrics["loss"], metrics["gradient_norm"], z_BTD[:, 0]):
                        tell(text)
                if (saved or stops) and processes.main:
                    logs.sync()
                    state.save(done)
                on_step(done, metrics)
                if stops:
                    processes.wait()  # until it is saved
                    raise Stopped(stop.number or 15, done)
        if average:
            model.load_state_dict(average.tensors)
        model.eval()
