"""Where a search stands: its distribution, its scored candidates, and the best of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from planners import mixing


@dataclass(frozen=True)
class Search:
    """Where a search stands: mean and std (B, H, A), and whatever else an algorithm remembers.

    `scale` (A,) is the std of a fresh search, the unit of a step.
    """

    mean: Tensor
    std: Tensor
    scale: Tensor
    memory: Any = None


@dataclass(frozen=True)
class Population:
    """Scored candidates, as an update sees them.

    Attributes:
        candidates: (B, P, H, A); costs: (B, P), +inf where a candidate must not count.
        gradients: (B, P, H, A) of the cost, for planners that ask for them.
    """

    candidates: Tensor
    costs: Tensor
    gradients: Tensor | None = None


@dataclass(frozen=True)
class Scored:
    """Candidates with their unmixed terms, so that they can be mixed again in another population."""

    candidates: Tensor
    values: Tensor
    violation: Tensor | None
    mix: Callable[[Tensor, Tensor], Tensor]
    gradients: Tensor | None = None

    @staticmethod
    def join(parts: Sequence[Scored]) -> Scored:
        """All candidates of the parts, one part after the other."""

        def cat(name: str) -> Tensor | None:
            return None if getattr(parts[0], name) is None else torch.cat([getattr(p, name) for p in parts], dim=1)

        tensors = ("candidates", "values", "violation", "gradients")
        return replace(parts[0], **{name: cat(name) for name in tensors})

    def pick(self, index_BK: Tensor) -> Scored:
        """Some candidates of each row, without gradients."""
        rows = torch.arange(len(index_BK), device=index_BK.device)[:, None]
        violation = None if self.violation is None else self.violation[rows, index_BK]
        return replace(
            self,
            candidates=self.candidates[rows, index_BK],
            values=self.values[rows, index_BK],
            violation=violation,
            gradients=None,
        )

    def where(self, rows_B: Tensor, other: Scored) -> Scored:
        """These in the chosen rows, `other` elsewhere."""

        def choose(name: str) -> Tensor | None:
            mine, theirs = getattr(self, name), getattr(other, name)
            return None if mine is None else torch.where(rows_B.view(-1, *[1] * (mine.ndim - 1)), mine, theirs)

        return replace(self, **{name: choose(name) for name in ("candidates", "values", "violation")})

    def costs(self) -> Tensor:
        """(B, P) to search by, mixed over this population."""
        valid = self.values.isfinite().all(-1)
        if self.violation is not None:
            valid = valid & self.violation.isfinite()
        return mixing.rank(self.mix(self.values, valid), valid, self.violation)


@dataclass(frozen=True)
class Found:
    """The best candidates of each row so far, best first.

    Attributes:
        best: K candidates; cost: (B,), of the first, in the last population.
    """

    best: Scored
    cost: Tensor

    @property
    def feasible(self) -> Tensor:
        """(B,) bool: whether the first keeps the constraints."""
        violation = self.best.violation
        return torch.ones_like(self.cost, dtype=torch.bool) if violation is None else violation[:, 0] <= 0

    @classmethod
    def among(cls, scored: Scored, costs: Tensor, count: int) -> Found:
        """The `count` cheapest; where there are fewer, the last again."""
        value, index = costs.topk(min(count, costs.shape[1]), dim=1, largest=False)
        places = torch.arange(count, device=index.device).clamp(max=index.shape[1] - 1)
        return cls(scored.pick(index[:, places]), value[:, 0].clone())

    def where(self, rows_B: Tensor, other: Found | None) -> Found:
        """These in the chosen rows, `other` elsewhere."""
        if other is None:
            return self
        return Found(self.best.where(rows_B, other.best), torch.where(rows_B, self.cost, other.cost))
