"""Terms of different scale to one cost, and feasibility before cost: the one place for both.

A mixer maps terms (B, P, K) and a mask of candidates that count (B, P) to costs (B, P). Statistics are those of the
population at hand, so costs of different iterations compare only if they are mixed again together.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from planners.errors import InputError


def weighted_sum(values: Tensor, valid: Tensor, weights: tuple[float, ...] = ()) -> Tensor:
    """The sum of weight * term."""
    return _sum(values, weights)


def z_score(values: Tensor, valid: Tensor, weights: tuple[float, ...] = ()) -> Tensor:
    """The sum of weight * (term - its mean) / its std over the population."""
    mean, std = _moments(values, valid)
    return _sum((values - mean) / std, weights)


def std_ratio(values: Tensor, valid: Tensor, weights: tuple[float, ...] = ()) -> Tensor:
    """The first term plus the others scaled to its spread, std(first) / std(term) (ACID, arXiv 2607.02403)."""
    _, std = _moments(values, valid)
    return _sum(values * (std[..., :1] / std), weights)


MIXERS: dict[str, Callable[..., Tensor]] = {"sum": weighted_sum, "z_score": z_score, "std_ratio": std_ratio}


def mixer(name: str, weights: tuple[float, ...] = ()) -> Callable[[Tensor, Tensor], Tensor]:
    """A mixer by name."""
    if name not in MIXERS:
        raise InputError(f"terms are mixed by {', '.join(MIXERS)}; got '{name}'")
    return partial(MIXERS[name], weights=tuple(weights))


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


def _sum(values: Tensor, weights: tuple[float, ...]) -> Tensor:
    parts = values.unbind(-1)
    return sum((w * part for w, part in zip(weights or (1.0,) * len(parts), parts, strict=True)), 0.0)


def _moments(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and std (B, 1, K) over the valid candidates; a term without spread has std one."""
    values, mask = values.detach(), valid[..., None]  # to a descent the statistics are constants
    count = mask.sum(1, keepdim=True).clamp(min=1)
    mean = torch.where(mask, values, 0).sum(1, keepdim=True) / count
    std = (torch.where(mask, values - mean, 0).square().sum(1, keepdim=True) / count).sqrt()
    return mean, torch.where(std > 1e-6 * mean.abs(), std, 1)
