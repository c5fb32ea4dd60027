"""The column files of a data set, opened for reading: memory-mapped, held in memory, or decoded in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np

from lewm.data.codecs import decoder
from lewm.data.schema import Column
from lewm.types import InputError

CACHES = {
    "none": "memory-mapped: the system's page cache decides what stays",
    "compressed": "the files are read into memory once",
    "ram": "every row is decoded into memory once",
}


class ShardReader:
    """Rows of one shard's columns. `committed` says how many rows and bytes of each column are there to be read."""

    def __init__(
        self, folder: Path, columns: Mapping[str, Column], committed: Mapping[str, tuple[int, int]], cache: str
    ) -> None:
        self.folder, self._columns, self._committed, self._cache = folder, columns, committed, cache
        self._files: dict[str, np.ndarray] = {}
        self._encoded: dict[str, tuple[memoryview, memoryview]] = {}
        self._rows: dict[str, np.ndarray] = {}

    def short(self, name: str) -> dict[Path, int]:
        """Files of a column that hold less than was committed -> their size, -1 for those that are not there."""
        rows, end = self._committed[name]
        files = {self.folder / f"{name}.bin": end}
        if self._columns[name].compressed:
            files[self.folder / f"{name}.idx"] = rows * 8
        sizes = {path: path.stat().st_size if path.is_file() else -1 for path in files}
        return {path: size for path, size in sizes.items() if size < files[path]}

    def committed_bytes(self) -> int:
        """Bytes of all files that belong to committed episodes."""
        encoded = [rows * 8 for name, (rows, _) in self._committed.items() if self._columns[name].compressed]
        return sum(end for _, end in self._committed.values()) + sum(encoded)

    def file(self, name: str) -> np.ndarray:
        """The committed bytes of a file, uint8."""
        if name not in self._files:
            stem, _, kind = name.rpartition(".")
            rows, end = self._committed[stem]
            size, path = (end if kind == "bin" else rows * 8), self.folder / name
            if self._cache == "none" and size:
                self._files[name] = np.asarray(
                    np.memmap(path, np.uint8, "r", shape=(size,))
                )  # memmap indexes slowly
            else:
                self._files[name] = np.fromfile(path, np.uint8, size)
        return self._files[name]

    def encoded(self, name: str) -> tuple[memoryview, memoryview]:
        """The bytes of an encoded column, and where each row ends in them."""
        if name not in self._encoded:
            ends = memoryview(self.file(f"{name}.idx").view("<i8"))
            self._encoded[name] = memoryview(self.file(f"{name}.bin")), ends
        return self._encoded[name]

    def copy(self, name: str, index: np.ndarray, out: np.ndarray, where: np.ndarray) -> None:
        """Copy rows `index` (n,) of a raw or decoded column to rows `where` (n,) of `out`."""
        if len(where) == len(out):  # all of it is here, in order
            np.take(self._decoded(name), index, axis=0, out=out, mode="clip")  # "clip" writes into out directly
        else:
            out[where] = self._decoded(name)[index]

    def _decoded(self, name: str) -> np.ndarray:
        """All committed rows (rows, row_bytes): the file itself, or decoded on first use."""
        column = self._columns[name]
        if not column.compressed:
            return self.file(f"{name}.bin").reshape(-1, column.row_bytes)
        if name not in self._rows:
            data, ends = self.encoded(name)
            decode, rows = decoder(column), np.empty((len(ends), column.row_bytes), np.uint8)
            for k, (begin, end) in enumerate(pairwise([0, *ends])):
                try:
                    decode(data[begin:end], rows[k])
                except ValueError as error:
                    path = self.folder / f"{name}.bin"
                    raise InputError(
                        f"{path}: row {k} is damaged ({error}); `lewm data verify` says which episode it is"
                    ) from None
            self._rows[name] = rows
        return self._rows[name]


def available_memory() -> int | None:
    """Bytes of memory free for use; None where the system does not tell."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
