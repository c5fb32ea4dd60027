"""Regularisers towards the uniform law on the sphere, from cosines of pairs (arXiv 2606.17603)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lewm.objectives.regularisers.base import Regulariser, check_pairs
from lewm.objectives.regularisers.kernel import angles
from lewm.registry import register
from lewm.types import InputError

KERNELS, DISTANCES = ("heat", "band"), ("mmd", "ksd", "kl")


class Zonal(NamedTuple):
    """phi(c), phi'(c) and phi''(c) of a kernel with phi(1) = 1."""

    value: Tensor
    slope: Tensor
    curvature: Tensor


def sharpness(dim: int, time: float) -> float:
    """What makes exp(k (c - 1)) the heat kernel of time `time` / dim, for many dimensions (to 1 % at 256)."""
    return dim * math.exp(-time * (dim - 1) / dim)


def heat(c: Tensor, sharp: float) -> Zonal:
    """exp(k (c - 1)), positive definite at any dimension."""
    value = torch.exp(sharp * (c - 1))
    return Zonal(value, sharp * value, sharp**2 * value)


def band(c: Tensor, dim: int) -> Zonal:
    """Spherical harmonics of degree 1 and 2, all with the same coefficient: means and second moments."""
    first, second = dim, (dim + 2) * (dim - 1) / 2  # how many harmonics there are
    total = 1 + first + second
    square = second / total / (dim - 1)
    value = (1 + first * c) / total + square * (dim * c**2 - 1)
    slope = first / total + 2 * square * dim * c
    return Zonal(value, slope, torch.full_like(c, 2 * square * dim))


@register("regulariser", "sphere_mmd")
class SpherePairs(Regulariser):
    """How far latents are from uniform on the sphere, by a kernel phi of the cosine c of pairs (arXiv 2606.17603).

        mmd  (mean_ij phi - U) / (1 - U),  U = mean of phi over the sphere
        ksd  mean_ij [ (c^2 - 1) phi'' + c (D - 1) phi' ] / ((D - 1) phi'(1))
        kl   1 - mean_i log(mean_{j != i} phi) / log U

    All are 1 when all latents are the same and 0, for infinitely many, when they are uniform. In `kl` the paper
    subtracts and divides by the log of the sphere's area, which changes sign near 18 dimensions; ours differs by
    that factor and is InfoNCE's uniformity. The weights give sigreg's gradient on a nearly uniform batch.

    Args:
        distance: `mmd`, `ksd` or `kl`.
        kernel: `heat`, or `band`: degrees 1 and 2 only (not for `kl`: it is negative in places).
        time: of the heat kernel in units of 1 / D; the paper's is 5, and 2 for `kl`.
    """

    link = "sphere"

    def __init__(
        self,
        *,
        weight: float = 6.4,
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
        self.distance, self.kernel, self.time = distance, kernel, time

    def measure(self, z_GND: Tensor, generator: torch.Generator) -> Tensor:
        """See the class."""
        dim = z_GND.shape[-1]
        unit = F.normalize(z_GND, dim=-1)
        cosines = unit @ unit.mT
        if self.distance == "kl":
            check_pairs(z_GND, "sphere_kl")
            return self._kl(cosines, dim)
        phi = self._kernel(cosines, dim)
        if self.distance == "ksd":
            stein = (cosines**2 - 1) * phi.curvature + cosines * (dim - 1) * phi.slope
            return stein.mean() / ((dim - 1) * self._kernel(cosines.new_ones(()), dim).slope)
        cosine, weights = _cosines(dim)
        uniform = (self._kernel(cosine, dim).value @ weights).item()
        return (phi.value.mean() - uniform) / (1 - uniform)

    def _kernel(self, cosines: Tensor, dim: int) -> Zonal:
        return heat(cosines, sharpness(dim, self.time)) if self.kernel == "heat" else band(cosines, dim)

    def _kl(self, cosines: Tensor, dim: int) -> Tensor:
        """In logarithms: the kernel is so sharp that one pair would round the others away."""
        count, sharp = cosines.shape[-1], sharpness(dim, self.time)
        itself = torch.eye(count, dtype=torch.bool, device=cosines.device)
        others = (sharp * (cosines - 1)).masked_fill(itself, -math.inf)
        cosine, weights = _cosines(dim)
        uniform = (sharp * (cosine - 1) + weights.log()).logsumexp(0).item()
        return 1 - (others.logsumexp(-1).mean() - math.log(count - 1)) / uniform


def _cosines(dim: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights for means over the cosine of two uniform directions."""
    angle, weights = (torch.from_numpy(x) for x in angles(dim))
    return torch.cat([angle.cos(), -angle.cos()]), torch.cat([weights, weights]) / 2
