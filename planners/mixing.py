"""Terms of different scale to one cost, and feasibility before cost: the one place for both."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from planners.errors import InputError

KINDS = ("sum", "z_score", "std_ratio")


@dataclass(frozen=True)
class Mixer:
    """Terms (B, P, K) and a mask of candidates that count (B, P) -> costs (B, P).

    Statistics are those of the population at hand, so costs of different populations do not compare unless they are
    mixed again together, or by a mixer that is `fixed`.

    Attributes:
        kind: `sum`, of weight * term; `z_score`, of weight * (term - its mean) / its std; `std_ratio`, of the first
            term and the others times std(first) / std(term) (ACID, arXiv 2607.02403).
        weights: one per term; () means 1 each.
        moments: mean and std (B, 1, K) to use in place of the population's.
    """

    kind: str = "sum"
    weights: tuple[float, ...] = ()
    moments: tuple[Tensor, Tensor] | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"terms are mixed by {', '.join(KINDS)}; got '{self.kind}'")

    def __call__(self, values: Tensor, valid: Tensor) -> Tensor:
        """(B, P)."""
        if self.kind != "sum":
            mean, std = self.moments or _moments(values, valid)
            values = (values - mean) / std if self.kind == "z_score" else values * (std[..., :1] / std)
        parts = values.unbind(-1)
        return sum((w * part for w, part in zip(self.weights or (1.0,) * len(parts), parts, strict=True)), 0.0)

    def fixed(self, values: Tensor, valid: Tensor) -> Mixer:
        """The same with the statistics of this population, for all that follow: what a descent needs."""
        return replace(self, moments=None if self.kind == "sum" else _moments(values, valid))


def rank(mixed: Tensor, valid: Tensor, violation: Tensor | None) -> Tensor:
    """Costs (B, P) to search by: every feasible candidate before every infeasible one, those by violation.

    Deb's rule (2000), relative to the worst feasible candidate of the population. Not valid is +inf.
    """
    valid = valid & mixed.isfinite()
    if violation is not None:
        feasible = valid & (violation <= 0)
        worst = torch.where(feasible, mixed, -torch.inf).amax(1, keepdim=True)
        worst = torch.where(worst.isfinite(), worst, 0)
        mixed = torch.where(feasible, mixed, worst + 1e-3 * worst.abs() + violation)
    return torch.where(valid & mixed.isfinite(), mixed, torch.inf)


def _moments(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and std (B, 1, K) over the valid candidates; a term without spread has std one."""
    values, mask = values.detach(), valid[..., None]  # to a descent the statistics are constants
    count = mask.sum(1, keepdim=True).clamp(min=1)
    mean = torch.where(mask, values, 0).sum(1, keepdim=True) / count
    std = (torch.where(mask, values - mean, 0).square().sum(1, keepdim=True) / count).sqrt()
    return mean, torch.where(std > 1e-6 * mean.abs(), std, 1)
