"""Blocks of the AdaLN transformer, and their form for imagination: one token at a time, many windows at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lewm.models.layers import MLP, Attention, Linear, linear


def attend(query_BSHC: Tensor, tokens: list[Tensor]) -> Tensor:
    """Attention of one query to the keys and values (B, S or 1, 2, heads, C) of a few tokens: (B, S, heads, C).

    By hand: for three tokens SDPA takes six times as long on a CPU, and needs them copied into one tensor.
    """
    scores = torch.stack([(query_BSHC * token[..., 0, :, :]).sum(-1) for token in tokens])
    weights = (scores * query_BSHC.shape[-1] ** -0.5).softmax(0).unsqueeze(-1)
    mixed = weights[0] * tokens[0][..., 1, :, :]
    for weight, token in zip(weights[1:], tokens[1:], strict=True):
        mixed = torch.addcmul(mixed, weight, token[..., 1, :, :])
    return mixed


def keep_heap() -> None:
    """Let malloc keep what is freed between two products, rather than hand it to the kernel and fault it in again.

    glibc keeps twice the largest piece it has seen freed, up to 64 MB (mallopt(3), M_MMAP_THRESHOLD); this shows it
    one, which is never touched.
    A rollout is 1.2 times faster (docs/results/cpu_linear.txt). No effect on other allocators.
    """
    torch.empty(31 << 20, dtype=torch.uint8)


class ActionBlockEncoder(nn.Sequential):
    """LeWM's action encoder: a pointwise linear map of the block, then Linear -> SiLU -> Linear."""

    def __init__(self, block_dim: int, smoothed: int, hidden: int, dim: int) -> None:
        super().__init__(Linear(block_dim, smoothed), Linear(smoothed, hidden), nn.SiLU(), Linear(hidden, dim))


class Value(nn.Module):
    """Attention over a single token, whose weight is 1: a value and the way out, (..., D) -> (..., D)."""

    def __init__(self, dim: int, value_dim: int, dropout: float) -> None:
        super().__init__()
        self.value = Linear(dim, value_dim, bias=False)
        self.out = Linear(value_dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """For many tokens the two products are joined first."""
        dim, value_dim = self.out.out_features, self.out.in_features
        if x[..., 0].numel() * (2 * value_dim - dim) > dim * value_dim:
            return self.dropout(linear(x, self.out.weight @ self.value.weight, self.out.bias))
        return self.dropout(self.out(self.value(x)))


class AdaLNBlock(nn.Module):
    """A transformer block whose norms are shifted, scaled and gated by a condition (AdaLN-zero).

    The modulation starts at zero, so the block starts as the identity (arXiv 2212.09748, section 3.2). As in
    LeWM, attention and MLP each have a second, affine LayerNorm after the modulation. `attention` is a causal
    `Attention`, or a `Value` where each token stands alone.
    """

    def __init__(self, dim: int, attention: Attention | Value, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False) for _ in range(2)])
        self.attention = nn.Sequential(nn.LayerNorm(dim), attention)
        self.mlp = nn.Sequential(nn.LayerNorm(dim), MLP(dim, hidden, dropout))
        self.modulation = Linear(dim, 6 * dim)
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

    def step(self, x_WBSD: Tensor, active_BSD: Tensor, windows: list[list[Tensor]], wanted: int) -> Tensor:
        """One more token in each of W windows, without dropout: what `forward` gives for the last of T.

        Args:
            x_WBSD: the token in each window; windows that hold more tokens come first.
            active_BSD: SiLU of the token's condition, which is the same in all windows.
            windows: for each the keys and values of its earlier tokens, (B, S or 1, 2, heads, head_dim) each. This
                token's are appended.
            wanted: how many of the windows, counted from the first, need an output.

        Returns:
            (wanted, B, S, D).
        """
        parts = self.modulation(active_BSD).chunk(6, dim=-1)
        (norm, attention), (shift, scale, gate) = self.attention, parts[:3]
        query_weight, rest = attention.qkv.weight.split((attention.out.in_features, 2 * attention.out.in_features))
        hidden = norm(torch.addcmul(shift, self.norms[0](x_WBSD), 1 + scale))
        tokens = linear(hidden, rest).unflatten(-1, (2, attention.heads, -1))
        for window, token in zip(windows, tokens, strict=True):
            window.append(token)
        asking = sum(len(window) > 1 for window in windows[:wanted])  # a first token sees itself, whatever it asks
        queries = linear(hidden[:asking], query_weight).unflatten(-1, (attention.heads, -1)) if asking else ()
        mixed = [attend(query, window) for query, window in zip(queries, windows, strict=False)]
        mixed += [window[0][..., 1, :, :] for window in windows[asking:wanted]]
        mixed = attention.out(torch.stack(mixed).flatten(-2))
        x = torch.addcmul(x_WBSD[:wanted], gate, mixed)

        (norm, mlp), (shift, scale, gate) = self.mlp, parts[3:]
        return torch.addcmul(x, gate, mlp(norm(torch.addcmul(shift, self.norms[1](x), 1 + scale))))
