"""Directions along which sliced regularisers look: drawn anew each step, (D, M) of unit length."""

from __future__ import annotations

import torch
from torch import Tensor

from lewm.registry import register
from lewm.types import InputError


@register("directions", "iid")
class Independent:
    """`count` independent directions, uniform on the sphere."""

    def __init__(self, *, count: int = 256) -> None:
        if count < 1:
            raise InputError(f"directions need a count >= 1, got {count}")
        self.count = count

    def __call__(self, dim: int, generator: torch.Generator) -> Tensor:
        """(dim, count) of unit columns."""
        directions = torch.randn(dim, self.count, generator=generator)
        return directions / directions.norm(dim=0)
