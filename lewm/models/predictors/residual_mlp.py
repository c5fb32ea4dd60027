"""The default on a CPU: a residual MLP of one frame, or of two."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from lewm.models.layers import Linear
from lewm.models.predictors.base import Observed, Predictor
from lewm.registry import register
from lewm.types import InputError


@register("predictor", "residual_mlp")
class ResidualMLP(Predictor):
    """z' = z + f(z, action block), no attention. The CPU default.

    With `history` 2 it also sees what changed since the frame before, which is where velocities show:
    f(z, action block, z - z_before, action block before, 1), the last three zero for a frame without one before.
    """

    def __init__(
        self, latent_dim: int, block_dim: int, *, history: int = 1, width: int = 256, depth: int = 1
    ) -> None:
        super().__init__()
        if history not in (1, 2):
            raise InputError(f"a residual_mlp has history 1 or 2, got {history}")
        self.history = history
        self.from_latent = Linear(latent_dim, width)
        self.from_action = Linear(block_dim, width, bias=False)
        self.from_past = Linear(latent_dim + block_dim + 1, width, bias=False) if history == 2 else None
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), Linear(width, width), nn.SiLU(), Linear(width, width))
            for _ in range(depth)
        )
        self.out = Linear(width, latent_dim)

    def forward(self, z_BTD: Tensor, actions_BTE: Tensor) -> Tensor:
        """See the package docstring."""
        given = self.from_action(actions_BTE)
        if self.from_past is not None and z_BTD.shape[1] > 1:
            past = self._past(z_BTD[:, :-1], z_BTD[:, 1:], actions_BTE[:, :-1])
            given = given + F.pad(past, (0, 0, 1, 0))
        return self._step(z_BTD, given)

    def rollout(self, observed: Observed, future_BSLE: Tensor) -> Tensor:
        """As the plain rollout, with the actions of all steps embedded in one product."""
        embedded = self.from_action(rearrange(future_BSLE, "b s l e -> l b s e"))
        z = observed.z_BTD[:, -1:].expand(-1, future_BSLE.shape[1], -1)
        past = None
        if self.from_past is not None and observed.z_BTD.shape[1] > 1:
            past = self._past(observed.z_BTD[:, -2:-1], observed.z_BTD[:, -1:], observed.past_BTE[:, -1:])
        latents = []
        for step, given in enumerate(embedded):
            before, z = z, self._step(z, given if past is None else given + past)
            past = None if self.from_past is None else self._past(before, z, future_BSLE[:, :, step])
            latents.append(z)
        return torch.stack(latents, dim=2)

    def _past(self, before: Tensor, z: Tensor, action: Tensor) -> Tensor:
        """What a frame's hidden layer gets of the frame before and of the action between them."""
        return self.from_past(torch.cat([z - before, action, torch.ones_like(action[..., :1])], dim=-1))

    def _step(self, z: Tensor, given: Tensor) -> Tensor:
        hidden = F.silu(self.from_latent(z) + given)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.link(z + self.out(hidden))
