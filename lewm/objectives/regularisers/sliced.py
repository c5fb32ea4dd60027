"""Sliced regularisers: latents are projected on directions, and each projection is tested in one dimension."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lewm.objectives.regularisers.base import Regulariser, std
from lewm.registry import part, register
from lewm.types import InputError


@register("regulariser", "sigreg")
class Sliced(Regulariser):
    """Mean over directions a of a statistic of the projections a . z_n; `epps_pulley` is SIGReg (arXiv 2511.08544).

    Args:
        statistic: of each projection: how far it is from the target's.
        directions: how they are drawn.
        target: the law that latents should have; it says for which link of the model.
    """

    def __init__(
        self,
        *,
        weight: float = 6.4,
        statistic: Any = "epps_pulley",
        directions: Any = "iid",
        target: Any = "gaussian",
        axis: str = "batch",
        centre: str = "none",
        constants: float = 0.0,
    ) -> None:
        super().__init__(weight=weight, axis=axis, centre=centre, constants=constants)
        self.statistic, self.directions = part("statistic", statistic), part("directions", directions)
        self.target = part("target", target)
        self.link = self.target.link

    def measure(self, z_GND: Tensor, generator: torch.Generator) -> Tensor:
        """See the class."""
        directions = self.directions(z_GND.shape[-1], generator).to(z_GND)
        sample = self.target.sample(z_GND.shape, generator)
        reference = None if sample is None else sample.to(z_GND) @ directions
        return self.statistic(z_GND @ directions, reference).mean()


@register("regulariser", "visreg")
class VISReg(Sliced):
    """Centre, scale and shape apart, so that a collapsed batch is still told its shape (VISReg, arXiv 2606.02572).

        mean_j mu_j^2 + mean_j (1 - sigma_j)^2 + s mean_a W2^2(a . (z - mu) / sg(sigma), N(0, 1))

    sg stops the gradient; sigma is kept above `floor` in the division, where the authors add 1e-6: the gradient of
    the shape grows as 1 / sigma, which is the rescue, and needs a bound. The weight gives sigreg's gradient on a
    nearly Gaussian batch; the authors' is 1.5 for small sets (0.6 against 0.4 for the prediction).

    Args:
        shape: weight s of the shape; the authors raise it for long-tailed data.
    """

    def __init__(
        self,
        *,
        weight: float = 1.2,
        statistic: Any = "wasserstein",
        shape: float = 1.0,
        floor: float = 0.05,
        **options: Any,
    ) -> None:
        super().__init__(weight=weight, statistic=statistic, **options)
        if not (shape >= 0 and floor > 0):
            raise InputError(f"visreg needs shape >= 0 and floor > 0, got {shape} and {floor}")
        self.shape, self.floor = shape, floor

    def measure(self, z_GND: Tensor, generator: torch.Generator) -> Tensor:
        """See the class."""
        mean, sigma = z_GND.mean(1, keepdim=True), std(z_GND, 1).unsqueeze(1)
        shape = super().measure((z_GND - mean) / sigma.detach().clamp(min=self.floor), generator)
        return mean.square().mean() + (1 - sigma).square().mean() + self.shape * shape
