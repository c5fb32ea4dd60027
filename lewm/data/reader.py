"""Read a data set: its committed episodes, their rows and frames, its fingerprint."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import zstandard

from lewm.data.schema import Commit, DatasetInfo, read_log
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
        commit = self.episodes[episode]
        if self.info.columns[name].codec != "raw":
            rows = np.arange(commit.rows[name][1] - commit.rows[name][0])
            return self.frames(name, np.full(len(rows), episode), rows)
        first, last = commit.rows[name]
        return np.array(self._rows(name, commit.shard)[first:last])

    def gather(self, name: str, episodes: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Rows of a raw column: `episodes` and `rows` (same shape (...)) -> (..., *shape)."""
        column = self.info.columns[name]
        out = np.empty((episodes.size, *column.shape), column.dtype)
        for k, (episode, row) in enumerate(zip(episodes.flat, rows.flat, strict=True)):
            commit = self.episodes[episode]
            out[k] = self._rows(name, commit.shard)[commit.rows[name][0] + row]
        return out.reshape(*episodes.shape, *column.shape)

    def frames(self, name: str, episodes: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Frames of a compressed column: `episodes` and `rows` (N,) -> (N, *shape)."""
        column = self.info.columns[name]
        out = np.empty((len(episodes), column.row_bytes), np.uint8)
        for k, (episode, row) in enumerate(zip(episodes, rows, strict=True)):
            commit = self.episodes[episode]
            ends = self._open(commit.shard, f"{name}.idx")
            index = commit.rows[name][0] + row
            begin = commit.bytes[name][0] if row == 0 else int(ends[index - 1])
            data = self._open(commit.shard, f"{name}.bin")[begin : int(ends[index])]
            try:
                out[k] = np.frombuffer(self._decompressor.decompress(data), np.uint8)
            except (zstandard.ZstdError, ValueError):
                raise InputError(
                    f"{self.folder}/shards/{commit.shard}/{name}.bin: frame {row}, episode {commit.id}: damaged"
                ) from None
        return out.view(column.dtype).reshape(len(episodes), *column.shape)

    def action_spec(self, episodes: np.ndarray) -> ActionSpec:
        """Bounds as recorded, mean and standard deviation of the actions of these episodes; raw units."""
        actions = np.concatenate([self.column("action", int(episode))[:-1] for episode in episodes])
        spread = np.maximum(actions.std(0), 1e-6)
        return ActionSpec(self.info.action_low, self.info.action_high, actions.mean(0), spread)

    def verify(self) -> Iterator[str]:
        """Check every checksum; yields one line per fault."""
        for commit in self.episodes:
            for name in self.info.columns:
                begin, end = self._span(commit, name)
                if zlib.crc32(self._open(commit.shard, f"{name}.bin", raw=True)[begin:end]) != commit.crc32[name]:
                    yield f"episode {commit.id}: column '{name}' of shard {commit.shard} does not match its checksum"

    def _span(self, commit: Commit, name: str) -> tuple[int, int]:
        """Byte range of an episode in `<name>.bin`."""
        column = self.info.columns[name]
        if column.codec != "raw":
            return tuple(commit.bytes[name])
        first, last = commit.rows[name]
        return first * column.row_bytes, last * column.row_bytes

    def _check_span(self, commit: Commit) -> None:
        for name in self.info.columns:
            needed = [(f"{name}.bin", self._span(commit, name)[1])]
            if self.info.columns[name].codec != "raw":
                needed.append((f"{name}.idx", commit.rows[name][1] * 8))
            for file, size in needed:
                if self._open(commit.shard, file, raw=True).nbytes < size:
                    raise InputError(
                        f"{self.folder}/shards/{commit.shard}/{file} is cut short: episode {commit.id} needs "
                        f"{size} bytes; restore the file, or delete the set and collect again"
                    )

    def _rows(self, name: str, shard: str) -> np.ndarray:
        key = (shard, f"{name} rows")
        if key not in self._files:
            column = self.info.columns[name]
            data = self._open(shard, f"{name}.bin", raw=True)
            whole = data[: len(data) // column.row_bytes * column.row_bytes]
            self._files[key] = whole.view(column.dtype).reshape(-1, *column.shape)
        return self._files[key]

    def _open(self, shard: str, file: str, raw: bool = False) -> np.ndarray:
        """A memory-mapped file: uint64 for `.idx` unless `raw`, else bytes."""
        key = (shard, file if raw else f"{file} typed")
        if key not in self._files:
            path = self.folder / "shards" / shard / file
            try:
                data = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)
            except FileNotFoundError:
                raise InputError(f"{path} is missing; restore it, or delete the set and collect again") from None
            typed = file.endswith(".idx") and not raw
            self._files[key] = data[: len(data) // 8 * 8].view("<u8") if typed else data
        return self._files[key]
