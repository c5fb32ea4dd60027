"""Building blocks shared by encoders and predictors."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

# Private, but what torch.compile itself emits (ADR 0006). Absent where torch was built without oneDNN.
_ONEDNN_LINEAR = (
    getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None
)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`, but by oneDNN for float32 on a CPU, its gradients too: (..., in) -> (..., out).

    There torch asks MKL, which on an AMD core reaches half of what oneDNN does (docs/results/cpu_linear.txt).
    """
    plain = x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu")
    learns = torch.is_grad_enabled()
    if (
        plain
        or _ONEDNN_LINEAR is None
        or (learns and (x.ndim < 2 or not x.numel() or torch.compiler.is_compiling()))
    ):
        return F.linear(x, weight, bias)
    if learns:
        return _Product.apply(x, weight, bias)
    return _ONEDNN_LINEAR(x, weight, bias, "none", [], "")


class _Product(torch.autograd.Function):
    """x W^T + b by oneDNN; gradients are products of the same kind, so they can be differentiated again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _ONEDNN_LINEAR(x, weight, bias, "none", [], "")

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        # A second operand whose rows have gaps goes through oneDNN's reference loop, orders of magnitude slower.
        rows, grads = x.flatten(0, -2).contiguous(), grad.flatten(0, -2).contiguous()
        narrow = rows.shape[1] < grads.shape[1]  # oneDNN copies its first argument: let it be the smaller
        return (
            linear(grad, weight.T) if of_x else None,
            (linear(rows.T, grads.T).T if narrow else linear(grads.T, rows.T)) if of_weight else None,
            grads.sum(0) if of_bias else None,
        )


class Linear(nn.Linear):
    """`nn.Linear` whose product is `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return linear(x, self.weight, self.bias)


class Projector(nn.Sequential):
    """Linear -> BatchNorm -> GELU -> Linear: (N, in) -> (N, out).

    The BatchNorm matters: an encoder that ends in LayerNorm puts its output on a sphere, where SIGReg cannot
    reach an isotropic Gaussian (arXiv 2603.19312, section 3.1).
    """

    def __init__(self, features: int, hidden: int, out: int) -> None:
        super().__init__(Linear(features, hidden), nn.BatchNorm1d(hidden), nn.GELU(), Linear(hidden, out))


class Attention(nn.Module):
    """Multi-head self-attention (B, T, D) -> (B, T, D), causal on request."""

    def __init__(
        self, dim: int, heads: int, head_dim: int, *, qkv_bias: bool, causal: bool, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.heads, self.causal, self.dropout = heads, causal, dropout
        self.qkv = Linear(dim, 3 * heads * head_dim, bias=qkv_bias)
        self.out = Linear(heads * head_dim, dim)

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
            Linear(dim, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            Linear(hidden, dim),
            nn.Dropout(dropout),
        )


class TransformerBlock(nn.Module):
    """Pre-norm transformer block: (B, T, D) -> (B, T, D)."""

    def __init__(
        self,
        dim: int,
        heads: int,
        head_dim: int,
        hidden: int,
        *,
        causal: bool,
        qkv_bias: bool = False,
        eps: float = 1e-5,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        attention = Attention(dim, heads, head_dim, qkv_bias=qkv_bias, causal=causal, dropout=dropout)
        self.attention = nn.Sequential(nn.LayerNorm(dim, eps=eps), attention)
        self.mlp = nn.Sequential(nn.LayerNorm(dim, eps=eps), MLP(dim, hidden, dropout))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Attention, then MLP, each on a residual branch."""
        x_BTD = x_BTD + self.attention(x_BTD)
        return x_BTD + self.mlp(x_BTD)
