"""Read a data set: its committed episodes, their rows and frames, its fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import zstandard

from lewm.data.schema import Commit, DatasetInfo, checksum, read_log
from lewm.types import ActionSpec, InputError


class EpisodeReader:
    """A data set opened for reading: memory-mapped, only committed episodes, ordered by id.

    Raises:
        InputError: not a data set, no committed episode, a file shorter than its commits say, an id twice.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.info = DatasetInfo.read(self.folder)
        logs = sorted(self.folder.glob("episodes-*.jsonl"))
        self.episodes: list[Commit] = sorted((c for log in logs for c in read_log(log)[0]), key=lambda c: c.id)
        if not self.episodes:
            raise InputError(f"{self.folder} holds no committed episode; run `lewm collect` again to fill it")
        ids = [episode.id for episode in self.episodes]
        if len(set(ids)) != len(ids):
            twice = next(i for i, j in pairwise(ids) if i == j)
            raise InputError(f"{self.folder} holds episode {twice} twice; remove one of its writers' logs")
        self._files: dict[tuple[str, str], np.ndarray] = {}
        self._decompressor = zstandard.ZstdDecompressor()
        for episode in self.episodes:
            self._check_span(episode)

    def __len__(self) -> int:
        return len(self.episodes)

    @property
    def ids(self) -> np.ndarray:
        """Episode ids (E,), ascending."""
        return np.array([episode.id for episode in self.episodes])

    @property
    def steps(self) -> np.ndarray:
        """Environment steps T of each episode (E,)."""
        return np.array([episode.steps for episode in self.episodes])

    @property
    def fingerprint(self) -> str:
        """A hash of content and identity; independent of writers, shards and order of arrival."""
        digest = hashlib.sha256(json.dumps(self.info.to_json()["columns"], sort_keys=True).encode())
        for episode in self.episodes:
            digest.update(json.dumps([episode.id, episode.steps, sorted(episode.crc32.items())]).encode())
        return digest.hexdigest()[:16]

    @property
    def nbytes(self) -> int:
        """Bytes on disk below `shards/`."""
        return sum(path.stat().st_size for path in self.folder.glob("shards/*/*"))

    def column(self, name: str, episode: int) -> np.ndarray:
        """All rows of a column of the episode at this position (not id): (rows, *shape)."""
        first, last = self.episodes[episode].rows[name]
        return self.gather(name, np.full(last - first, episode), np.arange(last - first))

    def gather(self, name: str, episodes: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Rows of a column: episode positions and row numbers of one shape (...) -> (..., *shape)."""
        column = self.info.columns[name]
        read = self._read_compressed if column.compressed else self._read_raw
        out = np.empty((episodes.size, column.row_bytes), np.uint8)
        for k, (episode, row) in enumerate(zip(episodes.flat, rows.flat, strict=True)):
            out[k] = read(name, self.episodes[episode], row)
        return out.view(column.dtype).reshape(*episodes.shape, *column.shape)

    def _read_raw(self, name: str, commit: Commit, row: int) -> np.ndarray:
        size = self.info.columns[name].row_bytes
        begin = (commit.rows[name][0] + row) * size
        return self._open(commit.shard, f"{name}.bin")[begin : begin + size]

    def _read_compressed(self, name: str, commit: Commit, row: int) -> np.ndarray:
        ends = self._open(commit.shard, f"{name}.idx").view("<u8")
        index = commit.rows[name][0] + row
        begin = commit.bytes[name][0] if row == 0 else int(ends[index - 1])
        data = self._open(commit.shard, f"{name}.bin")[begin : int(ends[index])]
        try:
            frame = np.frombuffer(self._decompressor.decompress(data), np.uint8)
        except zstandard.ZstdError:
            frame = np.empty(0, np.uint8)
        if len(frame) != self.info.columns[name].row_bytes:
            place = f"{self.folder}/shards/{commit.shard}/{name}.bin"
            raise InputError(f"{place}: frame {row} of episode {commit.id} is damaged; restore the file")
        return frame

    def action_spec(self, episodes: np.ndarray) -> ActionSpec:
        """Bounds as recorded, mean and standard deviation of the actions of these episodes; raw units."""
        actions = np.concatenate([self.column("action", int(episode))[:-1] for episode in episodes])
        spread = np.maximum(actions.std(0), 1e-6)
        return ActionSpec(self.info.action_low, self.info.action_high, actions.mean(0), spread)

    def verify(self) -> Iterator[str]:
        """Check every checksum; yields one line per fault."""
        for commit in self.episodes:
            for name, column in self.info.columns.items():
                begin, end = self._span(commit, name)
                lengths = None
                if column.compressed:
                    first, last = commit.rows[name]
                    ends = self._open(commit.shard, f"{name}.idx").view("<u8")[first:last]
                    lengths = np.diff(ends, prepend=np.uint64(begin))
                if checksum(self._open(commit.shard, f"{name}.bin")[begin:end], lengths) != commit.crc32[name]:
                    yield f"episode {commit.id}: '{name}' of shard {commit.shard} does not match its checksum"

    def _span(self, commit: Commit, name: str) -> tuple[int, int]:
        """Byte range of an episode in `<name>.bin`."""
        column = self.info.columns[name]
        if column.compressed:
            return tuple(commit.bytes[name])
        first, last = commit.rows[name]
        return first * column.row_bytes, last * column.row_bytes

    def _check_span(self, commit: Commit) -> None:
        if commit.rows.keys() != self.info.columns.keys():
            raise InputError(f"{self.folder}: the log line of episode {commit.id} does not name the set's columns")
        for name in self.info.columns:
            needed = [(f"{name}.bin", self._span(commit, name)[1])]
            if self.info.columns[name].compressed:
                needed.append((f"{name}.idx", commit.rows[name][1] * 8))
            for file, size in needed:
                if len(self._open(commit.shard, file)) < size:
                    raise InputError(
                        f"{self.folder}/shards/{commit.shard}/{file} is cut short: episode {commit.id} needs "
                        f"{size} bytes; restore the file, or delete the set and collect again"
                    )

    def _open(self, shard: str, file: str) -> np.ndarray:
        """The bytes of a file, memory-mapped; an index ends at a whole entry."""
        key = (shard, file)
        if key not in self._files:
            path = self.folder / "shards" / shard / file
            try:
                data = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)
            except FileNotFoundError:
                raise InputError(f"{path} is missing; restore it, or delete the set and collect again") from None
            self._files[key] = data[: len(data) // 8 * 8] if file.endswith(".idx") else data
        return self._files[key]
