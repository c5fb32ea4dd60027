"""The only training loop. Every step is a function of (settings, seed, step), so an interrupted run continues
to the same weights, bit for bit on a CPU with the same number of threads."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lewm.data import Batch, Loader, Windows
from lewm.diagnosis.health import effective_rank
from lewm.models import WorldModel
from lewm.objectives import Encoded, LossTerms
from lewm.registry import register
from lewm.training.schedule import warmup_cosine
from lewm.types import InputError

Objective = Callable[[Encoded], LossTerms]
OnStep = Callable[[int, dict[str, float]], None]


@register("trainer", "default")
class Trainer:
    """AdamW with warm-up, cosine decay and gradient clipping.

    Args:
        steps: optimiser steps in all; batch_size: windows per step; frames: per window.
        learning_rate, weight_decay, warmup, clip: of AdamW, in steps and gradient norm.
        log_every, save_every: steps between lines of metrics.jsonl, and between saved states.
        workers: who reads the data, as in `lewm.data.Loader`: 0 is a thread, `auto` measures.
    """

    def __init__(
        self,
        *,
        steps: int = 600,
        batch_size: int = 64,
        frames: int = 4,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-3,
        warmup: int = 50,
        clip: float = 1.0,
        log_every: int = 10,
        save_every: int = 100,
        workers: int | str = 0,
    ) -> None:
        if min(steps, batch_size - 1, frames - 1, log_every, save_every) < 1:
            raise InputError(
                "a trainer needs steps, log_every, save_every >= 1 and batch_size, frames >= 2; "
                f"got {steps}, {log_every}, {save_every}, {batch_size}, {frames}"
            )
        if not (learning_rate > 0 and weight_decay >= 0 and warmup >= 0 and clip > 0):
            raise InputError(
                "a trainer needs learning_rate and clip > 0, weight_decay and warmup >= 0; "
                f"got {learning_rate}, {clip}, {weight_decay}, {warmup}"
            )
        self.steps, self.batch_size, self.frames = steps, batch_size, frames
        self.learning_rate, self.weight_decay, self.warmup, self.clip = (
            learning_rate,
            weight_decay,
            warmup,
            clip,
        )
        self.log_every, self.save_every, self.workers = log_every, save_every, workers
        self.reading = ""  # what `workers="auto"` chose, once `fit` has begun

    def fit(
        self, model: WorldModel, objective: Objective, windows: Windows, run: Path, seed: int, on_step: OnStep
    ) -> None:
        """Train `model` in place; continue from `run/training_state.pt` if there is one.

        Args:
            run: folder for `metrics.jsonl` and the training state.
            on_step: called after each step with its number and, on logged steps, the metrics.

        Raises:
            InputError: the loss is not finite any more; the last saved state is kept.
        """
        optimiser = torch.optim.AdamW(
            model.parameters(), self.learning_rate, weight_decay=self.weight_decay, fused=True
        )
        first = self._restore(run, model, optimiser)
        model.train()
        loader = Loader(windows, batch_size=self.batch_size, seed=seed, workers=self.workers)
        self.reading = loader.choice if self.workers == "auto" else ""
        with torch.random.fork_rng(devices=[]), _MetricsLog(run / "metrics.jsonl", first) as log:
            for step, batch in enumerate(loader.batches(first, self.steps), start=first):
                terms, z, norm = self._step(model, objective, optimiser, batch, seed, step)
                metrics = {}
                done = step + 1
                logs, saves = (done % n == 0 or done == self.steps for n in (self.log_every, self.save_every))
                if logs or saves:  # before anything is derived from the numbers or saved
                    self._check_finite("loss", terms.total, done)
                    self._check_finite("gradient", norm, done)
                if logs:
                    metrics = {
                        "loss": terms.total.item(),
                        **{label: value.item() for label, value in terms.parts.items()},
                        "gradient_norm": norm.item(),
                        "learning_rate": optimiser.param_groups[0]["lr"],
                        "latent_std": z.std(dim=0).mean().item(),
                        "effective_rank": effective_rank(z),
                    }
                    log.write({"step": done, **metrics})
                if saves:
                    log.sync()
                    _save_state(run, model, optimiser, done)
                on_step(done, metrics)
        model.eval()

    def _step(
        self,
        model: WorldModel,
        objective: Objective,
        optimiser: torch.optim.Optimizer,
        batch: Batch,
        seed: int,
        step: int,
    ) -> tuple[LossTerms, torch.Tensor, torch.Tensor]:
        """One optimiser step; returns the loss terms, the latents (N, D) and the gradient norm."""
        dropout, directions = np.random.SeedSequence([seed, step]).generate_state(2)
        torch.manual_seed(int(dropout))  # inside fork_rng
        generator = torch.Generator().manual_seed(int(directions))
        z = model.encode(torch.from_numpy(batch.pixels))
        encoded = Encoded(
            z_BTD=z,
            actions_BLE=model.normalise(torch.from_numpy(batch.actions).to(z.device)),
            predictor=model.predictor,
            generator=generator,
            heads=model.heads,
            episodes_B=torch.from_numpy(batch.episodes).to(z.device),
            starts_B=torch.from_numpy(batch.starts).to(z.device),
        )
        terms = objective(encoded)
        optimiser.zero_grad(set_to_none=True)
        terms.total.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), self.clip)
        for group in optimiser.param_groups:
            group["lr"] = self.learning_rate * warmup_cosine(step, self.steps, self.warmup)
        optimiser.step()
        return terms, z.detach().flatten(0, 1), norm

    def _check_finite(self, what: str, value: torch.Tensor, step: int) -> None:
        if not math.isfinite(value.item()):
            raise InputError(
                f"the {what} became {value.item()} at step {step}; lower trainer.learning_rate "
                f"(now {self.learning_rate}) and start in a new folder"
            )

    @staticmethod
    def _restore(run: Path, model: WorldModel, optimiser: torch.optim.Optimizer) -> int:
        path = run / "training_state.pt"
        if not path.exists():
            return 0
        try:
            state = torch.load(path, weights_only=True)
            model.load_state_dict(state["model"])
            optimiser.load_state_dict(state["optimiser"])
            step = state["step"]
        except Exception as error:  # torch raises many kinds for a damaged file
            raise InputError(f"{path} cannot be read ({error}); delete it to train from the start") from None
        return step


def _save_state(run: Path, model: WorldModel, optimiser: torch.optim.Optimizer, step: int) -> None:
    temporary = run / ".training_state.tmp"
    with temporary.open("wb") as file:
        torch.save({"step": step, "model": model.state_dict(), "optimiser": optimiser.state_dict()}, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(run / "training_state.pt")


class _MetricsLog:
    """metrics.jsonl: one JSON object per logged step; lines after the step we continue from are dropped."""

    def __init__(self, path: Path, first: int) -> None:
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= first]
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text("".join(kept))
        temporary.replace(path)
        self._file = path.open("a")

    def __enter__(self) -> _MetricsLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def sync(self) -> None:
        os.fsync(self._file.fileno())
