"""A predictor that is affine in the latent: a linear time-varying system whose matrices the action chooses."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from lewm.models.layers import Linear
from lewm.models.predictors.base import Observed, Predictor
from lewm.registry import register
from lewm.types import InputError


@register("predictor", "affine")
class Affine(Predictor):
    """z' = A(a) z + b(a), A(a) = I + U diag(s(a)) V^T, with (s, b) a small MLP of the action block.

    SALT (arXiv 2609.33595): an affine step imagines better than a flexible one of smaller one-step error, if it is
    trained on its own rollouts. Its parametrisation of A(a) was not known to us; this low-rank one, with
    directions U, V (D, rank) shared by all actions, is ours. It starts as the identity.
    """

    def __init__(self, latent_dim: int, block_dim: int, *, rank: int = 64, width: int = 256) -> None:
        super().__init__()
        if min(rank, width) < 1:
            raise InputError(f"an affine predictor needs rank and width >= 1, got {rank} and {width}")
        self.effect = nn.Sequential(Linear(block_dim, width), nn.SiLU(), Linear(width, rank + latent_dim))
        self.into = Linear(latent_dim, rank, bias=False)  # V^T
        self.out = Linear(rank, latent_dim, bias=False)  # U
        for zero in (self.out.weight, self.effect[-1].weight, self.effect[-1].bias):
            nn.init.zeros_(zero)
        nn.init.ones_(self.effect[-1].bias[:rank])  # s: with U zero as well, neither would learn

    def forward(self, z_BTD: Tensor, actions_BTE: Tensor) -> Tensor:
        """See the package docstring."""
        return self._step(z_BTD, self.effect(actions_BTE))

    def rollout(self, observed: Observed, future_BSLE: Tensor) -> Tensor:
        """As the plain rollout, with the matrices of all steps made in one product."""
        z = observed.z_BTD[:, -1:].expand(-1, future_BSLE.shape[1], -1)
        latents = []
        for effect in self.effect(rearrange(future_BSLE, "b s l e -> l b s e")):
            z = self._step(z, effect)
            latents.append(z)
        return torch.stack(latents, dim=2)

    def _step(self, z: Tensor, effect: Tensor) -> Tensor:
        scale, shift = effect.split((self.out.in_features, self.out.out_features), dim=-1)
        return self.link(z + self.out(scale * self.into(z)) + shift)
