"""Sliced regularisers: latents are projected on directions, and each projection is tested in one dimension."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lewm.objectives.regularisers.base import Regulariser
from lewm.registry import part, register


@register("regulariser", "sigreg")
class Sliced(Regulariser):
    """mean over directions a of a statistic of the projections a . z_n: SIGReg with `epps_pulley` (arXiv 2511.08544).

    Args:
        statistic: of each projection: how far it is from N(0, 1).
        directions: how they are drawn.
    """

    def __init__(
        self,
        *,
        weight: float = 6.4,
        statistic: Any = "epps_pulley",
        directions: Any = "iid",
        **options: Any,
    ) -> None:
        super().__init__(weight=weight, **options)
        self.statistic, self.directions = part("statistic", statistic), part("directions", directions)

    def measure(self, z_GND: Tensor, generator: torch.Generator) -> Tensor:
        """See the class."""
        directions = self.directions(z_GND.shape[-1], generator).to(z_GND)
        return self.statistic(z_GND @ directions).mean()
