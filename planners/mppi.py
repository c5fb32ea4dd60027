"""Model-predictive path integral control."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from planners.errors import InputError
from planners.population import Population, Search
from planners.search import Planner


class MPPI(Planner):
    """The mean of all candidates, weighted by exp(-cost / temperature) (Williams et al., arXiv 1509.01149).

    Args:
        temperature: in units of the cost; None finds, in every iteration and row, the one at which the weights
            count as `effective` candidates.
        effective: effective sample size 1 / sum(weight^2) aimed at.
        adapt_std: fit the std by the same weights; else it stays as it began.
        momentum: share of the old mean and std that is kept.
        options: see `Planner`.
    """

    BISECTIONS = 30

    def __init__(
        self,
        *,
        temperature: float | None = None,
        effective: float = 6.0,
        adapt_std: bool = True,
        momentum: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if (temperature is not None and temperature <= 0) or effective < 1 or not 0 <= momentum < 1:
            raise InputError(
                "MPPI needs temperature > 0, effective >= 1 and 0 <= momentum < 1; "
                f"got {temperature}, {effective}, {momentum}"
            )
        self.temperature, self.effective = temperature, effective
        self.adapt_std, self.momentum = adapt_std, momentum

    def update(self, search: Search, population: Population) -> Search:
        """See `Planner.update`."""
        above = population.costs - population.costs.amin(1, keepdim=True)
        above = torch.where(above.isfinite(), above, torch.inf)  # no finite cost in a row: inf - inf
        weight = self._weights(above)[:, :, None, None]
        mean = (weight * population.candidates).sum(1)
        search = replace(search, mean=torch.lerp(mean, search.mean, self.momentum))
        if self.adapt_std:
            std = (weight * (population.candidates - mean[:, None]).square()).sum(1).sqrt()
            search = replace(search, std=torch.lerp(std, search.std, self.momentum))
        return search

    def _weights(self, above: Tensor) -> Tensor:
        """(B, P), summing to one; `above` the cheapest, which is zero."""
        if self.temperature is not None:
            return torch.softmax(-above / self.temperature, dim=1)
        finite = torch.where(above.isfinite(), above, 0)
        low = torch.full_like(above[:, :1], -40.0)  # bounds of log temperature, relative to the spread of costs
        high, spread = torch.full_like(low, 12.0), finite.amax(1, keepdim=True).clamp(min=1e-20)
        for _ in range(self.BISECTIONS):
            middle = (low + high) / 2
            weight = torch.softmax(-above / (spread * middle.exp()), dim=1)
            enough = weight.square().sum(1, keepdim=True).reciprocal() > self.effective
            low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
        return torch.softmax(-above / (spread * high.exp()), dim=1)
