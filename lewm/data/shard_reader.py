"""The column files of a data set, opened for reading: memory-mapped, held in memory, or decoded in memory."""

from __future__ import annotations

import mmap
import os
import re
import sys
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lewm.data.codecs import Decode, decoder
from lewm.data.schema import INDEX_ROW, Column
from lewm.data.table import Table

CACHES = {
    "none": "memory-mapped: the system's page cache decides what stays",
    "compressed": "the files are read into memory once",
    "ram": "every row is decoded into memory once",
}
KEEPS_HANDLE = sys.version_info < (3, 13)  # before, a memory map held a file handle for as long as it lived


class ShardReader:
    """Rows of one shard's columns. `committed` says how many rows and bytes of each column are there to be read."""

    def __init__(
        self, folder: Path, columns: Mapping[str, Column], committed: Mapping[str, tuple[int, int]], cache: str
    ) -> None:
        self.folder, self._columns, self._committed, self._cache = folder, columns, committed, cache
        self._files: dict[str, np.ndarray] = {}
        self._encoded: dict[str, tuple[memoryview, memoryview]] = {}
        self._rows: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def short(self, name: str) -> dict[Path, int]:
        """Files of a column that hold less than was committed -> their size, -1 for those that are not there."""
        rows, end = self._committed[name]
        files = {self.folder / f"{name}.bin": end}
        if self._columns[name].compressed:
            files[self.folder / f"{name}.idx"] = rows * INDEX_ROW
        sizes = {path: path.stat().st_size if path.is_file() else -1 for path in files}
        return {path: size for path, size in sizes.items() if size < files[path]}

    def committed_bytes(self) -> int:
        """Bytes of all files that belong to committed episodes."""
        encoded = [
            rows * INDEX_ROW for name, (rows, _) in self._committed.items() if self._columns[name].compressed
        ]
        return sum(end for _, end in self._committed.values()) + sum(encoded)

    def file(self, name: str) -> np.ndarray:
        """The committed bytes of a file, uint8."""
        if name not in self._files:
            stem, _, kind = name.rpartition(".")
            rows, end = self._committed[stem]
            size, path = (end if kind == "bin" else rows * INDEX_ROW), self.folder / name
            if self._cache == "none" and size:
                self._files[name] = np.frombuffer(_map(path, size), np.uint8)
            else:
                self._files[name] = np.fromfile(path, np.uint8, size)
        return self._files[name]

    def decode(self, name: str, row: int, begin: int, decode: Decode, out: np.ndarray) -> None:
        """Decode row `row` of the shard into `out`, flat uint8; ValueError where it is damaged.

        Args:
            begin: its first byte if it is its episode's first row, else -1: it begins where the row before ends.
        """
        if name not in self._encoded:
            index = memoryview(self.file(f"{name}.idx").view("<i8"))
            self._encoded[name] = memoryview(self.file(f"{name}.bin")), index
        data, index = self._encoded[name]
        stored = data[index[2 * row - 2] if begin < 0 else begin : index[2 * row]]
        if zlib.crc32(stored) != index[2 * row + 1]:
            raise ValueError("its bytes do not match their checksum")
        decode(stored, out)

    def copy(self, name: str, index: np.ndarray, out: np.ndarray, where: np.ndarray) -> int | None:
        """Copy rows `index` (n,) of a raw or decoded column to rows `where` (n,) of `out`.

        Returns:
            None, or the place in `index` of a row that is damaged.
        """
        rows, damaged = self._decoded(name)
        if len(damaged) and np.isin(index, damaged).any():
            return int(np.argmax(np.isin(index, damaged)))
        if len(where) == len(out):  # all of it is here, in order
            np.take(rows, index, axis=0, out=out, mode="clip")  # "clip" writes into out directly
        else:
            out[where] = rows[index]
        return None

    def _decoded(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """All committed rows (rows, row_bytes), the file itself or decoded on first use; and which are damaged."""
        column = self._columns[name]
        if name not in self._rows and not column.compressed:
            self._rows[name] = self.file(f"{name}.bin").reshape(-1, column.row_bytes), np.empty(0, np.int64)
        if name not in self._rows:
            count, damaged = self._committed[name][0], []
            decode, rows = decoder(column), np.empty((count, column.row_bytes), np.uint8)
            for row in range(count):
                try:
                    self.decode(name, row, -1 if row else 0, decode, rows[row])
                except ValueError:
                    damaged.append(row)
            self._rows[name] = rows, np.array(damaged, np.int64)
        return self._rows[name]


class Shards:
    """All shards of a set. Few are open at once where the system allows few files; the least used is closed."""

    def __init__(self, folder: Path, columns: Mapping[str, Column], table: Table, cache: str) -> None:
        self._folder, self._columns, self._table, self._cache = folder, columns, table, cache
        self._open: OrderedDict[int, ShardReader] = OrderedDict()
        files = sum(1 + column.compressed for column in columns.values())
        self.most_open = max(4, _handles() // 2 // files) if cache == "none" and KEEPS_HANDLE else len(table.shards)
        self._committed = np.zeros((len(columns), 2, len(table.shards)), np.int64)
        for committed, (name, place) in zip(self._committed, table.places.items(), strict=True):
            np.maximum.at(committed[0], table.shard, place["row"] + table.steps // columns[name].stride + 1)
            np.maximum.at(committed[1], table.shard, place["end"])

    def __len__(self) -> int:
        return len(self._table.shards)

    def __getitem__(self, number: int) -> ShardReader:
        shard = self._open.get(number)
        if shard is None:
            committed = zip(self._table.places, self._committed[:, :, number].tolist(), strict=True)
            folder = self._folder / "shards" / self._table.shards[number]
            spans = {name: (rows, end) for name, (rows, end) in committed}
            shard = self._open[number] = ShardReader(folder, self._columns, spans, self._cache)
            if len(self._open) > self.most_open:
                self._open.popitem(last=False)  # its maps go when nobody reads from them
        elif len(self) > self.most_open:
            self._open.move_to_end(number)
        return shard

    def short(self) -> dict[int, str]:
        """Position of each episode whose bytes are not all there -> which file is to blame."""
        found: dict[int, str] = {}
        for number in range(len(self)):
            for name, column in self._columns.items():
                place, steps = self._table.places[name], self._table.steps
                for path, size in self[number].short(name).items():
                    needed = (place["row"] + steps // column.stride + 1) * INDEX_ROW
                    needed = needed if path.suffix == ".idx" else place["end"]
                    for k in np.flatnonzero((self._table.shard == number) & (needed > size)):
                        state = "missing" if size < 0 else f"cut short ({size} bytes, {needed[k]} needed)"
                        found.setdefault(int(k), f"{path} is {state}")
        return found


def _map(path: Path, size: int) -> mmap.mmap:
    options = {} if KEEPS_HANDLE else {"trackfd": False}
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ, **options)


def _handles() -> int:
    """Files this process may hold open."""
    try:
        import resource
    except ImportError:  # Windows counts otherwise, and generously
        return 1 << 16
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 16 if soft == resource.RLIM_INFINITY else soft


def available_memory() -> int | None:
    """Bytes of memory free for use, what only caches files included; None where the system does not tell."""
    try:
        found = re.search(r"^MemAvailable: +(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
        if found:
            return 1024 * int(found[1])
    except OSError:
        pass  # not Linux
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
