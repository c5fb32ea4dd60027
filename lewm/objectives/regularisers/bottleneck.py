"""The symmetric information bottleneck: no law is prescribed, but what is kept has a price."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lewm.objectives.encoded import Encoded
from lewm.objectives.regularisers.base import Regulariser
from lewm.objectives.regularisers.kernel import squared_distances
from lewm.registry import register
from lewm.types import InputError


@register("regulariser", "dysib")
class SymmetricBottleneck(Regulariser):
    """I(past; x) + I(future; y) - beta I(x; y): keep what predicts and nothing else (DySIB, arXiv 2604.24662).

        c [ KL(q_x | N(0, I)) + KL(q_y | N(0, I)) ] / D - I(x, y),  q_x = N(prediction, s^2 I),  q_y = N(z, s^2 I)
        I(x, y) = log N + mean_i log softmax_j(-|x_i - y_j|^2 / (D tau))_i, mean with x and y exchanged

    A reconstruction: the paper's bound, critic and hyperparameters were not found; ours are InfoNCE, a squared
    distance and fixed s. The past is what our predictor saw, actions included. It falls below zero when it works.

    Args:
        complexity: c, the price of a nat per dimension, D / beta. Below 2 / `temperature` latents that collapse are
            pushed apart again.
        std: s; temperature: tau.
    """

    def __init__(
        self,
        *,
        weight: float = 0.4,
        complexity: float = 1.0,
        std: float = 0.3,
        temperature: float = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(weight=weight, **options)
        if not (complexity >= 0 and std > 0 and temperature > 0):
            raise InputError(f"need complexity >= 0, std and temperature > 0, got {complexity, std, temperature}")
        self.complexity, self.std, self.temperature = complexity, std, temperature

    def measure(self, z_GND: Tensor, generator: torch.Generator) -> Tensor:
        """Of predictions and what they predict, one after the other along D."""
        past, future = (half + self._noise(half, generator) for half in z_GND.chunk(2, dim=-1))
        kl = (z_GND.square().mean() + self.std**2 - 1) / 2 - math.log(self.std)
        scores = -squared_distances(past, future) / (past.shape[-1] * self.temperature)
        matched = scores.diagonal(dim1=-2, dim2=-1)
        rows, columns = (matched - scores.logsumexp(axis) for axis in (-1, -2))
        return 2 * self.complexity * kl - math.log(z_GND.shape[1]) - (rows + columns).mean() / 2

    def latents(self, encoded: Encoded) -> Tensor:
        """(B, L, 2 D): each prediction beside the latent it is of."""
        return torch.cat([encoded.predicted_BLD, encoded.z_BTD[:, 1:]], dim=-1)

    def _noise(self, like: Tensor, generator: torch.Generator) -> Tensor:
        return self.std * torch.randn(like.shape, generator=generator).to(like)
