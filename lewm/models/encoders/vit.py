"""The paper's encoder: a vision transformer."""

from __future__ import annotations

from functools import partial

import torch
from einops import rearrange
from torch import Tensor, nn

from lewm.models.layers import TransformerBlock
from lewm.registry import register
from lewm.types import InputError


@register("encoder", "vit")
class ViTEncoder(nn.Module):
    """A vision transformer whose CLS token is the feature vector; the defaults are ViT-tiny/14 of LeWM.

    `registers` are learned tokens without a place in the image and without an output, where attention may keep what
    is global rather than in patches that show little (arXiv 2309.16588).
    """

    def __init__(
        self,
        image_size: int,
        *,
        patch: int = 14,
        dim: int = 192,
        depth: int = 12,
        heads: int = 3,
        hidden: int = 768,
        registers: int = 0,
    ) -> None:
        super().__init__()
        if image_size % patch:
            raise InputError(f"encoder 'vit' needs an image size divisible by its patch {patch}, got {image_size}")
        if dim % heads or registers < 0:
            raise InputError(
                f"encoder 'vit' needs dim divisible by heads and registers >= 0, got {dim}, {heads}, {registers}"
            )
        self.features = dim
        self.patches = nn.Conv2d(3, dim, patch, stride=patch)
        self.cls = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.position = nn.Parameter(torch.randn(1, (image_size // patch) ** 2 + 1, dim) * 0.02)
        block = partial(TransformerBlock, dim, heads, dim // heads, hidden, causal=False, qkv_bias=True, eps=1e-12)
        self.blocks = nn.Sequential(*[block() for _ in range(depth)])
        self.norm = nn.LayerNorm(dim, eps=1e-12)
        self.registers = nn.Parameter(torch.randn(1, registers, dim) * 0.02) if registers else None
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, h, w) -> (N, dim)."""
        tokens = rearrange(self.patches(images), "n d h w -> n (h w) d")
        tokens = torch.cat([self.cls.expand(len(tokens), -1, -1), tokens], dim=1) + self.position
        if self.registers is not None:
            tokens = torch.cat([tokens, self.registers.expand(len(tokens), -1, -1)], dim=1)
        return self.norm(self.blocks(tokens)[:, 0])


def _initialise(layer: nn.Module) -> None:
    """As the published encoder starts (Hugging Face's ViT): N(0, 0.02) and no bias, half of torch's default."""
    if isinstance(layer, nn.Linear | nn.Conv2d):
        nn.init.normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)
