"""One episode on its way into a data set: rows are checked and encoded as they come."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from lewm.data.codecs import Digest, decoder, encoder
from lewm.data.schema import Column
from lewm.types import InputError


@dataclass(frozen=True)
class StoredRows:
    """A column of one episode as it lies on disk, checked: bytes, length of each encoded row, digest of the
    content."""

    column: Column
    steps: int
    data: bytes
    index: np.ndarray | None
    content: str

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The rows decoded, without row T of a transition column."""
        count = self.column.rows(self.steps)
        out, data = np.empty((count, self.column.row_bytes), np.uint8), memoryview(self.data)
        if self.index is None:
            out[:] = np.frombuffer(data, np.uint8).reshape(out.shape)
        else:
            decode, ends = decoder(self.column), np.cumsum(self.index[:, 0]).tolist()
            for row, (begin, end) in zip(out, pairwise([0, *ends]), strict=True):
                decode(data[begin:end], row)
        rows = out.view(self.column.dtype).reshape(count, *self.column.shape)
        return rows[:-1] if self.column.transition else rows


class Recording:
    """An episode in flight. It holds encoded rows only, so 256 of them fit in memory at any image size.

    Made by `EpisodeWriter.begin`; lost, and nothing else with it, if the process dies before `commit`.
    """

    def __init__(self, id: int, columns: Mapping[str, Column], facts: Mapping[str, Any] | None = None) -> None:
        if isinstance(id, bool) or not isinstance(id, int | np.integer) or not 0 <= id < 2**63:
            raise InputError(f"an episode's id must be a whole number in [0, 2**63), got {id!r}")
        self.id, self.facts = int(id), dict(facts or {})
        self.columns = dict(columns)
        self._rows = {name: EncodedRows(name, self.id, column) for name, column in columns.items()}

    def add(self, **rows: np.ndarray) -> None:
        """Append the next row of each column named, e.g. `add(pixels=frame, state=s)` then `add(action=a)`.

        All of them or, where one does not fit, none.
        """
        checked = [(self._column(name), np.asarray(row)[None]) for name, row in rows.items()]
        for column, row in checked:
            column.check(row)
        for column, row in checked:
            column.extend(row)

    def extend(self, name: str, rows: np.ndarray) -> None:
        """Append rows (n, *shape) to one column."""
        self._column(name).extend(np.asarray(rows))

    def take(self, name: str, rows: StoredRows) -> None:
        """Take over a whole column as it is stored elsewhere under the same codec, without encoding it again."""
        self._column(name).take(rows)

    def _column(self, name: str) -> EncodedRows:
        if name not in self._rows:
            raise InputError(f"episode {self.id} has a column '{name}', this data set has {sorted(self._rows)}")
        return self._rows[name]

    @property
    def steps(self) -> int:
        """Environment steps recorded so far: rows of `action`."""
        return self._rows["action"].count

    def finish(self) -> Mapping[str, EncodedRows]:
        """All columns; rejects an episode whose columns do not fit together. May be called again."""
        if self.steps < 1:
            raise InputError(f"episode {self.id} has no steps")
        try:
            json.dumps(self.facts, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"episode {self.id}: facts must be plain JSON values; {error}") from None
        for name, rows in self._rows.items():
            expected = self.steps if rows.column.transition else rows.column.rows(self.steps)
            if rows.count != expected:
                raise InputError(
                    f"episode {self.id}, column '{name}': expected {expected} rows for {self.steps} steps, "
                    f"got {rows.count}"
                )
        return self._rows


class EncodedRows:
    """The rows of one column of one episode, as they will be stored."""

    def __init__(self, name: str, episode: int, column: Column) -> None:
        self.name, self.episode, self.column, self.count = name, episode, column, 0
        self._dtype = np.dtype(column.dtype)
        self._encode = encoder(column)
        self._data = bytearray()  # keeping what the compressor returns would pin its whole output buffers
        self._index: list[tuple[int, int]] = []  # length and CRC-32 of each stored row
        self._digest = Digest(column)
        self._taken: StoredRows | None = None

    def check(self, rows: np.ndarray) -> None:
        """Raise an `InputError` for rows (n, *shape) that this column cannot hold."""
        place = f"episode {self.episode}, column '{self.name}', row {self.count}"
        if rows.ndim == 0 or rows.shape[1:] != self.column.shape or rows.dtype != self._dtype:
            raise InputError(
                f"{place}: expected rows of {self.column.dtype} {self.column.shape}, "
                f"got {rows.dtype} {rows.shape[1:]}"
            )
        if self._dtype.kind == "f" and not np.isfinite(rows).all():
            raise InputError(f"{place} or after holds NaN or infinity; cut it off, mend it, or drop the column")

    def extend(self, rows: np.ndarray) -> None:
        """Check and encode the next rows (n, *shape)."""
        self.check(rows)
        rows = np.ascontiguousarray(rows, self._dtype)
        for part in rows if self.column.compressed else [rows]:
            stored = self._encode(part)
            self._data += stored
            if self.column.compressed:
                self._index.append((len(stored), zlib.crc32(stored)))
                self._digest.update(part, stored)
        if not self.column.compressed:
            for row in rows:
                self._digest.update(np.ascontiguousarray(row), b"")
        self.count += len(rows)

    def take(self, rows: StoredRows) -> None:
        """Take over what is stored elsewhere, in place of any rows so far."""
        if rows.column != self.column:
            raise InputError(f"episode {self.episode}, column '{self.name}' is {self.column}, not {rows.column}")
        self._taken = rows
        self.count = rows.steps if self.column.transition else self.column.rows(rows.steps)

    def stored(self) -> tuple[bytes, np.ndarray | None, str]:
        """What goes to disk: bytes, index (n, 2) of encoded rows (length, CRC-32), digest of the content.

        A transition column gets its row T of zeros, which the digest leaves out.
        """
        if self._taken is not None:
            return self._taken.data, self._taken.index, self._taken.content
        data, index = bytes(self._data), self._index
        if self.column.transition:
            filler = self._encode(np.zeros(self.column.shape, self._dtype))
            data, index = data + filler, [*index, (len(filler), zlib.crc32(filler))]
        return data, np.array(index, np.uint64) if self.column.compressed else None, self._digest.hexdigest()
