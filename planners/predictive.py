"""Predictive sampling."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from planners.population import Population, Search
from planners.proposals import Proposal, Spline
from planners.search import Planner


class PredictiveSampling(Planner):
    """The best of noisy splines around the last plan becomes the plan; the std never changes (arXiv 2212.00541).

    Args:
        knots, order: see `proposals.Spline`.
        options: see `Planner`.
    """

    def __init__(
        self,
        *,
        knots: int = 5,
        order: int = 3,
        iterations: int = 1,
        proposal: Proposal | None = None,
        **options: Any,
    ) -> None:
        super().__init__(iterations=iterations, proposal=proposal or Spline(knots=knots, order=order), **options)

    def update(self, search: Search, population: Population) -> Search:
        """See `Planner.update`."""
        return replace(search, mean=population.best)
