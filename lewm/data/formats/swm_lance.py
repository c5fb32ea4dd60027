"""stable-worldmodel's Lance tables. Layout: stable-worldmodel 0.1.1, data/formats/lance.py.

    <table>.lance/            episode_idx int32, step_idx int32, then a column each:
                              images: binary JPEG; everything else: fixed_size_list<float32>[d] (or string)
    <table>_episodes.lance/   optional: episode_idx and a value per episode; facts here

Rows of an episode lie together and episode_idx never falls. Alignment is that of their HDF5 (`swm_hdf5`): the last
action is dropped, reward and flags came with the observation. JPEG and float32 are lossy; that is theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lewm.data.formats.base import Format, Source
from lewm.data.formats.columns import Leaf, action_column, as_column, column_of, image_rows, named, plain
from lewm.data.formats.common import check_size, guarded
from lewm.data.formats.swm_hdf5 import LATE
from lewm.data.images import decode_image
from lewm.extras import need
from lewm.registry import register
from lewm.types import Episode, InputError

if TYPE_CHECKING:
    import lance
    import pyarrow

EPISODE, STEP = "episode_idx", "step_idx"
DROPPED = (STEP, "id")
FACTS_SUFFIX, VIDEOS_SUFFIX = "_episodes", "_videos"
TAKE_ROWS = 128
"""Rows asked for at once; their tests know of hangs with more."""


@register("format", "swm_lance")
class SwmLance(Format):
    """stable-worldmodel Lance tables, read only."""

    name = "swm_lance"
    title = "stable-worldmodel Lance table (.lance)"
    extra = "lance"

    @staticmethod
    def detect(path: Path) -> bool:
        """A `*.lance` folder, or a folder that holds one."""
        try:
            return bool(_tables(path))
        except OSError:
            return False

    @staticmethod
    def open(path: Path) -> Source:
        """A `*.lance` folder, or a folder with one table of frames."""
        tables = _tables(path)
        if len(tables) != 1:
            names = ", ".join(t.name for t in tables) or "none"
            raise InputError(f"{path} must be or hold one .lance table of frames, found {names}; name one")
        return LanceSource(tables[0])


def _tables(path: Path) -> list[Path]:
    """Tables of frames at or in a folder."""
    folders = [path] if path.suffix == ".lance" else sorted(path.glob("*.lance")) if path.is_dir() else []
    return [f for f in folders if f.is_dir() and not f.stem.endswith((FACTS_SUFFIX, VIDEOS_SUFFIX))]


class LanceSource(Source):
    """An opened table: an index of where episodes begin (8 bytes per episode), rows on request."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.with_name(f"{path.stem}{VIDEOS_SUFFIX}.lance").exists():
            raise InputError(
                f"{path} keeps its images as videos in {path.stem}{VIDEOS_SUFFIX}.lance, which is not read; "
                "convert it with stable-worldmodel: swm convert ... --dest-format hdf5"
            )
        self._table = _open(path)
        with guarded(str(path)):
            self._begin, self._rows, self._ids = self._index()
            leaves, left_out = self._describe()
        self._leaves, renamed = named(leaves, path)
        if "action" not in self._leaves:
            raise InputError(f"{path} has no column 'action', it has {self._table.schema.names}")
        self.columns = {name: leaf.column for name, leaf in self._leaves.items()}
        self._facts = _Facts.beside(path)
        about: dict[str, Any] = {"format": "swm_lance", "left_out": left_out, "renamed": renamed}
        keep = self._rows >= 2
        if not keep.any():
            raise InputError(f"{path}: no episode has two rows, so there is no step in it; check the table")
        if not keep.all():  # an environment that ended at its first step
            about["skipped_one_row_episodes"] = int((~keep).sum())
        self._begin, self._rows, self._ids = self._begin[keep], self._rows[keep], self._ids[keep]
        self.about = about

    def __len__(self) -> int:
        return len(self._begin)

    def action_bounds(self) -> None:
        """The format states no bounds."""
        return

    def episodes(self, first: int = 0) -> Iterator[Episode]:
        """One episode in memory at a time."""
        for position in range(first, len(self)):
            columns = self._read(position, self._leaves)
            yield Episode(position, columns, self._facts.of(int(self._ids[position])) if self._facts else {})

    def actions(self) -> Iterator[np.ndarray]:
        """The actions alone."""
        for position in range(len(self)):
            yield self._read(position, {"action": self._leaves["action"]})["action"]

    def _index(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """First row, number of rows and episode_idx of each episode."""
        if EPISODE not in self._table.schema.names:
            raise InputError(
                f"{self.path} has no column '{EPISODE}', it has {self._table.schema.names}; this is a Lance table "
                "but not one of stable-worldmodel's"
            )
        begin, ids, last, row = [], [], None, 0
        for batch in self._table.scanner(columns=[EPISODE]).to_batches():
            values = _ids(batch.column(0), self.path)
            if len(values):
                before = np.concatenate([[values[0] - 1 if last is None else last], values[:-1]])
                fall = np.flatnonzero(values < before)
                if len(fall):
                    raise InputError(f"{self.path}: {EPISODE} falls at row {row + fall[0]}; sort the table by it")
                new = np.flatnonzero(values != before)
                begin.append(row + new)
                ids.append(values[new])
                last, row = values[-1], row + len(values)
        if not begin:
            raise InputError(f"{self.path} has no rows")
        starts = np.concatenate(begin).astype(np.int64)
        return starts, np.diff(np.append(starts, row)), np.concatenate(ids)

    def _describe(self) -> tuple[dict[str, Leaf], list[str]]:
        """Columns to keep, and names with reasons of what is left out."""
        types = need("pyarrow", "lance").types
        leaves, left_out = {}, []
        for field in self._table.schema:
            name, kind = field.name, field.type
            column = None
            if name == EPISODE:
                continue
            if name in DROPPED:
                left_out.append(f"{name} (bookkeeping)")
                continue
            if types.is_binary(kind) or types.is_large_binary(kind):
                column = self._image_column(name)
            elif types.is_fixed_size_list(kind) and types.is_primitive(kind.value_type):
                dtype = np.dtype(kind.value_type.to_pandas_dtype())
                column = _array_column(name, dtype, (kind.list_size,))
            elif types.is_primitive(kind) and not types.is_temporal(kind):
                column = _array_column(name, np.dtype(kind.to_pandas_dtype()), ())
            if column is None:
                left_out.append(f"{name} ({kind})")
            else:
                leaves[name] = Leaf(name, column, late=name in LATE)
        return leaves, left_out

    def _image_column(self, name: str) -> Any:
        """Column of a binary field, from its first row; None if that is no image and need not be."""
        blob = self._table.take([0], columns=[name]).column(0)[0].as_py()
        try:
            return column_of(np.uint8, decode_image(blob).shape)
        except ValueError:
            if name.startswith("pixels"):
                raise InputError(
                    f"{self.path}: column '{name}' row 0 is not an image; copy the table again"
                ) from None
            return None

    def _read(self, position: int, leaves: dict[str, Leaf]) -> dict[str, np.ndarray]:
        begin, count = int(self._begin[position]), int(self._rows[position])
        fields = [leaf.path for leaf in leaves.values()]
        pa = need("pyarrow", "lance")
        where = f"{self.path}, episode {position}"
        with guarded(where):
            check_size(count * sum(leaf.column.row_bytes for leaf in leaves.values()), where)
            parts = [
                self._table.take(list(range(row, min(row + TAKE_ROWS, begin + count))), columns=fields)
                for row in range(begin, begin + count, TAKE_ROWS)
            ]
            table = pa.concat_tables(parts).combine_chunks()
            if table.num_rows != count:
                raise InputError(f"{where} has {table.num_rows} rows, its index says {count}; copy the table again")
            return {
                name: _rows(table.column(leaf.path), leaf, f"{where}, column '{name}'")
                for name, leaf in leaves.items()
            }


class _Facts:
    """The optional table of one row per episode."""

    def __init__(self, path: Path) -> None:
        self._path, self._table = path, _open(path)
        with guarded(str(path)):
            types = need("pyarrow", "lance").types
            ids = _ids(self._table.to_table(columns=[EPISODE]).column(0), path)
            self._fields = [
                f.name for f in self._table.schema if f.name != EPISODE and not types.is_large_binary(f.type)
            ]
        self._row = {int(episode): row for row, episode in enumerate(ids)}

    @staticmethod
    def beside(path: Path) -> _Facts | None:
        """The table that belongs to a table of frames, if there is one."""
        facts = path.with_name(f"{path.stem}{FACTS_SUFFIX}.lance")
        return _Facts(facts) if facts.is_dir() else None

    def of(self, episode: int) -> dict[str, Any]:
        """What is known of one episode; nulls are not facts."""
        if episode not in self._row or not self._fields:
            return {}
        with guarded(f"{self._path}, episode {episode}"):
            row = self._table.take([self._row[episode]], columns=self._fields).to_pylist()[0]
        return {name: plain(value) for name, value in row.items() if value is not None}


def _ids(values: pyarrow.Array, path: Path) -> np.ndarray:
    """Numbers of episodes, int64."""
    if values.null_count or not need("pyarrow", "lance").types.is_integer(values.type):
        raise InputError(f"{path}: '{EPISODE}' must hold a whole number in every row, it is {values.type}")
    return values.to_numpy(zero_copy_only=False).astype(np.int64)


def _open(path: Path) -> lance.LanceDataset:
    lance = need("lance", "lance")
    with guarded(str(path)):
        return lance.dataset(str(path))


def _array_column(name: str, dtype: np.dtype, shape: tuple[int, ...]) -> Any:
    """Column of a numeric field: their writer makes float32 lists of scalars and flags too, which are unpacked."""
    if name == "action":
        return action_column(dtype, shape)
    if name in LATE and shape in ((), (1,)):
        return column_of(dtype if name == "reward" else np.bool_, (), transition=True)
    return column_of(dtype, shape)


def _rows(array: pyarrow.ChunkedArray, leaf: Leaf, where: str) -> np.ndarray:
    """An episode's rows of one field as the column wants them."""
    first, last = leaf.span(len(array))
    chunk = array.slice(first, last - first).combine_chunks()
    if chunk.null_count:
        raise InputError(f"{where} has {chunk.null_count} empty rows; fill them or leave the column out")
    if leaf.column.compressed:
        return image_rows([blob.as_buffer() for blob in chunk], where, leaf.column.shape)
    values = chunk.flatten() if hasattr(chunk.type, "list_size") else chunk
    rows = values.to_numpy(zero_copy_only=False)
    return as_column(rows.reshape(len(chunk), *leaf.column.shape), leaf.column, where)
