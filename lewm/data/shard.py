"""The column files of one shard, open for appending."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from lewm.data.log import Commit, Place, checksum
from lewm.data.schema import INDEX_ROW, Column, sync_folder
from lewm.types import InputError

Mark = dict[str, tuple[int, int]]
"""Column -> (rows, bytes): how far its files went."""


class ShardFiles:
    """Appends rows to `<column>.bin` and `.idx`. Opening cuts off what `commits`, this shard's, do not account
    for."""

    def __init__(self, folder: Path, columns: Mapping[str, Column], commits: Sequence[Commit]) -> None:
        self._columns = columns
        self._files: dict[str, IO[bytes]] = {}
        self._at: Mark = {name: (0, 0) for name in columns}
        for commit in commits:
            for name, (row, _, end, *_) in commit.columns.items():
                self._at[name] = max(self._at[name], (row + columns[name].rows(commit.steps), end))
        sizes = {folder / f"{name}.bin": end for name, (_, end) in self._at.items()}
        sizes |= {
            folder / f"{name}.idx": self._at[name][0] * INDEX_ROW for name, c in columns.items() if c.compressed
        }
        for path, size in sizes.items():  # all of them, before any is touched
            _check_size(path, size)
        if not folder.exists():
            folder.mkdir(parents=True)
            sync_folder(folder.parent)
        try:
            for path, size in sizes.items():
                file = self._files[path.name] = path.open("ab", buffering=0)
                file.truncate(size)
            sync_folder(folder)
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        """Bytes in all columns."""
        return sum(end for _, end in self._at.values())

    def append(self, name: str, data: bytes, index: np.ndarray | None, content: str) -> Place:
        """Append the rows of one episode, and their index (n, 2) if they are encoded; what the log says."""
        row, begin = self._at[name]
        if index is not None:
            placed = np.column_stack([begin + np.cumsum(index[:, 0]), index[:, 1]])
            write_all(self._files[f"{name}.idx"], placed.astype("<u8").tobytes())
        write_all(self._files[f"{name}.bin"], data)
        count = len(data) // self._columns[name].row_bytes if index is None else len(index)
        self._at[name] = row + count, begin + len(data)
        return row, begin, begin + len(data), checksum(data, index), content

    def mark(self) -> Mark:
        """Where the files end now."""
        return dict(self._at)

    def cut(self, mark: Mark) -> None:
        """Take back what was appended since `mark`."""
        for name, (rows, end) in mark.items():
            self._files[f"{name}.bin"].truncate(end)
            if self._columns[name].compressed:
                self._files[f"{name}.idx"].truncate(rows * INDEX_ROW)
        self._at = dict(mark)

    def sync(self) -> None:
        """Wait until the disk has everything."""
        for file in self._files.values():
            os.fsync(file.fileno())

    def close(self) -> None:
        """Close all files."""
        for file in self._files.values():
            file.close()


def _check_size(path: Path, size: int) -> None:
    there = path.stat().st_size if path.exists() else 0
    if there < size:
        raise InputError(
            f"{path} has {there} bytes, its committed episodes need {size}; restore it, or copy what is intact "
            "with `lewm data convert --skip-damaged`"
        )


def write_all(file: IO[bytes], data: bytes) -> None:
    """Write all of it: an unbuffered file may take less at once, and says so."""
    left = memoryview(data)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError as error:
        error.filename = file.name
        raise
