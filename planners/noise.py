"""Random numbers without a generator: each is a function of a key and its place.

So a row's noise does not depend on what was drawn before, on the other rows or on the device, and there is no state
to carry through a compiled or replayed search. SplitMix64 (Steele et al. 2014) on integers; Box-Muller for normals.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _signed(number: int) -> int:
    return number - (1 << 64)


_STEP, _FIRST, _SECOND = map(_signed, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _right(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)  # torch shifts the sign in


def scramble(x: Tensor) -> Tensor:
    """SplitMix64's output function on int64, elementwise."""
    x = (x ^ _right(x, 30)) * _FIRST
    x = (x ^ _right(x, 27)) * _SECOND
    return x ^ _right(x, 31)


def keys(*parts: Tensor | int) -> Tensor:
    """One key per row from integers that broadcast: seeds, replans, iteration, purpose."""
    key = torch.zeros((), dtype=torch.int64)
    for part in parts:
        key = scramble(key + part + _STEP)
    return key


def bits(key_B: Tensor, count: int) -> Tensor:
    """(B, count) int64, all 64 bits random."""
    place = torch.arange(1, count + 1, device=key_B.device)
    return scramble(key_B[:, None] + place * _STEP)


def uniform(key_B: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(B, *shape), uniform in the open interval (0, 1)."""
    return ((_right(bits(key_B, math.prod(shape)), 41).float() + 0.5) * 2**-23).unflatten(1, shape)


def normal(key_B: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(B, *shape), standard normal."""
    count = math.prod(shape)
    raw = bits(key_B, (count + 1) // 2)
    radius = torch.sqrt(-2 * torch.log((_right(raw, 41).float() + 0.5) * 2**-23))
    angle = (raw & 0xFFFFFF).float() * (2 * math.pi * 2**-24)
    pair = torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)
    return pair[:, :count].unflatten(1, shape)
