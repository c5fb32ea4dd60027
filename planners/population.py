"""What a search is about and where it stands: its distribution, its scored candidates, and the best of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from planners import mixing
from planners.limits import Limits
from planners.types import Cost, PlanState


@dataclass(frozen=True)
class Problem:
    """What one call of `Planner.plan` is about."""

    cost: Cost
    state: PlanState
    committed: Tensor | None

    def limited(self, actions_BSHA: Tensor) -> Tensor:
        """The actions within the limits, beginning with what is committed."""
        limits, past = self.state.limits, self.state.past
        if self.committed is None:
            return limits.project(actions_BSHA, past)
        begin = self.committed.to(actions_BSHA)[:, None].expand(-1, actions_BSHA.shape[1], -1, -1)
        count = begin.shape[2]
        whole = torch.cat([begin, actions_BSHA[:, :, count:]], dim=2)
        return torch.cat([begin, limits.project(whole, past)[:, :, count:]], dim=2)


@dataclass(frozen=True)
class Search:
    """Where a search stands: mean and std (B, H, A), and whatever else an algorithm remembers.

    `scale` (A,) is the std of a fresh search, the unit of a step; `limits` are those of the actions.
    """

    mean: Tensor
    std: Tensor
    scale: Tensor
    limits: Limits
    memory: Any = None

    def clone(self) -> Search:
        """A copy of mean and std."""
        return replace(self, mean=self.mean.clone(), std=self.std.clone())


@dataclass(frozen=True)
class Population:
    """Scored candidates, as an update sees them.

    Attributes:
        candidates: (B, P, H, A); costs: (B, P), +inf where a candidate must not count.
        objective, gradients: (B, P) and (B, P, H, A), for planners that ask for them: what a descent follows, the
            terms mixed with the statistics of its first population plus the penalty of what they violate.
    """

    candidates: Tensor
    costs: Tensor
    objective: Tensor | None = None
    gradients: Tensor | None = None

    @property
    def best(self) -> Tensor:
        """The cheapest candidate of each row, (B, H, A)."""
        cheapest = self.costs.argmin(1)[:, None, None, None]
        return self.candidates.take_along_dim(cheapest, dim=1)[:, 0]


@dataclass(frozen=True)
class Scored:
    """Candidates with their unmixed terms, so that they can be mixed again in another population."""

    candidates: Tensor
    values: Tensor
    violation: Tensor | None
    mix: mixing.Mixer
    objective: Tensor | None = None
    gradients: Tensor | None = None

    @staticmethod
    def join(parts: Sequence[Scored]) -> Scored:
        """All candidates of the parts, one part after the other."""

        def cat(name: str) -> Tensor | None:
            return None if getattr(parts[0], name) is None else torch.cat([getattr(p, name) for p in parts], dim=1)

        tensors = ("candidates", "values", "violation", "objective", "gradients")
        return replace(parts[0], **{name: cat(name) for name in tensors})

    def pick(self, index_BK: Tensor) -> Scored:
        """Some candidates of each row, without what a descent needs."""
        rows = torch.arange(len(index_BK), device=index_BK.device)[:, None]
        violation = None if self.violation is None else self.violation[rows, index_BK]
        return replace(
            self,
            candidates=self.candidates[rows, index_BK],
            values=self.values[rows, index_BK],
            violation=violation,
            objective=None,
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

    def clone(self) -> Found:
        """A copy of all tensors."""
        best = self.best
        violation = None if best.violation is None else best.violation.clone()
        copied = replace(best, candidates=best.candidates.clone(), values=best.values.clone(), violation=violation)
        return Found(copied, self.cost.clone())
