"""Vectors: proprioception, forces, states."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from lewm.models.layers import Linear
from lewm.registry import register
from lewm.types import InputError


@register("encoder", "vector")
class VectorEncoder(nn.Module):
    """An MLP over a standardised vector: `depth` times Linear -> LayerNorm -> SiLU, then a linear layer."""

    def __init__(self, length: int, *, features: int = 64, hidden: int = 128, depth: int = 2) -> None:
        super().__init__()
        if min(length, features, hidden, depth + 1) < 1:
            raise InputError(
                "encoder 'vector' needs a column that is not empty, features and hidden >= 1 and depth >= 0, got "
                f"{length}, {features}, {hidden} and {depth}"
            )
        self.features = features
        widths = [length, *[hidden] * depth]
        layers: list[nn.Module] = []
        for inside, outside in pairwise(widths):
            layers += [Linear(inside, outside), nn.LayerNorm(outside), nn.SiLU()]
        self.net = nn.Sequential(*layers, Linear(widths[-1], features))

    def forward(self, vectors: Tensor) -> Tensor:
        """(N, length) -> (N, features)."""
        return self.net(vectors)
