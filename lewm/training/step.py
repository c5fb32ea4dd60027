"""One optimiser step: a function of the settings, the seed, the step's number and the batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from lewm.data import Batch
from lewm.diagnosis.health import effective_rank
from lewm.models import WorldModel
from lewm.objectives import Encoded, LossTerms
from lewm.training.distributed import Processes
from lewm.training.latents import LATENT
from lewm.training.schedule import warmup_cosine
from lewm.training.state import Average
from lewm.types import InputError

if TYPE_CHECKING:
    from lewm.training.trainer import Trainer

Objective = Callable[[Encoded], LossTerms]


class Diverged(InputError):
    """Loss or gradient are not finite any more."""


class Source(Protocol):
    """What batches are drawn from: `lewm.data.Windows`, or anything else that does this."""

    def draw(self, step: int, batch_size: int, seed: int) -> Batch:
        """The batch of a training step: a function of its arguments alone."""


@dataclass(frozen=True)
class Outcome:
    """What a step came to: its loss and the loss's parts, the latents (B, T, D) it saw, the norm of the gradient.

    Where several processes train, all but the norm are those of this process's rows.
    """

    loss: Tensor
    parts: Mapping[str, Tensor]
    z_BTD: Tensor
    norm: Tensor


@dataclass(frozen=True)
class Stepper:
    """Makes the steps of one run."""

    settings: Trainer
    model: WorldModel
    objective: Objective
    optimiser: torch.optim.Optimizer
    average: Average | None
    processes: Processes
    seed: int

    def __call__(self, batch: Batch, step: int) -> Outcome:
        """Change the weights by one step."""
        directions = np.random.SeedSequence([self.seed, step]).generate_state(2)[1]
        dropout = np.random.SeedSequence([self.seed, step, self.processes.rank]).generate_state(2)[0]
        torch.manual_seed(int(dropout))  # inside fork_rng; for rank 0 the two sequences are the same
        generator = torch.Generator().manual_seed(int(directions))
        self.optimiser.zero_grad(set_to_none=True)
        parts = []
        for micro in _split(batch, self.settings.accumulate):
            try:
                terms, z_BTD = self.loss(micro, generator)
            except torch.linalg.LinAlgError:  # a decomposition's way of saying so
                raise self._diverged("loss", math.nan, step + 1) from None
            (terms.total / self.settings.accumulate).backward()
            parts.append((terms.total.detach(), {k: v.detach() for k, v in terms.parts.items()}, z_BTD.detach()))
        self.processes.average_gradients(self.model.parameters())
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate(step)
        self.optimiser.step()
        if self.average:
            self.average.update(self.model, step)
        totals, terms, latents = zip(*parts, strict=True)
        means = {label: torch.stack([term[label] for term in terms]).mean() for label in terms[0]}
        return Outcome(torch.stack(totals).mean(), means, torch.cat(latents), norm)

    def learning_rate(self, step: int) -> float:
        """Of a step."""
        s = self.settings
        return s.learning_rate * warmup_cosine(step, s.steps, s.warmup, s.final)

    def metrics(self, outcome: Outcome, step: int) -> tuple[dict[str, float], Tensor]:
        """The numbers of a logged step, and the latents (B, T, D) they are about, of all processes."""
        z_BTD = self.processes.gather(outcome.z_BTD)
        z = z_BTD.flatten(0, 1).float()
        metrics = {
            "loss": self.processes.mean(outcome.loss).item(),
            **{label: self.processes.mean(value).item() for label, value in outcome.parts.items()},
            "gradient_norm": outcome.norm.item(),
            "learning_rate": self.learning_rate(step),
            "latent_std": z.std(dim=0).mean().item(),
            "effective_rank": effective_rank(z),
        }
        return metrics, z_BTD

    def check(self, outcome: Outcome, done: int) -> None:
        """Raise `Diverged` for numbers that are not finite, before they are saved."""
        for what, value in (("loss", self.processes.mean(outcome.loss)), ("gradient", outcome.norm)):
            if not math.isfinite(value.item()):
                raise self._diverged(what, value.item(), done)

    def _diverged(self, what: str, value: float, done: int) -> Diverged:
        return Diverged(
            f"the {what} became {value} at step {done}; lower trainer.learning_rate "
            f"(now {self.settings.learning_rate}) and start in a new folder"
        )

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[LossTerms, Tensor]:
        """Of a micro-batch, and its latents (b, T, D)."""
        device, half = self.processes.device, self.settings.precision == "bf16"
        rows = {name: torch.from_numpy(array).to(device) for name, array in batch.observations.items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            z = rows[LATENT] if LATENT in rows else self.model.encode(rows)
            encoded = Encoded(
                z_BTD=z.float() if half else z,
                actions_BLE=self.model.normalise(torch.from_numpy(batch.actions).to(device)),
                predictor=self.model.predictor,
                generator=generator,
                heads=self.model.heads,
                episodes_B=torch.from_numpy(batch.episodes).to(device),
                starts_B=torch.from_numpy(batch.starts).to(device) / self.model.action_block,
                gather=self.processes.gather,
            )
            return self.objective(encoded), z


class Share:
    """Some rows of every batch of a source."""

    def __init__(self, source: Source, rows: np.ndarray) -> None:
        self._source, self._rows = source, rows

    def draw(self, step: int, batch_size: int, seed: int) -> Batch:
        """Its rows of the batch of a step."""
        return _take(self._source.draw(step, batch_size, seed), self._rows)


def _split(batch: Batch, parts: int) -> Iterator[Batch]:
    size = len(batch) // parts
    return (_take(batch, slice(k * size, (k + 1) * size)) for k in range(parts)) if parts > 1 else iter([batch])


def _take(batch: Batch, rows: np.ndarray | slice) -> Batch:
    observations = {name: array[rows] for name, array in batch.observations.items()}
    return Batch(observations, batch.actions[rows], batch.episodes[rows], batch.starts[rows])
