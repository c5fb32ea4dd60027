"""Fast-LeWM's predictor: every block of a plan in one call, from the actions that lead there."""

from __future__ import annotations

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from lewm.models.adaln import ActionBlockEncoder, AdaLNBlock, Value, keep_heap
from lewm.models.layers import MLP, Linear, Projector, TransformerBlock
from lewm.models.predictors.base import Observed, Predictor
from lewm.registry import register
from lewm.types import InputError


def sinusoids(count: int, dim: int) -> Tensor:
    """Positions 0, 1, ... as sines and cosines of wavelengths 2 pi to 20000 pi (arXiv 1706.03762): (count, dim)."""
    frequency = 1e4 ** (-torch.arange(0, dim, 2) / dim)
    angle = torch.arange(count)[:, None] * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :dim]


@register("predictor", "prefix")
class Prefix(Predictor):
    """z_{t+k} = G(z_t, p_k), p_k = P(z_t, a_t ... a_{t+k-1}): all k up to `prefixes` at once, none from another.

    Fast-LeWM (arXiv 2606.26217); the defaults are its sizes. P is a causal transformer over a token of the state
    and one for each action block. G takes each k by itself: z_t and p_k fused, then AdaLN-zero blocks with p_k as
    the condition, whose attention, for want of another token, is a value alone. A longer plan starts again, every
    `prefixes` blocks, from the last prediction.

    It has to be trained on its rollouts from the first frame of a window, which predict every prefix; `forward`
    knows prefixes of one block only. Windows may be of any length, and then this is also a predictor of
    variable-length action sequences, the idea of VLWM (arXiv 2606.21775, whose details were not known to us):
    lengthening horizons are a matter of the windows, not of the model.
    """

    def __init__(
        self,
        latent_dim: int,
        block_dim: int,
        *,
        prefixes: int = 5,
        depth: int = 6,
        value_dim: int = 1024,
        hidden: int = 2048,
        encoder_depth: int = 3,
        encoder_heads: int = 6,
        encoder_head_dim: int = 32,
        action_hidden: int = 768,
        action_smoothed: int = 32,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if prefixes < 1:
            raise InputError(f"a prefix predictor needs prefixes >= 1, got {prefixes}")
        self.prefixes = prefixes
        self.from_latent = MLP(latent_dim, action_hidden)
        self.from_action = ActionBlockEncoder(block_dim, action_smoothed, action_hidden, latent_dim)
        self.register_buffer("position", sinusoids(1 + prefixes, latent_dim), persistent=False)
        sizes = latent_dim, encoder_heads, encoder_head_dim, action_hidden
        self.encoder = nn.Sequential(
            *(TransformerBlock(*sizes, causal=True) for _ in range(encoder_depth)), nn.LayerNorm(latent_dim)
        )
        self.fuse = nn.Sequential(
            nn.LayerNorm(3 * latent_dim),
            Linear(3 * latent_dim, action_hidden),
            nn.GELU(),
            Linear(action_hidden, latent_dim),
        )
        nn.init.zeros_(self.fuse[-1].weight)
        nn.init.zeros_(self.fuse[-1].bias)
        values = (Value(latent_dim, value_dim, dropout) for _ in range(depth))
        self.blocks = nn.ModuleList(AdaLNBlock(latent_dim, value, hidden, dropout) for value in values)
        self.norm = nn.LayerNorm(latent_dim)
        self.projector = Projector(latent_dim, hidden, latent_dim)

    def forward(self, z_BTD: Tensor, actions_BTE: Tensor) -> Tensor:
        """See the package docstring: prefixes of one block, from each frame."""
        return self._predict(z_BTD.flatten(0, 1), actions_BTE.flatten(0, 1)[:, None]).view_as(z_BTD)

    def observe(self, z_BTD: Tensor, past_BTE: Tensor) -> Observed:
        """See the base class; nothing is known before the actions are."""
        keep_heap()
        return super().observe(z_BTD, past_BTE)

    def rollout(self, observed: Observed, future_BSLE: Tensor) -> Tensor:
        """As the plain rollout, one call for every `prefixes` blocks."""
        z, actions = self._folded(observed, future_BSLE)
        latents: list[Tensor] = []
        for some in actions.split(self.prefixes, dim=1):
            latents.append(self._predict(z, some))
            z = latents[-1][:, -1]
        return rearrange(torch.cat(latents, dim=1), "(b s) l d -> b s l d", s=future_BSLE.shape[1])

    def plain_rollout(self, observed: Observed, future_BSLE: Tensor) -> Tensor:
        """The definition: each block from its own prefix alone, which starts at the last multiple of `prefixes`."""
        z, actions = self._folded(observed, future_BSLE)
        latents: list[Tensor] = []
        for end in range(actions.shape[1]):
            first = end - end % self.prefixes
            start = latents[first - 1] if first else z
            latents.append(self._predict(start, actions[:, first : end + 1])[:, -1])
        return rearrange(torch.stack(latents, dim=1), "(b s) l d -> b s l d", s=future_BSLE.shape[1])

    @staticmethod
    def _folded(observed: Observed, future_BSLE: Tensor) -> tuple[Tensor, Tensor]:
        z = repeat(observed.z_BTD[:, -1], "b d -> (b s) d", s=future_BSLE.shape[1])
        return z, rearrange(future_BSLE, "b s l e -> (b s) l e")

    def _predict(self, z_ND: Tensor, actions_NLE: Tensor) -> Tensor:
        """The latents after each of L <= `prefixes` blocks: (N, L, D)."""
        tokens = torch.cat([self.from_latent(z_ND)[:, None], self.from_action(actions_NLE)], dim=1)
        prefix = self.encoder(tokens + self.position[: tokens.shape[1]])[:, 1:]
        x = z_ND[:, None].expand_as(prefix)
        x = x + self.fuse(torch.cat([x, prefix, x * prefix], dim=-1))
        for block in self.blocks:
            x = block(x, prefix)
        return self.link(self.projector(self.norm(x).flatten(0, 1)).view_as(x))
