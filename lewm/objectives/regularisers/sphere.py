"""Regularisers towards the uniform law on the sphere, from cosines of pairs (arXiv 2606.17603)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lewm.objectives.regularisers.base import Regulariser
from lewm.objectives.regularisers.kernel import angles
from lewm.registry import register
from lewm.types import InputError

KERNELS, DISTANCES = ("heat", "band"), ("mmd", "ksd", "kl")


class Zonal(NamedTuple):
    """phi(c), phi'(c) and phi''(c) of a kernel with phi(1) = 1."""

    value: Tensor
    slope: Tensor
    curvature: Tensor


def heat(c: Tensor, dim: int, time: float) -> Zonal:
    """exp(k (c - 1)) with k = dim exp(-time (dim - 1) / dim): the heat kernel of time `time` / dim, for many dimensions.

    At 256 dimensions they differ by 1 %; this one is positive definite at any.
    """
    sharpness = dim * math.exp(-time * (dim - 1) / dim)
    value = torch.exp(sharpness * (c - 1))
    return Zonal(value, sharpness * value, sharpness**2 * value)


def band(c: Tensor, dim: int, time: float = 0.0) -> Zonal:
    """Spherical harmonics of degree 1 and 2, all with the same coefficient: means and second moments."""
    first, second = dim, (dim + 2) * (dim - 1) / 2  # how many harmonics there are
    total = 1 + first + second
    square = second / total / (dim - 1)
    value = (1 + first * c) / total + square * (dim * c**2 - 1)
    slope = first / total + 2 * square * dim * c
    return Zonal(value, slope, torch.full_like(c, 2 * square * dim))


@register("regulariser", "sphere_mmd")
class SpherePairs(Regulariser):
    """How far directions are from uniform on the sphere, with a kernel phi of the cosine c of pairs (arXiv 2606.17603).

        mmd  (mean_ij phi - U) / (1 - U),  U = mean of phi over the sphere
        ksd  mean_ij [ (c^2 - 1) phi'' + c (D - 1) phi' ] / ((D - 1) phi'(1))
        kl   1 - mean_i log(mean_{j != i} phi) / log U

    All are 1 when all latents are the same and 0, for infinitely many, when they are uniform. In `kl` the paper
    subtracts and divides by the log of the sphere's area, which changes sign near 18 dimensions; the gradient is the
    same but for that constant. `kl` with `heat` is InfoNCE's uniformity with sharp kernels.

    Args:
        distance: `mmd`, `ksd` or `kl`.
        kernel: `heat`, or `band`: degrees 1 and 2 only (not for `kl`: it is negative in places).
        time: of the heat kernel in units of 1 / D; the paper's is 5, and 2 for `kl`.
    """

    link = "sphere"

    def __init__(
        self,
        *,
        weight: float = 1.0,
        distance: str = "mmd",
        kernel: str = "heat",
        time: float = 5.0,
        axis: str = "batch",
        centre: str = "none",
        constants: float = 0.0,
    ) -> None:
        super().__init__(weight=weight, axis=axis, centre=centre, constants=constants)
        if distance not in DISTANCES or kernel not in KERNELS or (distance, kernel) == ("kl", "band"):
            raise InputError(f"need a distance of {DISTANCES}, a kernel of {KERNELS}, not both kl and band")
        self.distance, self.kernel, self.time = distance, heat if kernel == "heat" else band, time

    def measure(self, z_GND: Tensor, generator: torch.Generator) -> Tensor:
        """See the class."""
        rows, dim = z_GND.shape[-2:]
        unit = F.normalize(z_GND, dim=-1)
        cosines = unit @ unit.mT
        phi = self.kernel(cosines, dim, self.time)
        if self.distance == "ksd":
            at_one = self.kernel(torch.ones((), dtype=z_GND.dtype), dim, self.time).slope.item()
            stein = (cosines**2 - 1) * phi.curvature + cosines * (dim - 1) * phi.slope
            return stein.mean() / ((dim - 1) * at_one)
        uniform = self._uniform(dim)
        if self.distance == "mmd":
            return (phi.value.mean() - uniform) / (1 - uniform)
        others = (phi.value.sum(-1) - phi.value.diagonal(dim1=-2, dim2=-1)) / (rows - 1)
        return 1 - others.log().mean() / math.log(uniform)

    def _uniform(self, dim: int) -> float:
        """Mean of the kernel over the sphere."""
        angle, weights = (torch.from_numpy(x) for x in angles(dim))
        both = torch.cat([angle.cos(), -angle.cos()])
        return (self.kernel(both, dim, self.time).value @ weights.repeat(2)).item() / 2
