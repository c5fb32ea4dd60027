"""Statistics of one-dimensional samples: how far each column of (..., N, M) is from N(0, 1), as (..., M).

Given `reference`, a sample (N, M) of another law, they measure the distance from it, or refuse.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lewm.objectives.regularisers.base import std
from lewm.registry import register
from lewm.types import InputError


def _only_gaussian(name: str, reference: Tensor | None) -> None:
    if reference is not None:
        raise InputError(f"statistic {name} knows N(0, 1) only; a sampled target needs statistic=wasserstein")


@lru_cache
def _quadrature(knots: int, t_max: float) -> tuple[list[float], list[float]]:
    """phi_k and w_k phi_k of the folded trapezoid rule at `knots` equally spaced points of [0, t_max]."""
    t = torch.linspace(0, t_max, knots, dtype=torch.float64)
    phi = torch.exp(-(t**2) / 2)
    weight = torch.full_like(t, 2 * t_max / (knots - 1))
    weight[[0, -1]] /= 2
    return phi.tolist(), (weight * phi).tolist()


class _EppsPulley(torch.autograd.Function):
    """EP / N of each column of (..., N, M), with the gradient accumulated during the forward pass.

    The knots are equally spaced, so cos and sin of t_k x follow from two before by cos (k+1)a = 2 cos a cos ka -
    cos (k-1)a, in place: one transcendental pair per projection instead of `knots`, memory O(N M) instead of
    O(N M knots), and no allocation in the loop.
    """

    @staticmethod
    def forward(ctx: Any, x_NM: Tensor, knots: int, t_max: float) -> Tensor:
        phi, weight = _quadrature(knots, t_max)
        step = t_max / (knots - 1)
        cos, sin = torch.cos(step * x_NM), torch.sin(step * x_NM)
        cos_before, sin_before, twice = torch.ones_like(cos), torch.zeros_like(sin), 2 * cos
        gradient = torch.zeros_like(x_NM)
        total = x_NM.new_zeros(*x_NM.shape[:-2], 1, x_NM.shape[-1])  # knot 0 (t = 0) contributes nothing
        for k in range(1, knots):
            real = cos.mean(-2, keepdim=True) - phi[k]
            imaginary = sin.mean(-2, keepdim=True)
            total += weight[k] * (real**2 + imaginary**2)
            slope = 2 * weight[k] * k * step / x_NM.shape[-2]
            gradient.addcmul_(cos, imaginary, value=slope).addcmul_(sin, real, value=-slope)
            if k + 1 < knots:
                cos, cos_before = cos_before.neg_().addcmul_(twice, cos), cos
                sin, sin_before = sin_before.neg_().addcmul_(twice, sin), sin
        ctx.save_for_backward(gradient)
        return total.squeeze(-2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad.unsqueeze(-2), None, None


@register("statistic", "epps_pulley")
class EppsPulley:
    """The Epps-Pulley statistic, what LeJEPA chose (arXiv 2511.08544, section 4.2), per sample.

        EP / N = sum_k w_k phi_k [ (mean_n cos(t_k x_n) - phi_k)^2 + (mean_n sin(t_k x_n))^2 ]

    with phi_k = exp(-t_k^2 / 2), at `knots` equally spaced t_k in [0, `t_max`] with trapezoid weights w_k for
    [-t_max, t_max], folded by symmetry. The published loss is EP, so its weight depends on the batch size; this is
    EP / N (the paper's 0.09 at batch 128 is a weight of 11.5). All latents equal to zero give 0.4020; Gaussian ones
    1.0525 / N in expectation.
    """

    def __init__(self, *, knots: int = 17, t_max: float = 3.0) -> None:
        if knots < 2 or not t_max > 0:
            raise InputError(f"epps_pulley needs knots >= 2 and t_max > 0, got {knots} and {t_max}")
        self.knots, self.t_max = knots, t_max

    def __call__(self, x_NM: Tensor, reference: Tensor | None = None) -> Tensor:
        """(..., N, M) -> (..., M)."""
        _only_gaussian("epps_pulley", reference)
        return _EppsPulley.apply(x_NM, self.knots, self.t_max)


@register("statistic", "wasserstein")
class Wasserstein:
    """Squared 2-Wasserstein distance, mean_i (x_(i) - q_i)^2 of the sorted sample (arXiv 2606.02572, 2602.01456).

    q_i is the Gaussian quantile at i / (N + 1), or the sorted `reference`.
    """

    def __call__(self, x_NM: Tensor, reference: Tensor | None = None) -> Tensor:
        """(..., N, M) -> (..., M)."""
        count = x_NM.shape[-2]
        if reference is None:
            ranks = torch.arange(1, count + 1, dtype=torch.float64) / (count + 1)
            reference = torch.special.ndtri(ranks).to(x_NM).unsqueeze(-1)
        else:
            reference = reference.sort(-2).values
        return (x_NM.sort(-2).values - reference).square().mean(-2)


@register("statistic", "moments")
class Moments:
    """mean^2 + (std - 1)^2: the first two moments of each projection, all that a covariance knows."""

    def __call__(self, x_NM: Tensor, reference: Tensor | None = None) -> Tensor:
        """(..., N, M) -> (..., M)."""
        _only_gaussian("moments", reference)
        return x_NM.mean(-2).square() + (std(x_NM, -2) - 1).square()
