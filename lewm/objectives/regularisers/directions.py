"""Directions along which sliced regularisers look: drawn anew each step, (D, M) of unit length."""

from __future__ import annotations

from functools import lru_cache

import torch
from einops import rearrange
from torch import Tensor

from lewm.registry import register
from lewm.types import InputError


def orthonormal(blocks: int, dim: int, width: int, generator: torch.Generator) -> Tensor:
    """(blocks, dim, width) of orthonormal columns, uniformly distributed and independent of each other."""
    q, r = torch.linalg.qr(torch.randn(blocks, dim, width, generator=generator))
    return q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)  # without the signs, q is not uniform


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


@register("directions", "orthogonal")
class Orthogonal(Independent):
    """`count` directions in blocks of `dim` orthogonal ones: each uniform, and together they leave fewer gaps."""

    def __call__(self, dim: int, generator: torch.Generator) -> Tensor:
        """(dim, count) of unit columns."""
        blocks = orthonormal(-(-self.count // dim), dim, dim, generator)
        return rearrange(blocks, "k d e -> d (k e)")[:, : self.count]


@register("directions", "subspaces")
class Subspaces(Independent):
    """Directions inside `subspaces` random subspaces of D / `subspaces` dimensions (Sub-JEPA, arXiv 2605.09241).

    The subspaces are a function of `seed` and D and stay the same for the whole training; the directions in them
    are drawn anew, and `count` of them are dealt out over all subspaces. The authors draw 1024 in each: the same in
    expectation.
    """

    def __init__(self, *, count: int = 256, subspaces: int = 32, seed: int = 0) -> None:
        super().__init__(count=count)
        if not 1 <= subspaces <= count:
            raise InputError(f"need 1 to {count} subspaces, as many as directions, got {subspaces}")
        self.subspaces, self.seed = subspaces, seed

    def __call__(self, dim: int, generator: torch.Generator) -> Tensor:
        """(dim, count) of unit columns."""
        frozen = frozen_subspaces(self.subspaces, dim, self.seed)
        inside = torch.randn(len(frozen), frozen.shape[-1], -(-self.count // len(frozen)), generator=generator)
        dealt = rearrange(frozen @ (inside / inside.norm(dim=1, keepdim=True)), "k d m -> d (m k)")
        return dealt[:, : self.count]


@lru_cache
def frozen_subspaces(count: int, dim: int, seed: int) -> Tensor:
    """(count, dim, max(dim // count, 1)): orthonormal bases of random subspaces, a function of `seed`."""
    return orthonormal(count, dim, max(dim // count, 1), torch.Generator().manual_seed(seed))
