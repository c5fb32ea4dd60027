"""The LeWM objective: next-embedding prediction plus SIGReg, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lewm.objectives.sigreg import sigreg, unit_directions
from lewm.registry import register
from lewm.types import InputError


@dataclass(frozen=True)
class LossTerms:
    """Scalars of one batch: `total` is minimised, the others say what it is made of."""

    total: Tensor
    prediction: Tensor
    regularisation: Tensor


Predict = Callable[[Tensor, Tensor], Tensor]


@register("objective", "lejepa")
class LeJEPA:
    """total = mean squared prediction error + weight * EP / N (arXiv 2603.19312, equation 4, per-sample weight).

    Gradient flows into predictions and targets alike; SIGReg alone keeps the latents from collapsing. With
    `open_loop` above 1 the predictor is also applied to its own output, so that it is trained for the imagination
    a planner asks of it; the paper's objective is 1.

    Args:
        weight: of SIGReg per sample: 6.4 is lambda 0.1 at batch 64; the paper's is 0.09 at 128, 11.5.
        open_loop: predict 1, 2, ... up to this many blocks ahead; their errors are averaged.
        directions: random projections per step; knots, t_max: the quadrature grid.
    """

    def __init__(
        self,
        *,
        weight: float = 6.4,
        open_loop: int = 1,
        directions: int = 256,
        knots: int = 17,
        t_max: float = 3.0,
    ) -> None:
        if open_loop < 1 or directions < 1 or knots < 2 or not t_max > 0:
            raise InputError(
                "lejepa needs open_loop and directions >= 1, knots >= 2, t_max > 0; "
                f"got {open_loop}, {directions}, {knots}, {t_max}"
            )
        self.weight, self.open_loop = weight, open_loop
        self.directions, self.knots, self.t_max = directions, knots, t_max

    def __call__(
        self, z_BTD: Tensor, actions_BTKA: Tensor, predict: Predict, generator: torch.Generator
    ) -> LossTerms:
        """Loss of a batch of windows.

        Args:
            z_BTD: encoded frames; actions_BTKA: the T - 1 raw action blocks between them.
            predict: (z_BTD, actions_BTKA) -> the latents one block later (B, T, D).
            generator: draws this step's directions.
        """
        ahead, errors = z_BTD, []
        for k in range(1, min(self.open_loop, z_BTD.shape[1] - 1) + 1):
            ahead = predict(ahead[:, :-1], actions_BTKA[:, k - 1 :])  # now k blocks ahead of what was seen
            errors.append((ahead - z_BTD[:, k:]).square().mean())
        prediction = torch.stack(errors).mean()
        directions = unit_directions(z_BTD.shape[-1], self.directions, generator)
        spread = sigreg(z_BTD.transpose(0, 1), directions, knots=self.knots, t_max=self.t_max)
        return LossTerms(prediction + self.weight * spread, prediction, spread)
