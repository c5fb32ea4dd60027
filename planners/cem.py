"""The cross-entropy method and its improved variant."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from planners.errors import InputError
from planners.population import Population, Search
from planners.proposals import Categorical, PowerLaw, Proposal
from planners.search import Planner


class CEM(Planner):
    """Refit mean and std to the elites of each iteration (Rubinstein 1999; as in LeWM, with bounds).

    Args:
        elites: candidates the fit uses.
        momentum: share of the old mean and std that is kept.
        options: see `Planner`.
    """

    def __init__(self, *, elites: int = 12, momentum: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        if not 1 <= elites <= min(self.samples, *self.schedule, self.samples) or not 0 <= momentum < 1:
            raise InputError(
                f"{type(self).__name__} needs 1 <= elites <= samples, 0 <= momentum < 1; got {elites} of "
                f"{list(self.schedule) or self.samples}, {momentum}"
            )
        self.elites, self.momentum = elites, momentum

    def update(self, search: Search, population: Population) -> Search:
        """See `Planner.update`; an elite without a finite cost has no weight."""
        count = min(self.elites, population.costs.shape[1])
        values, index = population.costs.topk(count, dim=1, largest=False)
        rows = torch.arange(len(index), device=index.device)[:, None]
        elites = population.candidates[rows, index]
        weight = values.isfinite().float()
        weight = (weight / weight.sum(1, keepdim=True).clamp(min=1))[:, :, None, None]
        mean = (weight * elites).sum(1)
        std = (weight * (elites - mean[:, None]).square()).sum(1).sqrt()
        return replace(
            search,
            mean=torch.lerp(mean, search.mean, self.momentum),
            std=torch.lerp(std, search.std, self.momentum),
        )


class ICEM(CEM):
    """CEM with coloured noise, elites that are kept and carried over, and a population that decays.

    arXiv 2008.06389. Differs in that noise is coloured over environment steps, not action blocks, and has exact
    variance; the mean is a candidate of every iteration, not only of the last.

    Args:
        beta: of the noise's power spectrum 1 / f ** beta.
        decay: factor by which the population shrinks with each iteration, not below twice the elites.
        keep, carry: see `Planner`.
        options: see `CEM` and `Planner`.
    """

    def __init__(
        self,
        *,
        beta: float = 2.0,
        decay: float = 1.25,
        momentum: float = 0.1,
        keep: int = 4,
        carry: int = 4,
        proposal: Proposal | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            momentum=momentum, keep=keep, carry=carry, proposal=proposal or PowerLaw(beta=beta), **options
        )
        if decay < 1:
            raise InputError(f"decay must be at least 1 (no decay), got {decay}")
        self.decay = decay

    def population(self, iteration: int) -> int:
        """See `Planner.population`."""
        full = super().population(iteration)
        return full if self.schedule else min(full, max(2 * self.elites, round(full * self.decay**-iteration)))


class CategoricalCEM(CEM):
    """CEM over discrete actions, one-hot: the mean of the elites is the next iteration's probabilities.

    Args:
        groups, smoothing: see `proposals.Categorical`.
        options: see `CEM` and `Planner`.
    """

    def __init__(self, *, groups: tuple[int, ...] = (), smoothing: float = 0.05, **options: Any) -> None:
        if options.get("proposal") is not None:
            raise InputError("categorical CEM draws categories; for another proposal take CEM")
        super().__init__(**options | {"proposal": Categorical(groups=groups, smoothing=smoothing)})
