"""Slice-free regularisers: kernels between latents instead of projections, (N, N) per group."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.autograd.function import once_differentiable

from lewm.objectives.regularisers.base import Regulariser, check_pairs
from lewm.objectives.regularisers.directions import frozen_subspaces
from lewm.registry import register
from lewm.types import InputError

FORMS = ("kummer", "imq")


def squared_distances(x_GND: Tensor, y_GND: Tensor) -> Tensor:
    """(G, N, N) by products; centred first, as otherwise a common offset would eat the digits."""
    middle = x_GND.mean(1, keepdim=True).detach()
    x_GND, y_GND = x_GND - middle, y_GND - middle
    squares = x_GND.square().sum(-1).unsqueeze(-1) + y_GND.square().sum(-1).unsqueeze(-2)
    return squares - 2 * x_GND @ y_GND.mT


@lru_cache
def angles(dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes in [0, pi / 2] and weights of sum 1, for means over the angle of random directions to an axis."""
    nodes, weights = np.polynomial.legendre.leggauss(256)
    angle = (nodes + 1) * np.pi / 4
    weights = weights * np.sin(angle) ** (dim - 2)
    return angle, weights / weights.sum()


@lru_cache
def _kummer_polynomials(dim: int) -> tuple[list[float], list[float]]:
    """Coefficients of h and h / 2 + v h' in 1F1(1/2; dim/2; -s) = sqrt(v) h(v), highest power of x = 2 v - 1 first.

    v = 1 / (1 + 2 s / dim) maps all distances into [0, 1]. sqrt(v) alone is the limit for many dimensions, the
    inverse-multiquadric kernel, so h is nearly constant and a short polynomial reaches 1e-8 (from 4 dimensions on).
    """
    angle, weights = angles(dim)
    chebyshev = np.polynomial.chebyshev
    x = chebyshev.chebpts1(24)
    v = (x + 1) / 2
    s = (1 / v - 1) * dim / 2
    h = np.exp(-s[:, None] * np.cos(angle) ** 2) @ weights / np.sqrt(v)
    fitted = np.polynomial.Polynomial(chebyshev.cheb2poly(chebyshev.chebtrim(chebyshev.chebfit(x, h, 23), 1e-10)))
    slope = fitted / 2 + np.polynomial.Polynomial([1.0, 1.0]) * fitted.deriv()  # v d/dv = (x + 1) d/dx
    return fitted.coef[::-1].tolist(), slope.coef[::-1].tolist()


def _polynomial(coefficients: list[float], x: Tensor) -> Tensor:
    value = torch.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value.mul_(x).add_(coefficient)
    return value


class _Kummer(torch.autograd.Function):
    """1F1(1/2; dim/2; -s) and, backwards, its derivative -(2 / dim) v^(3/2) (h / 2 + v h'); it keeps only v."""

    @staticmethod
    def forward(ctx: Any, s: Tensor, dim: int) -> Tensor:
        v = 1 / (1 + s * (2 / dim))
        ctx.save_for_backward(v)
        ctx.dim = dim
        return _polynomial(_kummer_polynomials(dim)[0], 2 * v - 1) * v.sqrt()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (v,) = ctx.saved_tensors
        return _polynomial(_kummer_polynomials(ctx.dim)[1], 2 * v - 1) * v * v.sqrt() * grad * (-2 / ctx.dim), None


def kummer(s: Tensor, dim: int) -> Tensor:
    """1F1(1/2; dim/2; -s), s >= 0: the mean of exp(-s cos^2) over the angle of a direction to a fixed axis."""
    return _Kummer.apply(s, dim) if dim > 1 else (-s).exp()


def inverse_multiquadric(s: Tensor, dim: int) -> Tensor:
    """(1 + 2 s / dim)^(-1/2), what `kummer` tends to for many dimensions."""
    return (1 + s * (2 / dim)).rsqrt()


@register("regulariser", "exact_sigreg")
class Exact(Regulariser):
    """SIGReg over all directions instead of some: no slices, no noise (KerJEPA, arXiv 2512.19605, theorem 7).

        sqrt(2 pi) [ mean_ij k(|z_i - z_j|^2 / 2) - sqrt 2 mean_i k(|z_i|^2 / 4) + 1 / sqrt 3 ]

    with k(s) = 1F1(1/2; D/2; -s) is the mean of EP / N over the sphere of directions, with the integral over t
    instead of its quadrature on [-3, 3], which differs by 0.4 %. Costs N^2 D per group.

    Args:
        form: `kummer` is exact; `imq` replaces k by (1 + 2 s / D)^(-1/2), its limit for many dimensions.
        subspaces: of Sub-JEPA, drawn from `seed`; 0 is the whole space.
    """

    def __init__(
        self,
        *,
        weight: float = 6.4,
        form: str = "kummer",
        subspaces: int = 0,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(weight=weight, **options)
        if form not in FORMS or subspaces < 0:
            raise InputError(f"need a form of {FORMS} and subspaces >= 0, got '{form}' and {subspaces}")
        self.form, self.subspaces, self.seed = form, subspaces, seed

    def measure(self, z_GND: Tensor, generator: torch.Generator) -> Tensor:
        """See the class."""
        if self.subspaces:
            bases = frozen_subspaces(self.subspaces, z_GND.shape[-1], self.seed).to(z_GND)
            z_GND = rearrange(z_GND.unsqueeze(1) @ bases, "g k n d -> (g k) n d")
        dim = z_GND.shape[-1]
        kernel = kummer if self.form == "kummer" else inverse_multiquadric
        pairs = kernel(squared_distances(z_GND, z_GND) / 2, dim).mean()
        single = kernel(z_GND.square().sum(-1) / 4, dim).mean()
        return math.sqrt(2 * math.pi) * (pairs - math.sqrt(2) * single + 1 / math.sqrt(3))


@register("regulariser", "ksd")
class KernelStein(Regulariser):
    """Kernel Stein discrepancy from N(0, I) with the inverse-multiquadric kernel (KerJEPA, arXiv 2512.19605).

        mean_{i != j} [ z_i . z_j / u + (D - r^2) / (b u^3) - 3 r^2 / (b^2 u^5) ]

    with r = |z_i - z_j| and u^2 = 1 + r^2 / b. Pairs i = j are left out, as with them small batches settle at half
    the scale, and b = `bandwidth` D is fixed, as with the median distance the gradient explodes near collapse; both
    differ from the paper. May be below zero. The weight gives sigreg's gradient on a nearly Gaussian batch.
    """

    def __init__(self, *, weight: float = 0.03, bandwidth: float = 1.0, **options: Any) -> None:
        super().__init__(weight=weight, **options)
        if not bandwidth > 0:
            raise InputError(f"ksd needs a bandwidth above 0, got {bandwidth}")
        self.bandwidth = bandwidth

    def measure(self, z_GND: Tensor, generator: torch.Generator) -> Tensor:
        """See the class."""
        check_pairs(z_GND, "ksd")
        count, dim = z_GND.shape[-2:]
        b, squares = self.bandwidth * dim, squared_distances(z_GND, z_GND)
        u = (1 + squares / b).rsqrt()
        pairs = z_GND @ z_GND.mT * u + (dim - squares) / b * u**3 - 3 * squares / b**2 * u**5
        same = pairs.diagonal(dim1=-2, dim2=-1).sum(-1)
        return ((pairs.sum((-2, -1)) - same) / (count * (count - 1))).mean()
