"""The cross-entropy method."""

from __future__ import annotations

import torch
from torch import Tensor

from planners.search import SamplingPlanner
from planners.types import InputError


class CEM(SamplingPlanner):
    """Refit mean and std to the elites of each iteration (Rubinstein 1999; as in LeWM, with bounds).

    Args:
        elites: candidates the fit uses.
        momentum: share of the old mean and std that is kept.
        options: see `SamplingPlanner`.
    """

    def __init__(self, *, elites: int = 12, momentum: float = 0.0, **options: float) -> None:
        super().__init__(**options)
        if not 1 <= elites <= self.samples or not 0 <= momentum < 1:
            raise InputError(
                f"CEM needs 1 <= elites <= samples, 0 <= momentum < 1; got {elites} of {self.samples}, {momentum}"
            )
        self.elites, self.momentum = elites, momentum

    def update(self, mean: Tensor, std: Tensor, candidates: Tensor, costs: Tensor) -> tuple[Tensor, Tensor]:
        """See `SamplingPlanner.update`; an elite without a finite cost has no weight."""
        values, index = costs.topk(self.elites, dim=1, largest=False)
        elites = candidates.gather(1, index[:, :, None, None].expand(-1, -1, *candidates.shape[2:]))
        weight = values.isfinite().float()
        weight = (weight / weight.sum(1, keepdim=True).clamp(min=1))[:, :, None, None]
        new_mean = (weight * elites).sum(1)
        new_std = (weight * (elites - new_mean[:, None]).square()).sum(1).sqrt()
        return torch.lerp(new_mean, mean, self.momentum), torch.lerp(new_std, std, self.momentum)
