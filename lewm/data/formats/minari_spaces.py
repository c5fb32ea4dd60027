"""Minari's spaces: JSON that says shape, dtype and bounds of observations and actions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lewm.data.formats.common import guarded
from lewm.types import InputError


def space_of(record: Mapping[str, Any], name: str, where: Path) -> dict[str, Any]:
    """A space of the metadata, which holds it as text."""
    if name not in record:
        raise InputError(f"{where} has no {name}; load it once with minari and save it again, which adds it")
    with guarded(f"{where}, {name}"):
        space = json.loads(record[name]) if isinstance(record[name], str) else record[name]
        return {**space, "type": str(space["type"])}


def leaves_of(space: Mapping[str, Any], path: str = "observations") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Path (as in the HDF5 layout) and space of every array in a nested space."""
    inner = space.get("subspaces")
    if space["type"] == "Dict":
        for key, value in inner.items():
            yield from leaves_of(value, f"{path}/{key}")
    elif space["type"] == "Tuple":
        for index, value in enumerate(inner):
            yield from leaves_of(value, f"{path}/_index_{index}")
    else:
        yield path, space


def is_image(space: Mapping[str, Any]) -> bool:
    """Whether Minari takes a space for images (minari_storage.py, is_image_space), which it stores as JPEG."""
    shape = space.get("shape", ())
    return (
        space["type"] == "Box"
        and space["dtype"] == "uint8"
        and len(shape) in (2, 3)
        and min(shape[:2]) >= 32
        and bool(np.all(np.asarray(space["low"]) == 0) and np.all(np.asarray(space["high"]) == 255))
    )


def is_raw(rows: np.ndarray | list[Any], shape: tuple[int, ...]) -> bool:
    """Whether image rows are plain pixels after all: sets older than `jpeg_encoding` have them either way."""
    return isinstance(rows, np.ndarray) and rows.dtype == np.uint8 and rows[:1].size == int(np.prod(shape))


def shape_of(space: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Row shape of a space the store can keep; None for texts, graphs and sequences."""
    if space["type"] == "Discrete":
        return ()
    if space["type"] == "MultiDiscrete":
        return np.shape(space["nvec"])
    if space["type"] == "MultiBinary":
        return tuple(np.atleast_1d(space["n"]).tolist())
    if space["type"] != "Box":
        return None
    shape = tuple(space["shape"])
    return (*shape, 1) if is_image(space) and len(shape) == 2 else shape


def bounds_of(space: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """Bounds of an action space (A,), None where it has none. Of a choice of one: room for it."""
    if space["type"] == "Box":
        low, high = (np.asarray(space[key], np.float64).reshape(-1) for key in ("low", "high"))
        return (low, high) if np.isfinite([low, high]).all() and (low < high).all() else None
    count = np.atleast_1d(space["nvec"] if space["type"] == "MultiDiscrete" else space["n"]).reshape(-1)
    if space["type"] == "MultiBinary":
        count = np.full(int(np.prod(count)), 2)
    low = np.broadcast_to(np.asarray(space.get("start", 0), np.float64).reshape(-1), count.shape)
    return low.copy(), low + np.maximum(count - 1, 1)
