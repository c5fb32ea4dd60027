"""The files of a Minari data set: its three layouts seen as one tree of arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lewm.data.formats.common import TRANSITION, read_json
from lewm.data.formats.hdf5 import is_text, opened, read_all
from lewm.extras import need
from lewm.types import InputError

if TYPE_CHECKING:
    import h5py
    import pyarrow

EXTRA = "minari"
METADATA, MAIN_FILE = "metadata.json", "main_data.hdf5"
FACTS = "lewm_facts"
"""Attribute of our exports: an episode's facts (JSON)."""


class Node(ABC):
    """A group or an array of an episode."""

    late = False

    @abstractmethod
    def names(self) -> list[str] | None:
        """Names of what a group holds; None for an array."""

    @abstractmethod
    def child(self, name: str) -> Node:
        """An entry of a group; `_index_3` is the fourth of a tuple in every layout."""

    @abstractmethod
    def kind(self) -> tuple[np.dtype, tuple[int, ...]] | None:
        """Dtype and row shape of an array, None if it is not of numbers. Reads no data."""

    @abstractmethod
    def rows(self) -> np.ndarray | list[Any]:
        """The rows of an array; encoded images as a list of bytes-like objects."""

    def at(self, path: str) -> Node:
        """The node below this one, `/` between names."""
        node = self
        for name in path.split("/"):
            if name not in (node.names() or []):
                raise InputError(f"'{path}' is missing; copy the data set again")
            node = node.child(name)
        return node

    def arrays(self, prefix: str = "") -> Iterator[tuple[str, Node]]:
        """Every array below a group with its path."""
        for name in self.names() or []:
            child = self.child(name)
            if child.names() is None:
                yield prefix + name, child
            else:
                yield from child.arrays(f"{prefix}{name}/")


class Hdf5(Node):
    """A group or dataset of the HDF5 layout."""

    def __init__(self, item: h5py.Group | h5py.Dataset) -> None:
        self._item = item
        self.late = bool(item.attrs.get(TRANSITION, False))

    def names(self) -> list[str] | None:
        """Names in a group."""
        return list(self._item) if hasattr(self._item, "keys") else None

    def child(self, name: str) -> Node:
        """An entry."""
        return Hdf5(self._item[name])

    def kind(self) -> tuple[np.dtype, tuple[int, ...]] | None:
        """Dtype and row shape."""
        numbers = self._item.ndim > 0 and self._item.dtype.kind in "biuf" and not is_text(self._item.dtype)
        return (self._item.dtype, self._item.shape[1:]) if numbers else None

    def rows(self) -> np.ndarray | list[Any]:
        """All rows."""
        return read_all(self._item, self._item.file.filename)


class Arrow(Node):
    """A field of the Arrow and Parquet layouts; without `data` only its type."""

    def __init__(self, field: pyarrow.Field, data: pyarrow.Array | None) -> None:
        self._field, self._data = field, data

    @staticmethod
    def root(schema: pyarrow.Schema, table: pyarrow.Table | None) -> Arrow:
        """The columns of one episode."""
        pa = need("pyarrow", EXTRA)
        field = pa.field("episode", pa.struct(list(schema)))
        if table is None:
            return Arrow(field, None)
        columns = [pa.concat_arrays(column.chunks) if column.num_chunks else column for column in table.columns]
        return Arrow(field, pa.StructArray.from_arrays(columns, fields=list(schema)))

    def names(self) -> list[str] | None:
        """Names in a group."""
        kind = self._field.type
        if not need("pyarrow", EXTRA).types.is_struct(kind):
            return None
        names = [kind.field(i).name for i in range(kind.num_fields)]
        indices = [str(i) for i in range(len(names))]
        return [f"_index_{name}" for name in names] if names == indices else names

    def child(self, name: str) -> Node:
        """An entry."""
        number = (self.names() or []).index(name)
        return Arrow(self._field.type.field(number), None if self._data is None else self._data.field(number))

    def kind(self) -> tuple[np.dtype, tuple[int, ...]] | None:
        """Dtype and row shape."""
        types, kind = need("pyarrow", EXTRA).types, self._field.type
        if types.is_fixed_size_list(kind) and types.is_primitive(kind.value_type):
            return np.dtype(kind.value_type.to_pandas_dtype()), self._shape()
        if types.is_primitive(kind) and not types.is_temporal(kind):
            return np.dtype(kind.to_pandas_dtype()), ()
        return None

    def rows(self) -> np.ndarray | list[Any]:
        """All rows."""
        kind, types = self.kind(), need("pyarrow", EXTRA).types
        if kind is None:
            binary = types.is_binary(self._field.type) or types.is_large_binary(self._field.type)
            return [value.as_buffer() for value in self._data] if binary else self._data.to_pylist()
        values = self._data.flatten() if types.is_fixed_size_list(self._field.type) else self._data
        return values.to_numpy(zero_copy_only=False).reshape(len(self._data), *kind[1])

    def _shape(self) -> tuple[int, ...]:
        """Row shape: infos say theirs (an empty text is a scalar, which Minari 0.5.4 itself cannot read)."""
        stated = (self._field.metadata or {}).get(b"shape")
        if stated is None:
            return (self._field.type.list_size,)
        return tuple(int(n) for n in stated.split(b",") if n)


class OpenedHdf5:
    """The HDF5 layout: all episodes in one file."""

    def __init__(self, file: h5py.File) -> None:
        self._file = file

    @staticmethod
    @contextmanager
    def open(data: Path) -> Iterator[OpenedHdf5]:
        """Keep the file open for as long as episodes are read."""
        with opened(data / MAIN_FILE, EXTRA) as file:
            yield OpenedHdf5(file)

    def episode(self, position: int, *, data: bool = True) -> Node:
        """One episode's group."""
        return Hdf5(self._group(position))

    def facts(self, position: int) -> dict[str, Any]:
        """Attributes; `options/a` is an entry of `options`."""
        facts: dict[str, Any] = {}
        for key, value in self._group(position).attrs.items():
            *above, last = key.split("/")
            inner = facts
            for name in above:
                inner = inner.setdefault(name, {})
            inner[last] = value
        return facts

    def _group(self, position: int) -> h5py.Group:
        name = f"episode_{position}"
        if name not in self._file:
            raise InputError(f"{name} is missing although {METADATA} counts it; copy the data set again")
        return self._file[name]


class OpenedArrow:
    """The Arrow and Parquet layouts: a folder per episode."""

    def __init__(self, data: Path, suffix: str) -> None:
        self._data, self._suffix = data, suffix

    @staticmethod
    def open(suffix: str) -> Callable[[Path], Any]:
        """A function like `OpenedHdf5.open` for files with this suffix."""

        @contextmanager
        def open_folder(data: Path) -> Iterator[OpenedArrow]:
            need("pyarrow", EXTRA)
            yield OpenedArrow(data, suffix)

        return open_folder

    def episode(self, position: int, *, data: bool = True) -> Node:
        """One episode's columns; without `data` only their types."""
        pa = need("pyarrow", EXTRA)
        files = sorted((self._data / str(position)).glob(f"*.{self._suffix}"))
        if not files:
            raise InputError(f"{self._data / str(position)} holds no .{self._suffix} file; copy the data set again")
        if self._suffix == "parquet":
            parquet = need("pyarrow.parquet", EXTRA)
            if not data:
                return Arrow.root(parquet.read_schema(files[0]), None)
            table = pa.concat_tables([parquet.ParquetFile(file).read() for file in files])
        else:
            tables = []
            for file in files:
                with pa.memory_map(str(file)) as mapped, need("pyarrow.ipc", EXTRA).open_file(mapped) as reader:
                    if not data:
                        return Arrow.root(reader.schema, None)
                    tables.append(reader.read_all())
            table = pa.concat_tables(tables)
        return Arrow.root(table.schema, table)

    def facts(self, position: int) -> dict[str, Any]:
        """The episode's own metadata.json, if there is one."""
        path = self._data / str(position) / METADATA
        return read_json(path) if path.exists() else {}
