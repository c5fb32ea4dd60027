"""Read a data set: its committed episodes, their rows and frames, its fingerprint, its faults."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lewm.data.codecs import decoder
from lewm.data.log import Commit, checksum
from lewm.data.recording import StoredRows
from lewm.data.schema import Column, DatasetInfo
from lewm.data.shard_reader import CACHES, Shards, available_memory
from lewm.data.statistics import Statistics, column_statistics
from lewm.data.table import read_table
from lewm.data.verify import Fault, leftovers, verify
from lewm.types import ActionSpec, Episode, InputError, nearest

ADVICE = "restore the file, or copy what is intact with `lewm data convert --skip-damaged`"


class EpisodeReader:
    """A data set opened for reading: memory-mapped, only committed episodes, ordered by id.

    Costs no Python object per episode; may be pickled and shared with forked or spawned workers.

    Args:
        folder: of the set.
        cache: `none` (memory-mapped), `compressed` (files in memory) or `ram` (decoded rows in memory).
        skip_damaged: leave out, and list in `faults`, episodes whose log line or files are damaged, where it shows
            without reading everything; else they are an error.

    Raises:
        InputError: not a data set, no committed episode, a file shorter than its commits say, an id twice.
    """

    def __init__(self, folder: Path | str, *, cache: str = "none", skip_damaged: bool = False) -> None:
        self.folder, self.cache = Path(folder), cache
        if cache not in CACHES:
            raise InputError(f"unknown cache '{cache}': {nearest(cache, list(CACHES))}")
        self.info = DatasetInfo.read(self.folder)
        self.table, lines = read_table(self.folder, list(self.info.columns))
        self.faults = [Fault(None, text) for text in lines]
        self.shards = Shards(self.folder, self.info.columns, self.table, cache)
        for k, text in (short := self.shards.short()).items():
            number = int(self.ids[k])
            self.faults.append(Fault(number, f"{text}: episode {number} cannot be read; {ADVICE}"))
        if self.faults and not (skip_damaged and len(short) < len(self)):
            raise InputError(self.faults[0].text)
        if short:
            self.table = self.table.take(np.setdiff1d(np.arange(len(self)), list(short)))
            self.shards = Shards(self.folder, self.info.columns, self.table, cache)
        if not len(self):
            raise InputError(f"{self.folder} holds no committed episode; run `lewm collect` again to fill it")
        if cache == "ram":
            self._check_memory()

    def __len__(self) -> int:
        return len(self.table)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "shards"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.shards = Shards(self.folder, self.info.columns, self.table, self.cache)

    @property
    def ids(self) -> np.ndarray:
        """Episode ids (E,), ascending."""
        return self.table.ids

    @property
    def steps(self) -> np.ndarray:
        """Environment steps T of each episode (E,)."""
        return self.table.steps

    @cached_property
    def fingerprint(self) -> str:
        """A hash of content and identity; independent of writers, shards, order and lossless codec."""
        columns = self.info.to_json()["columns"]
        for name, column in self.info.columns.items():
            if column.lossless:
                del columns[name]["codec"]
        digest = hashlib.sha256(json.dumps(columns, sort_keys=True).encode())
        digest.update(json.dumps([self.info.action_low, self.info.action_high]).encode())
        digest.update(self.ids.astype("<i8").tobytes() + self.steps.astype("<i8").tobytes())
        for name in sorted(self.info.columns):
            digest.update(self.table.places[name]["content"].astype("<u8").tobytes())
        return digest.hexdigest()[:16]

    @property
    def nbytes(self) -> int:
        """Bytes on disk below `shards/`."""
        return sum(path.stat().st_size for path in self.folder.glob("shards/*/*"))

    def facts(self, position: int) -> dict[str, Any]:
        """What was noted about the episode at this position (not id): seed, policy, success."""
        return dict(self._commit(position).facts)

    def column(self, name: str, position: int) -> np.ndarray:
        """All rows of a column of the episode at this position: T of a transition column, else T // stride + 1."""
        column, steps = self._column(name), int(self.steps[position])
        count = steps if column.transition else column.rows(steps)
        return self.gather(name, np.full(count, position), np.arange(count))

    def stored(self, name: str, position: int) -> StoredRows:
        """A column of the episode at this position as it lies on disk, its checksum compared.

        Raises:
            InputError: it is damaged.
        """
        fault = self.check(position, name)
        if fault is not None:
            raise InputError(fault)
        column, place, steps = self._column(name), self.table.places[name][position], int(self.steps[position])
        data = self.shards[self.table.shard[position]].file(f"{name}.bin")[int(place["begin"]) : int(place["end"])]
        content = f"{int(place['content']):016x}"
        return StoredRows(column, steps, data.tobytes(), self._index(name, position), content)

    def episode(self, position: int) -> Episode:
        """The whole episode at this position, as it was given to the writer."""
        for text in (self.check(position, name) for name in self.info.columns):
            if text is not None:
                raise InputError(text)
        columns = {name: self.column(name, position) for name in self.info.columns}
        return Episode(int(self.ids[position]), columns, self.facts(position))

    def gather(
        self, name: str, positions: np.ndarray, rows: np.ndarray, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Rows of a column: episode positions and row numbers of one shape (...) -> (..., *shape).

        Args:
            out: uint8 (n, row_bytes), contiguous, to be filled and returned under the column's dtype and shape.
        """
        column = self._column(name)
        position, row = positions.ravel(), rows.ravel()
        if (row < 0).any() or (row > self.steps[position] // column.stride).any():
            raise IndexError(f"column '{name}': a row outside of its episode")
        if out is None:
            out = np.empty((len(position), column.row_bytes), np.uint8)
        place, shard = self.table.places[name][position], self.table.shard[position]
        if column.compressed and self.cache != "ram":
            self._decode(name, position, row, out)
        elif len(position):
            order = np.argsort(shard, kind="stable")
            for part in np.split(order, np.flatnonzero(np.diff(shard[order])) + 1):
                damaged = self.shards[shard[part[0]]].copy(name, (place["row"] + row)[part], out, part)
                if damaged is not None:
                    raise self._damaged(name, position[part[damaged]], row[part[damaged]])
        return out.view(column.dtype).reshape(*positions.shape, *column.shape)

    def _decode(self, name: str, position: np.ndarray, row: np.ndarray, out: np.ndarray) -> None:
        """Decode rows one by one into `out` (n, row_bytes): a call per shard would cost more than it saves."""
        place, decode = self.table.places[name][position], decoder(self.info.columns[name])
        begin = np.where(row == 0, place["begin"], -1)  # of the first row of an episode; else where the last ended
        wanted = zip(
            self.table.shard[position].tolist(), (place["row"] + row).tolist(), begin.tolist(), strict=True
        )
        for k, (shard, index, first) in enumerate(wanted):
            try:
                self.shards[shard].decode(name, index, first, decode, out[k])
            except ValueError:
                raise self._damaged(name, position[k], row[k]) from None

    def _damaged(self, name: str, position: int, row: int) -> InputError:
        path = self.shards[self.table.shard[position]].folder / f"{name}.bin"
        return InputError(f"{path}: row {row} of episode {self.ids[position]} is damaged; {ADVICE}")

    def statistics(self, name: str, positions: np.ndarray) -> Statistics:
        """Mean, standard deviation and range of a column over these episodes, one pass, in bounded memory."""
        return column_statistics(self, name, positions)

    def action_spec(self, positions: np.ndarray) -> ActionSpec:
        """Bounds as recorded, mean and standard deviation of the actions of these episodes; raw units."""
        found = self.statistics("action", positions)
        return ActionSpec(self.info.action_low, self.info.action_high, found.mean, np.maximum(found.std, 1e-6))

    def verify(self, tick: Callable[[int], object] = lambda _: None) -> Iterator[Fault]:
        """Compare every checksum of every episode, one episode at a time; yields what is wrong.

        A set opened with `skip_damaged` gives the faults found at opening first. `tick` is told of each episode
        done.
        """
        return verify(self, tick)

    def leftovers(self) -> list[str]:
        """What a killed writer left behind, no fault: its next start cuts it off."""
        return leftovers(self)

    def check(self, position: int, name: str) -> str | None:
        """A sentence if a column of the episode at this position does not match its checksum."""
        place, shard = self.table.places[name][position], self.shards[self.table.shard[position]]
        data = shard.file(f"{name}.bin")[int(place["begin"]) : int(place["end"])]
        if checksum(data, self._index(name, position)) == place["crc32"]:
            return None
        path = shard.folder / f"{name}.bin"
        return f"{path} is damaged: '{name}' of episode {self.ids[position]} does not match its checksum; {ADVICE}"

    def _index(self, name: str, position: int) -> np.ndarray | None:
        """Stored length and CRC-32 (n, 2) of each row of an episode's encoded column; None for fixed-size rows."""
        column, place = self._column(name), self.table.places[name][position]
        if not column.compressed:
            return None
        rows = slice(int(place["row"]), int(place["row"]) + column.rows(int(self.steps[position])))
        index = self.shards[self.table.shard[position]].file(f"{name}.idx").view("<i8").reshape(-1, 2)[rows]
        return np.column_stack([np.diff(index[:, 0], prepend=int(place["begin"])), index[:, 1]])

    def _column(self, name: str) -> Column:
        if name not in self.info.columns:
            raise InputError(f"{self.folder} has no column '{name}': {nearest(name, list(self.info.columns))}")
        return self.info.columns[name]

    def _commit(self, position: int) -> Commit:
        path = self.folder / self.table.logs[self.table.log[position]]
        with path.open("rb") as file:
            file.seek(int(self.table.offset[position]))
            try:
                return Commit.parse(file.readline())
            except ValueError as error:
                raise InputError(f"{path} has changed since it was opened ({error}); open the set again") from None

    def _check_memory(self) -> None:
        rows = {name: int((self.steps // c.stride + 1).sum()) for name, c in self.info.columns.items()}
        needed = sum(rows[name] * c.row_bytes for name, c in self.info.columns.items())
        free = available_memory()
        if free is not None and needed > free:
            raise InputError(
                f"cache=ram needs {needed / 1e9:.1f} GB for the decoded rows of {self.folder}, {free / 1e9:.1f} GB "
                "are free; use cache=compressed or cache=none"
            )
