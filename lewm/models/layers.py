"""Building blocks shared by encoders and predictors."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F


class Projector(nn.Sequential):
    """Linear -> BatchNorm -> GELU -> Linear: (N, in) -> (N, out).

    The BatchNorm matters: an encoder that ends in LayerNorm puts its output on a sphere, where SIGReg cannot
    reach an isotropic Gaussian (arXiv 2603.19312, section 3.1).
    """

    def __init__(self, features: int, hidden: int, out: int) -> None:
        super().__init__(nn.Linear(features, hidden), nn.BatchNorm1d(hidden), nn.GELU(), nn.Linear(hidden, out))


class Attention(nn.Module):
    """Multi-head self-attention (B, T, D) -> (B, T, D), causal on request."""

    def __init__(
        self, dim: int, heads: int, head_dim: int, *, qkv_bias: bool, causal: bool, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.heads, self.causal, self.dropout = heads, causal, dropout
        self.qkv = nn.Linear(dim, 3 * heads * head_dim, bias=qkv_bias)
        self.out = nn.Linear(heads * head_dim, dim)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Attend over T."""
        q, k, v = rearrange(self.qkv(x_BTD), "b t (three h d) -> three b h t d", three=3, h=self.heads)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal, dropout_p=dropout)
        return F.dropout(self.out(rearrange(mixed, "b h t d -> b t (h d)")), dropout)


class MLP(nn.Sequential):
    """Linear -> GELU -> Linear with dropout after each: (..., D) -> (..., D)."""

    def __init__(self, dim: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__(
            nn.Linear(dim, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, dim),
            nn.Dropout(dropout),
        )


class AdaLNBlock(nn.Module):
    """A causal transformer block whose norms are shifted, scaled and gated by a condition (AdaLN-zero).

    The modulation starts at zero, so the block starts as the identity (arXiv 2212.09748, section 3.2). As in
    LeWM, attention and MLP each have a second, affine LayerNorm after the modulation.
    """

    def __init__(self, dim: int, heads: int, head_dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False) for _ in range(2)])
        attention = Attention(dim, heads, head_dim, qkv_bias=False, causal=True, dropout=dropout)
        self.attention = nn.Sequential(nn.LayerNorm(dim), attention)
        self.mlp = nn.Sequential(nn.LayerNorm(dim), MLP(dim, hidden, dropout))
        self.modulation = nn.Linear(dim, 6 * dim)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x_BTD: Tensor, condition_BTD: Tensor) -> Tensor:
        """Both (B, T, D)."""
        parts = self.modulation(F.silu(condition_BTD)).chunk(6, dim=-1)
        for norm, branch, (shift, scale, gate) in zip(
            self.norms, (self.attention, self.mlp), (parts[:3], parts[3:]), strict=True
        ):
            x_BTD = x_BTD + gate * branch(torch.addcmul(shift, norm(x_BTD), 1 + scale))
        return x_BTD
