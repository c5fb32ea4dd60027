"""The LeWM objective: next-embedding prediction plus SIGReg, nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lewm.objectives.sigreg import sigreg, unit_directions
from lewm.registry import register


@dataclass(frozen=True)
class LossTerms:
    """Scalars of one batch: `total` is minimised, the others say what it is made of."""

    total: Tensor
    prediction: Tensor
    regularisation: Tensor


@register("objective", "lejepa")
class LeJEPA:
    """total = mean squared prediction error + weight * EP / N (arXiv 2603.19312, equation 4, per-sample weight).

    Gradient flows into predictions and targets alike; SIGReg alone keeps the latents from collapsing.

    Args:
        weight: of SIGReg per sample: 6.4 is lambda 0.1 at batch 64; the paper's is 0.09 at 128, 11.5.
        directions: random projections per step; knots, t_max: the quadrature grid.
    """

    def __init__(
        self, *, weight: float = 6.4, directions: int = 256, knots: int = 17, t_max: float = 3.0
    ) -> None:
        self.weight, self.directions, self.knots, self.t_max = weight, directions, knots, t_max

    def __call__(self, z_BTD: Tensor, predicted_BTD: Tensor, generator: torch.Generator) -> LossTerms:
        """Loss of a batch.

        Args:
            z_BTD: encoded frames 0..T-1; predicted_BTD: predictions of frames 1..T-1.
            generator: draws this step's directions.
        """
        prediction = (predicted_BTD - z_BTD[:, 1:]).square().mean()
        directions = unit_directions(z_BTD.shape[-1], self.directions, generator)
        spread = sigreg(z_BTD.transpose(0, 1), directions, knots=self.knots, t_max=self.t_max)
        return LossTerms(prediction + self.weight * spread, prediction, spread)
