"""Arithmetic between the rows of a batch, in float32 at least."""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(like: Tensor) -> torch.autocast:
    """A context without autocast: exponents and differences of near equals do not survive bfloat16."""
    return torch.autocast(like.device.type, enabled=False)


def widened(x: Tensor) -> Tensor:
    """float64 as it is, anything else as float32."""
    return x if x.dtype == torch.float64 else x.float()


def mean_squared_distances(x_ND: Tensor, y_MD: Tensor) -> Tensor:
    """|x_n - y_m|^2 / D for all pairs, (N, M), without the (N, M, D) of differences."""
    x, y = widened(x_ND), widened(y_MD)
    centre = y.mean(0).detach()  # distances of far-away clouds would cancel
    x, y = x - centre, y - centre
    squares = x.square().sum(-1)[:, None] + y.square().sum(-1) - 2 * x @ y.T
    return squares / x.shape[-1]
