"""Encoders: normalised images (N, 3, h, w) -> features (N, `features`). Register your own with one decorator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from lewm.models.layers import MLP, Attention, Linear
from lewm.registry import register
from lewm.types import InputError


@register("encoder", "conv")
class ConvEncoder(nn.Module):
    """A small strided conv net, the CPU default.

    A `stem` x `stem` space-to-depth convolution, then 3 x 3 stride-2 convolutions, each followed by GroupNorm
    and SiLU; a linear layer over the remaining map, so that position survives.
    """

    def __init__(
        self, image_size: int, *, channels: Sequence[int] = (32, 64, 128), stem: int = 4, features: int = 256
    ) -> None:
        super().__init__()
        shrink = stem * 2 ** (len(channels) - 1)
        if image_size % shrink:
            raise InputError(f"encoder 'conv' needs an image size divisible by {shrink}, got {image_size}")
        layers: list[nn.Module] = []
        for k, (inside, outside) in enumerate(zip((3, *channels[:-1]), channels, strict=True)):
            shape = {"kernel_size": 3, "stride": 2, "padding": 1} if k else {"kernel_size": stem, "stride": stem}
            layers += [nn.Conv2d(inside, outside, **shape), nn.GroupNorm(1, outside), nn.SiLU()]
        self.features = features
        self.net = nn.Sequential(
            *layers, nn.Flatten(), Linear(channels[-1] * (image_size // shrink) ** 2, features)
        )

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, h, w) -> (N, features)."""
        return self.net(images)


class ViTBlock(nn.Module):
    """Pre-norm transformer block: (N, T, D) -> (N, T, D)."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        attention = Attention(dim, heads, dim // heads, qkv_bias=True, causal=False)
        self.attention = nn.Sequential(nn.LayerNorm(dim, eps=1e-12), attention)
        self.mlp = nn.Sequential(nn.LayerNorm(dim, eps=1e-12), MLP(dim, hidden))

    def forward(self, x: Tensor) -> Tensor:
        """Attention, then MLP, each on a residual branch."""
        x = x + self.attention(x)
        return x + self.mlp(x)


@register("encoder", "vit")
class ViTEncoder(nn.Module):
    """A vision transformer whose CLS token is the feature vector; the defaults are ViT-tiny/14 of LeWM."""

    def __init__(
        self,
        image_size: int,
        *,
        patch: int = 14,
        dim: int = 192,
        depth: int = 12,
        heads: int = 3,
        hidden: int = 768,
    ) -> None:
        super().__init__()
        if image_size % patch:
            raise InputError(f"encoder 'vit' needs an image size divisible by its patch {patch}, got {image_size}")
        self.features = dim
        self.patches = nn.Conv2d(3, dim, patch, stride=patch)
        self.cls = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.position = nn.Parameter(torch.randn(1, (image_size // patch) ** 2 + 1, dim) * 0.02)
        self.blocks = nn.Sequential(*[ViTBlock(dim, heads, hidden) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim, eps=1e-12)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, h, w) -> (N, dim)."""
        tokens = rearrange(self.patches(images), "n d h w -> n (h w) d")
        tokens = torch.cat([self.cls.expand(len(tokens), -1, -1), tokens], dim=1) + self.position
        return self.norm(self.blocks(tokens)[:, 0])
