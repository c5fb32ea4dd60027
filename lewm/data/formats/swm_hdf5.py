"""stable-worldmodel's HDF5, the format of LeWM's published sets.

Layout: stable-worldmodel 0.1.1, data/formats/hdf5.py, world/world.py, wrapper/default.py.

One file; every column is an array at the root, episodes one behind the other; `ep_len` (E,) int32 rows and
`ep_offset` (E,) int64 first rows (older files: a column `ep_idx` or `episode_idx` instead). An episode of N rows:

    row          0    1    2   ...  N-2   N-1
    pixels, ..   o0   o1   o2       oN-2  oN-1
    action       a0   a1   a2       aN-2   -     acts at the row; their collector turns the column by one, so the
    reward       -    r0   r1       rN-3  rN-2   last row is NaN, or (0.1.1) the action before row 0
    terminated   -    d0   d1       dN-3  dN-2   reward and flags came with the observation

So T = N-1, the last action is dropped whatever it is, reward and flags move up by one. The collector of 0.1.1
does not record the observation of the reset; then row 0 is the observation after the first step.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lewm.data.formats.base import Format, Source, Tick
from lewm.data.formats.columns import Leaf, action_column, column_of, named
from lewm.data.formats.common import FINGERPRINT, TRANSITION, check_finished, guarded
from lewm.data.formats.hdf5 import SUFFIXES, FlatSource, find_file, is_text, opened, read_all, root_names
from lewm.data.schema import Column
from lewm.extras import need
from lewm.registry import register
from lewm.types import InputError

if TYPE_CHECKING:
    import h5py

    from lewm.data.reader import EpisodeReader

LATE = ("reward", "terminated", "truncated")
EPISODE_INDEX = ("ep_idx", "episode_idx")
BOOKKEEPING = ("ep_len", "ep_offset", *EPISODE_INDEX, "step_idx", "id", "episode", "episode_id")
VECTOR_CHUNK = 1 << 16


@register("format", "swm_hdf5")
class SwmHdf5(Format):
    """stable-worldmodel HDF5, both ways."""

    name = "swm_hdf5"
    title = "stable-worldmodel / LeWM HDF5 (.h5)"
    extra = "hdf5"

    @staticmethod
    def detect(path: Path) -> bool:
        """Root arrays `action` and `ep_len` (or an episode index)."""
        names = root_names(path)
        return "action" in names and bool(names & {"ep_len", *EPISODE_INDEX})

    @staticmethod
    def open(path: Path) -> Source:
        """A file, or a folder that holds one."""
        path = find_file(path)
        with opened(path) as file, guarded(str(path)):
            begin, rows = _index(file, path)
            leaves, constants, left_out = _leaves(file, int((begin + rows).max()))
            leaves, renamed = named(leaves, path)
        keep = rows >= 2
        if not keep.any():
            raise InputError(f"{path}: no episode has two rows, so there is no step in it; check the file")
        about: dict[str, Any] = {"format": "swm_hdf5", "left_out": left_out, "renamed": renamed}
        if not keep.all():  # their collector makes one-row episodes where an environment ends at its first step
            about["skipped_one_row_episodes"] = int((~keep).sum())
        return FlatSource(path, leaves, begin[keep], rows[keep], about, constants)

    @staticmethod
    def write(reader: EpisodeReader, out: Path, *, fps: float, tick: Tick) -> None:
        """Write one `.h5` file, beside and then renamed: HDF5 does not survive a kill, a run again starts afresh.

        Facts of episodes are not kept: the format has columns only.
        """
        if out.suffix not in SUFFIXES:
            raise InputError(f"{out}: stable-worldmodel HDF5 is one file; name it *.h5, got '{out.name}'")
        if out.exists():
            with opened(out) as file, guarded(str(out)):
                found = file.attrs.get(FINGERPRINT)
            check_finished(reader, out, found, tick)
            return
        _check_columns(reader.info.columns)
        part = out.with_name(f".{out.name}.part")
        out.parent.mkdir(parents=True, exist_ok=True)
        h5py = need("h5py", "hdf5")
        with h5py.File(part, "w", libver="latest") as file:
            _write_all(reader, file, tick)
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(out)


def _index(file: h5py.File, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """First row and number of rows of each episode (E,), int64."""
    if "action" not in file:
        raise InputError(f"{path} has no array 'action' at its root; this is not stable-worldmodel HDF5")
    total = len(file["action"])
    if "ep_len" in file:
        rows = _whole(file, "ep_len", path)
        begin = _whole(file, "ep_offset", path) if "ep_offset" in file else np.cumsum(rows) - rows
    else:
        name = next((n for n in EPISODE_INDEX if n in file), None)
        if name is None:
            raise InputError(
                f"{path} has none of ep_len, ep_idx, episode_idx, so its episodes cannot be told apart"
            )
        index = _whole(file, name, path)
        begin = np.concatenate([np.zeros(min(len(index), 1), np.int64), np.flatnonzero(np.diff(index)) + 1])
        rows = np.diff(np.append(begin, len(index)))
        if len(np.unique(index[begin])) != len(begin):
            raise InputError(f"{path}: rows of an episode are not together in column '{name}'; sort the file")
    if begin.shape != rows.shape or not len(rows):
        raise InputError(f"{path}: ep_len {rows.shape} and ep_offset {begin.shape} must be equal and not empty")
    bad = np.flatnonzero((rows < 0) | (begin < 0) | (begin > total) | (rows > total - begin))
    if len(bad):
        first, count = int(begin[bad[0]]), int(rows[bad[0]])
        raise InputError(
            f"{path}: episode {bad[0]} should be rows {first} to {first + count}, the file has {total}; it is cut "
            "short or its index is damaged: copy it again"
        )
    return begin, rows


def _whole(file: h5py.File, name: str, path: Path) -> np.ndarray:
    """An array of whole numbers (N,), int64."""
    values = read_all(file[name], str(path)).reshape(-1)
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all() or (np.abs(values) > 2.0**62).any():
        raise InputError(f"{path}: '{name}' must hold whole numbers, it is {values.dtype}; mend the file")
    return values.astype(np.int64)


def _leaves(file: h5py.File, total: int) -> tuple[dict[str, Leaf], dict[str, str], list[str]]:
    """Arrays to keep, arrays that may become facts, and names with reasons of what is left out."""
    late = {*LATE, *json.loads(file.attrs.get(TRANSITION, "[]"))}  # ours lists further ones
    leaves, constants, left_out = {}, {}, []
    for name in file:
        array = file[name]
        if name in BOOKKEEPING:
            if name not in ("ep_len", "ep_offset"):
                left_out.append(f"{name} (bookkeeping)")
        elif not hasattr(array, "dtype"):
            left_out.append(f"{name} (a group)")
        elif array.ndim < 1 or len(array) < total:
            left_out.append(f"{name} (not a row per observation)")
        elif name == "action":
            leaves[name] = Leaf(name, action_column(array.dtype, array.shape[1:]))
        elif array.ndim == 1 and is_text(array.dtype):
            constants[name] = name
            left_out.append(f"{name} (text; a fact where constant over the episode)")
        elif name == "seed" and array.ndim == 1:
            constants[name] = name
        else:
            column = column_of(array.dtype, array.shape[1:], transition=name in late)
            if column is None:
                left_out.append(f"{name} ({array.dtype})")
            else:
                leaves[name] = Leaf(name, column, late=name in late)
    return leaves, constants, left_out


def _check_columns(columns: Mapping[str, Column]) -> None:
    """Raises `InputError` for what the format has no place for."""
    for name, column in columns.items():
        if column.stride > 1:
            raise InputError(
                f"column '{name}' has one row in {column.stride} steps; this format needs one per step"
            )
        if name in BOOKKEEPING:
            raise InputError(f"column '{name}' has a name that stable-worldmodel keeps for itself; rename it")


def _write_all(reader: EpisodeReader, file: h5py.File, tick: Tick) -> None:
    """Fill an open file: every array in full length, then episode by episode."""
    rows = np.array([int(steps) + 1 for steps in reader.steps], np.int64)
    total, begin = int(rows.sum()), np.cumsum(rows) - rows
    columns = reader.info.columns
    arrays = {}
    for name, column in columns.items():
        # Images one frame per chunk, as theirs. Vectors share chunks: one number per chunk makes files of indices.
        chunk = 1 if column.image else max(1, min(VECTOR_CHUNK // max(column.row_bytes, 1), total))
        shape = (total, *column.shape)
        arrays[name] = file.create_dataset(
            name, shape, column.dtype, maxshape=(None, *column.shape), chunks=(chunk, *column.shape)
        )
    for position in range(len(reader)):
        values = reader.episode(position).columns
        span = slice(begin[position], begin[position] + rows[position])
        for name, array in arrays.items():
            array[span] = _their_rows(name, columns[name], np.asarray(values[name]))
        tick(1)
    file.create_dataset("ep_len", data=rows.astype(np.int32), maxshape=(None,), chunks=True)
    file.create_dataset("ep_offset", data=begin, maxshape=(None,), chunks=True)
    further = [n for n, c in columns.items() if c.transition and n != "action" and n not in LATE]
    file.attrs[TRANSITION] = json.dumps(further)
    file.attrs[FINGERPRINT] = reader.fingerprint


def _their_rows(name: str, column: Column, rows: np.ndarray) -> np.ndarray:
    """T+1 rows: an observation as it is, an action with NaN behind it, other transitions with NaN (or 0) before."""
    if not column.transition:
        return rows
    blank = np.full((1, *rows.shape[1:]), np.nan if rows.dtype.kind == "f" else 0, rows.dtype)
    return np.concatenate([rows, blank] if name == "action" else [blank, rows])
