"""Predictors: latents and action blocks in, the next latents out.

Contract. `forward(z_BTD, actions_BTE)` predicts, for each of the T frames, the latent one block later, looking at
this and earlier frames only (causal). `E` = action_block * A normalised actions. `history` is how many frames
matter. `rollout` imagines: from `history` observed frames, the E-vectors of the actions between them, and
candidate futures (B, S, L, E) to latents (B, S, L, D).
"""

from __future__ import annotations

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F

from lewm.models.layers import AdaLNBlock, Projector
from lewm.registry import register
from lewm.types import InputError


class Predictor(nn.Module):
    """Base of all predictors: the plain reference rollout, exact for any of them."""

    history: int = 1

    def rollout(self, z_BTD: Tensor, past_BTE: Tensor, future_BSLE: Tensor) -> Tensor:
        """Imagine with a sliding window of the last `history` frames.

        Args:
            z_BTD: observed latents, T = history.
            past_BTE: the T - 1 action blocks executed between them.
            future_BSLE: S candidate sequences of L action blocks for each row.

        Returns:
            Latents after each block, (B, S, L, D).
        """
        samples = future_BSLE.shape[1]
        z = repeat(z_BTD, "b t d -> (b s) t d", s=samples)
        actions = repeat(past_BTE, "b t e -> (b s) t e", s=samples)
        actions = torch.cat([actions, rearrange(future_BSLE, "b s l e -> (b s) l e")], dim=1)
        for step in range(future_BSLE.shape[2]):
            recent = slice(step, step + self.history)
            z = torch.cat([z, self(z[:, recent], actions[:, recent])[:, -1:]], dim=1)
        return rearrange(z[:, self.history :], "(b s) l d -> b s l d", s=samples)


@register("predictor", "residual_mlp")
class ResidualMLP(Predictor):
    """z' = z + f(z, action block): one frame, no attention. The CPU default."""

    history = 1

    def __init__(self, latent_dim: int, block_dim: int, *, width: int = 256, depth: int = 1) -> None:
        super().__init__()
        self.from_latent = nn.Linear(latent_dim, width)
        self.from_action = nn.Linear(block_dim, width, bias=False)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(depth)
        )
        self.out = nn.Linear(width, latent_dim)

    def forward(self, z_BTD: Tensor, actions_BTE: Tensor) -> Tensor:
        """See the module docstring; rows of T do not interact."""
        return self._step(z_BTD, self.from_action(actions_BTE))

    def rollout(self, z_BTD: Tensor, past_BTE: Tensor, future_BSLE: Tensor) -> Tensor:
        """As the plain rollout, with the actions of all steps embedded in one product."""
        embedded = self.from_action(rearrange(future_BSLE, "b s l e -> l b s e"))
        z = z_BTD[:, -1:].expand(-1, future_BSLE.shape[1], -1)
        latents = []
        for action in embedded:
            z = self._step(z, action)
            latents.append(z)
        return torch.stack(latents, dim=2)

    def _step(self, z: Tensor, action: Tensor) -> Tensor:
        hidden = F.silu(self.from_latent(z) + action)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return z + self.out(hidden)


class ActionBlockEncoder(nn.Sequential):
    """LeWM's action encoder: a pointwise linear map of the block, then Linear -> SiLU -> Linear."""

    def __init__(self, block_dim: int, smoothed: int, hidden: int, dim: int) -> None:
        super().__init__(
            nn.Linear(block_dim, smoothed), nn.Linear(smoothed, hidden), nn.SiLU(), nn.Linear(hidden, dim)
        )


@register("predictor", "adaln_transformer")
class AdaLNTransformer(Predictor):
    """Causal transformer over the last frames, conditioned on actions by AdaLN-zero; defaults are LeWM's.

    arXiv 2603.19312, appendix D. Each frame's token is modulated by the action block that leaves it. Positions
    are absolute inside the window.
    """

    def __init__(
        self,
        latent_dim: int,
        block_dim: int,
        *,
        history: int = 3,
        depth: int = 6,
        heads: int = 16,
        head_dim: int = 64,
        hidden: int = 2048,
        action_hidden: int = 768,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.history = history
        self.action_encoder = ActionBlockEncoder(block_dim, block_dim, action_hidden, latent_dim)
        self.position = nn.Parameter(torch.randn(1, history, latent_dim))
        self.blocks = nn.ModuleList(AdaLNBlock(latent_dim, heads, head_dim, hidden, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(latent_dim)
        self.projector = Projector(latent_dim, hidden, latent_dim)

    def forward(self, z_BTD: Tensor, actions_BTE: Tensor) -> Tensor:
        """See the module docstring; T is at most `history`."""
        if z_BTD.shape[1] > self.history:
            raise InputError(
                f"a transformer of history {self.history} takes at most as many frames, got {z_BTD.shape[1]}; "
                f"train with trainer.frames={self.history + 1}"
            )
        condition = self.action_encoder(actions_BTE)
        x = z_BTD + self.position[:, : z_BTD.shape[1]]
        for block in self.blocks:
            x = block(x, condition)
        return self.projector(self.norm(x).flatten(0, 1)).unflatten(0, z_BTD.shape[:2])
