"""LeRobot's parquet tables, both ways: an episode's rows out of a file, and rows, types and tasks into one."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lewm.data.formats.columns import image_rows
from lewm.data.formats.common import guarded
from lewm.data.formats.video import SLACK, rgb
from lewm.data.schema import Column
from lewm.extras import need
from lewm.types import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from lewm.data.formats.lerobot import LeRobotSource

EXTRA = "lerobot"
BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")


class EpisodeRows:
    """Reads episodes' rows in order; keeps one open file and its last row group(s)."""

    def __init__(self, source: LeRobotSource) -> None:
        self._source, self._pq = source, need("pyarrow.parquet", EXTRA)
        self._path: Path | None = None
        self._held: tuple[tuple[int, ...], pa.Table] = ((), None)

    def read(self, number: int, keys: list[str]) -> pa.Table:
        """The rows of an episode, checked to be its own, in order and on the frame rate's grid."""
        path, (index, begin, length) = self._source.data_file(number), self._source.place(number)
        with guarded(f"{path}, episode {number}"):
            table = self._slice(path, begin, length, [*keys, "timestamp", "frame_index", "episode_index"])
            frame = table["frame_index"].to_numpy()
            own = len(table) == length and (table["episode_index"].to_numpy() == index).all()
            if not own or not np.array_equal(frame, np.arange(length)):
                raise InputError(
                    f"{path}, episode {number}: rows {begin} to {begin + length} are not the frames of this "
                    "episode; meta/episodes and data do not belong together: download both again"
                )
            late = np.abs(table["timestamp"].to_numpy() - frame / self._source.fps).max(initial=0)
            if not late <= SLACK / self._source.fps:
                raise InputError(
                    f"{path}, episode {number}: timestamps are up to {late:.4f} s off frame_index / fps"
                )
            return table

    def _slice(self, path: Path, begin: int, length: int, keys: list[str]) -> pa.Table:
        if path != self._path:
            self._path, self._held = None, ((), None)
            self._file = self._pq.ParquetFile(path, memory_map=True)
            meta = self._file.metadata
            sizes = [meta.row_group(group).num_rows for group in range(meta.num_row_groups)]
            self._first = self._file.read_row_group(0, columns=["index"])["index"][0].as_py()
            self._starts, self._path = np.concatenate([[0], np.cumsum(sizes)]), path
        begin -= self._first
        wanted = np.flatnonzero((self._starts[:-1] < begin + length) & (self._starts[1:] > begin))
        groups = tuple(int(group) for group in wanted)
        if groups != self._held[0]:
            self._held = groups, self._file.read_row_groups(list(groups), columns=keys)
        return self._held[1].slice(begin - int(self._starts[groups[0]]), length)


def numbers(rows: pa.ChunkedArray, column: Column, place: str) -> np.ndarray:
    """A column of numbers or of (nested) lists of them as an array (N, *shape)."""
    import pyarrow as pa

    array = rows.combine_chunks()
    while True:
        if array.null_count:
            raise InputError(f"{place}: {array.null_count} values are missing; mend or leave out that episode")
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        elif pa.types.is_nested(array.type):
            array = array.flatten()
        else:
            break
    values = array.to_numpy(zero_copy_only=False)
    if values.size != len(rows) * int(np.prod(column.shape)):
        raise InputError(f"{place}: {values.size} numbers in {len(rows)} rows, info.json says shape {column.shape}")
    return values.astype(column.dtype).reshape(len(rows), *column.shape)


def pictures(rows: pa.ChunkedArray, column: Column, place: str) -> np.ndarray:
    """Frames (N, h, w, C) from the bytes of image files inside the parquet file."""
    files = rows.to_pylist()
    lost = next((file for file in files if not file or not file.get("bytes")), None)
    if not all(file and file.get("bytes") for file in files):
        raise InputError(f"{place}: the file holds no image bytes (path {lost and lost.get('path')}); embed them")
    return image_rows([file["bytes"] for file in files], place, column.shape)


def schema_of(spec: Mapping[str, Mapping[str, Any]]) -> pa.Schema:
    """Types of the parquet columns, with the note by which the package `datasets` knows images and lists."""
    import pyarrow as pa

    fields, note = [], {}
    for key, feature in spec.items():
        if feature["dtype"] == "video":
            continue
        if feature["dtype"] == "image":
            kind, note[key] = pa.struct({"bytes": pa.binary(), "path": pa.string()}), {"_type": "Image"}
        else:
            kind, note[key] = pa.from_numpy_dtype(feature["dtype"]), {"dtype": feature["dtype"], "_type": "Value"}
            if feature["shape"] != [1]:
                size = feature["shape"][0]
                kind, note[key] = pa.list_(kind, size), {"feature": note[key], "length": size, "_type": "Sequence"}
        fields.append(pa.field(key, kind))
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": note}})})


def table_of(columns: Mapping[str, np.ndarray], schema: pa.Schema) -> pa.Table:
    """Rows (N, ...) of each feature as one table: lists flattened, images as PNG."""
    import pyarrow as pa

    arrays = []
    for field in schema:
        values = columns[field.name]
        if pa.types.is_struct(field.type):
            array = pa.array([{"bytes": _png(frame), "path": None} for frame in values], field.type)
        else:
            array = pa.array(np.ascontiguousarray(values).reshape(-1))
            if pa.types.is_fixed_size_list(field.type):
                array = pa.FixedSizeListArray.from_arrays(array, field.type.list_size)
        arrays.append(array.cast(field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _png(frame: np.ndarray) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(rgb(frame, "image")).save(file, "PNG")
    return file.getvalue()


def task_table(tasks: Mapping[str, int]) -> pa.Table:
    """A table that pandas reads as a frame indexed by `task`: the index is named in pandas' own note."""
    import pyarrow as pa

    def describe(name: str, kind: str, numpy_type: str) -> dict[str, Any]:
        return {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy_type, "metadata": None}

    note = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [describe("task_index", "int64", "int64"), describe("task", "unicode", "object")],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.0",
    }
    table = pa.table({"task_index": pa.array(tasks.values(), pa.int64()), "task": pa.array(tasks, pa.string())})
    return table.replace_schema_metadata({"pandas": json.dumps(note)})
