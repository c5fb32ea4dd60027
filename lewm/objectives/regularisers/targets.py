"""Laws that latents are compared with, seen through the link of the model that fits them."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from lewm.registry import register
from lewm.types import InputError


@register("target", "gaussian")
class Gaussian:
    """N(0, I): each projection is compared with N(0, 1) itself."""

    link = "none"

    def sample(self, shape: torch.Size, generator: torch.Generator) -> Tensor | None:
        """Nothing: the law of its projections is known."""
        return None


@register("target", "sphere")
class Sphere(Gaussian):
    """Uniform on the sphere of radius sqrt(D), whose projections are N(0, 1) up to O(1/D) (arXiv 2605.26900).

    The paper tests projections of unit vectors, of which Epps-Pulley sees little but the mean; ours are longer.
    """

    link = "sphere"


@register("target", "rectified")
class Rectified:
    """Sparse: max(0, `shift` + x), x from exp(-|x|^p / (p s^p)) of unit variance (RDMReg, arXiv 2602.01456).

    Not closed under projection, so it is sampled and projected. `exponent` p = 1 (LpWM, arXiv 2608.22764) is
    Laplace, 2 is Gaussian; half of the coordinates are 0, fewer with a shift above 0.
    """

    link = "rectified"

    def __init__(self, *, exponent: float = 1.0, shift: float = 0.0) -> None:
        if not exponent > 0:
            raise InputError(f"the rectified target needs an exponent above 0, got {exponent}")
        self.exponent, self.shift = exponent, shift

    def sample(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """(..., D) float32; |x|^p is a Gamma variable, which torch cannot draw from a generator and numpy can."""
        p = self.exponent
        numbers = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        magnitude = numbers.standard_gamma(1 / p, shape) ** (1 / p)
        unit = math.exp((math.lgamma(1 / p) - math.lgamma(3 / p)) / 2)
        sign = numbers.choice((-1.0, 1.0), shape)
        return torch.from_numpy(np.maximum(0, self.shift + unit * sign * magnitude)).float()
