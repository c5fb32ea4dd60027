"""One episode on its way into a data set: rows are checked and encoded as they come."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from lewm.data.codecs import Digest, encoder
from lewm.data.schema import Column
from lewm.types import InputError


class Recording:
    """An episode in flight. It holds encoded rows only, so 256 of them fit in memory at any image size.

    Made by `EpisodeWriter.begin`; lost, and nothing else with it, if the process dies before `commit`.
    """

    def __init__(self, id: int, columns: Mapping[str, Column], facts: Mapping[str, Any] | None = None) -> None:
        if isinstance(id, bool) or not isinstance(id, int | np.integer) or not 0 <= id < 2**63:
            raise InputError(f"an episode's id must be a whole number in [0, 2**63), got {id!r}")
        self.id, self.facts = int(id), dict(facts or {})
        self.columns = dict(columns)
        self._columns = {name: EncodedRows(name, self.id, column) for name, column in columns.items()}

    def add(self, **rows: np.ndarray) -> None:
        """Append the next row of each column named, e.g. `add(pixels=frame, state=s)` then `add(action=a)`."""
        for name, row in rows.items():
            self.extend(name, np.asarray(row)[None])

    def extend(self, name: str, rows: np.ndarray) -> None:
        """Append rows (n, *shape) to one column."""
        if name not in self._columns:
            raise InputError(f"episode {self.id} has a column '{name}', this data set has {sorted(self._columns)}")
        self._columns[name].extend(np.asarray(rows))

    @property
    def steps(self) -> int:
        """Environment steps recorded so far: rows of `action`."""
        return self._columns["action"].count

    def finish(self) -> Mapping[str, EncodedRows]:
        """All columns; rejects an episode whose columns do not fit together. May be called again."""
        if self.steps < 1:
            raise InputError(f"episode {self.id} has no steps")
        try:
            json.dumps(self.facts, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"episode {self.id}: facts must be plain JSON values; {error}") from None
        for name, rows in self._columns.items():
            expected = self.steps if rows.column.transition else rows.column.rows(self.steps)
            if rows.count != expected:
                raise InputError(
                    f"episode {self.id}, column '{name}': expected {expected} rows for {self.steps} steps, "
                    f"got {rows.count}"
                )
        return self._columns


class EncodedRows:
    """The rows of one column of one episode, as they will be stored."""

    def __init__(self, name: str, episode: int, column: Column) -> None:
        self.name, self.episode, self.column, self.count = name, episode, column, 0
        self._dtype = np.dtype(column.dtype)
        self._encode = encoder(column)
        self._data = bytearray()  # keeping what the compressor returns would pin its whole output buffers
        self._lengths: list[int] = []
        self._digest = Digest(column)

    def extend(self, rows: np.ndarray) -> None:
        """Check and encode the next rows (n, *shape)."""
        if rows.shape[1:] != self.column.shape or rows.dtype != self._dtype or rows.ndim == 0:
            raise InputError(
                f"{self._place()}: expected rows of {self.column.dtype} {self.column.shape}, "
                f"got {rows.dtype} {rows.shape[1:]}"
            )
        if self._dtype.kind == "f" and not np.isfinite(rows).all():
            raise InputError(f"{self._place()} or after holds NaN or infinity; cut it off or mend it first")
        rows = np.ascontiguousarray(rows, self._dtype)
        for part in rows if self.column.compressed else [rows]:
            stored = self._encode(part)
            self._digest.update(stored)
            self._data += stored
            self._lengths.append(len(stored))
        self.count += len(rows)

    def stored(self) -> tuple[bytes, np.ndarray | None, str]:
        """What goes to disk: bytes, length of each encoded row, digest of the content.

        A transition column gets its row T of zeros, which the digest leaves out.
        """
        data, lengths = bytes(self._data), self._lengths
        if self.column.transition:
            filler = self._encode(np.zeros(self.column.shape, self._dtype))
            data, lengths = data + filler, [*lengths, len(filler)]
        return data, np.array(lengths, np.uint64) if self.column.compressed else None, self._digest.hexdigest()

    def _place(self) -> str:
        return f"episode {self.episode}, column '{self.name}', row {self.count}"
