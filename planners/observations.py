"""Observations: one array, or several by name (cameras, sensors). Planners look at their rows, never into them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from planners.errors import InputError

Array = np.ndarray | Tensor
Observation = Array | Mapping[str, Array]


def each(function: Callable[..., Any], observation: Any, *others: Any) -> Any:
    """`function` of the observation, or name -> function of what is observed under it; so of several alike."""
    if not isinstance(observation, Mapping):
        return function(observation, *others)
    return {name: function(part, *(other[name] for other in others)) for name, part in observation.items()}


def parts(observation: Any) -> list[Any]:
    """The arrays of an observation."""
    return list(observation.values()) if isinstance(observation, Mapping) else [observation]


def batch(value: Observation, rows: int | None, count: int, what: str) -> Any:
    """Copies as tensors (count, ...); with `rows` None the row axis is added."""

    def convert(array: Array) -> Tensor:
        tensor = array.clone() if isinstance(array, Tensor) else torch.from_numpy(np.array(array))
        if rows is None:
            tensor = tensor[None]
        if tensor.ndim < 2 or len(tensor) != count:
            raise InputError(f"{what}: expected {count} rows, got shape {tuple(tensor.shape)}")
        return tensor

    if isinstance(value, Mapping) and not value:
        raise InputError(f"{what}: an empty mapping")
    return each(convert, value)


def formats(frame: Any) -> Any:
    """Type and shape of one row, of each part of a frame (B, ...)."""
    return each(lambda tensor: (tensor.dtype, tensor.shape[1:]), frame)


def pick(observation: Observation, wanted: Any) -> Observation:
    """The observation without names that are not `wanted` (see `formats`; None for any)."""
    if wanted is None or not (isinstance(wanted, Mapping) or isinstance(observation, Mapping)):
        return observation
    names = [set(x) if isinstance(x, Mapping) else None for x in (wanted, observation)]
    if None in names or not names[0] <= names[1]:
        expected, got = ("one array" if x is None else sorted(x) for x in names)
        raise InputError(f"observation: expected {expected} like the goal, got {got}")
    return {name: observation[name] for name in wanted}


def check(frame: Any, wanted: Any) -> None:
    """Raise an `InputError` if a part of a frame (B, ...) is of another type or shape than `wanted`."""

    def compare(tensor: Tensor, expected: tuple[torch.dtype, torch.Size]) -> None:
        dtype, shape = expected
        same_kind = tensor.dtype == dtype or (tensor.is_floating_point() and dtype.is_floating_point)
        if tensor.shape[1:] != shape or not same_kind:
            raise InputError(
                f"observation: expected {dtype} of shape {tuple(shape)} like the goal, "
                f"got {tensor.dtype} {tuple(tensor.shape[1:])}"
            )

    each(compare, frame, wanted)


def blind(frame: Any) -> Tensor:
    """Rows (B,) of which some part is not finite."""
    unusable = [
        ~part.isfinite().flatten(1).all(1).cpu() if part.is_floating_point() else torch.zeros(len(part), dtype=bool)
        for part in parts(frame)
    ]
    return torch.stack(unusable).any(0)
