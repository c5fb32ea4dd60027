"""How a foreign quantity becomes a column of ours: its name, its dtype, its rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lewm.data.formats.common import check_size
from lewm.data.images import decode_image
from lewm.data.schema import Column
from lewm.types import InputError

IMAGE_CODEC = "zstd:3"


def clean(name: str) -> str:
    """A name the store accepts: `/` becomes `.`, whatever else is odd becomes `_`."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", name.strip("/").replace("/", "."))
    return re.sub(r"^(?=[.-]|$)", "_", name)


def camera_names(cameras: Sequence[str], main: Sequence[str] = ()) -> dict[str, str]:
    """Foreign camera -> our column: the first of `main` that exists, else the first camera, becomes `pixels`."""
    names = {camera: clean(camera) for camera in cameras}
    if cameras and "pixels" not in names.values():
        names[next((camera for camera in main if camera in names), cameras[0])] = "pixels"
    return names


def column_of(dtype: np.dtype | str, shape: Iterable[int], *, transition: bool = False) -> Column | None:
    """The column for rows of this dtype and shape, images compressed; None for what is not kept (text, ragged)."""
    dtype, shape = np.dtype(dtype), tuple(int(size) for size in shape)
    if dtype.kind not in "biuf" or dtype.itemsize > 8 or 0 in shape:
        return None
    column = Column(dtype.name, shape, transition=transition)
    return Column(column.dtype, shape, codec=IMAGE_CODEC) if column.image and not transition else column


def action_column(dtype: np.dtype | str, shape: Iterable[int]) -> Column:
    """The column of actions: flat, floats kept as they are, integers as float32."""
    dtype, shape = np.dtype(dtype), tuple(shape)
    if dtype.kind not in "biuf" or dtype.itemsize > 8 or 0 in shape:
        raise InputError(f"actions are {dtype} of shape {shape}, expected numbers; a world model needs some")
    name = dtype.newbyteorder("=").name if dtype.kind == "f" else "float32"
    return Column(name, (int(np.prod(shape, dtype=np.int64)),), transition=True)


def as_column(rows: np.ndarray, column: Column, where: str) -> np.ndarray:
    """Rows in dtype and row shape of the column; only transitions (integer actions, flags) change their kind."""
    if not column.transition and not np.can_cast(rows.dtype, column.dtype, "safe"):
        raise InputError(f"{where}: a column changes from {column.dtype} to {rows.dtype}; make all episodes alike")
    if rows.size != len(rows) * int(np.prod(column.shape, dtype=np.int64)):
        raise InputError(
            f"{where}: rows of shape {rows.shape[1:]} where {column.shape} was before; make them alike"
        )
    return np.ascontiguousarray(rows, dtype=column.dtype).reshape(len(rows), *column.shape)


def image_rows(images: Sequence[Any], where: str, shape: Sequence[int] | None = None) -> np.ndarray:
    """Encoded images as rows (N, h, w, C), all of `shape` or else as the first; `where` begins the error's text."""
    rows = None
    for number, data in enumerate(images):
        try:
            image = decode_image(data, shape)
        except ValueError as error:
            raise InputError(f"{where}: image {number} is damaged or unlike the others ({error})") from None
        if rows is None:
            shape = image.shape
            check_size(len(images) * image.nbytes, where)
            rows = np.empty((len(images), *shape), np.uint8)
        rows[number] = image
    if rows is None:
        raise InputError(f"{where} has no image")
    return rows


@dataclass(frozen=True)
class Leaf:
    """One array of a file and what becomes of it.

    `late` marks transition rows that the format stores with the observation they led to: row t+1 belongs to step t.
    """

    path: str
    column: Column
    late: bool = False

    def span(self, rows: int) -> tuple[int, int]:
        """Which of an episode's `rows` rows to keep, for rows - 1 steps."""
        return (1, rows) if self.late else (0, rows - 1 if self.column.transition else rows)


def named(leaves: Mapping[str, Leaf], what: Path | str) -> tuple[dict[str, Leaf], dict[str, str]]:
    """Leaves under names the store accepts, the main camera as `pixels`; and what was renamed, new -> path."""
    cameras = camera_names([name for name, leaf in leaves.items() if leaf.column.image])
    result: dict[str, Leaf] = {}
    changed = {}
    for name, leaf in leaves.items():
        new = cameras.get(name) or clean(name)
        if new in result:
            raise InputError(f"{what}: two columns would be called '{new}' (one is '{name}'); rename one of them")
        result[new] = leaf
        if new != name.replace("/", "."):
            changed[new] = leaf.path
    return result, changed


def plain(value: Any) -> Any:
    """A value of h5py or numpy as one that JSON has; infinities and NaN as text."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {str(key): plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
