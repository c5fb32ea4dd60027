"""Append episodes to a data set; see `schema` for the layout and the write order."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
import zstandard
from filelock import FileLock, Timeout

from lewm.data.schema import TEMPORARY, Commit, DatasetInfo, checksum, read_log
from lewm.types import Episode, InputError

SHARD_BYTES = 1 << 30


class EpisodeWriter:
    """Writes episodes under one writer's name; several names on one folder do not disturb each other.

    Opening an existing set continues it: bytes of uncommitted episodes are cut off. A set of other columns,
    bounds or source is an error and stays untouched.
    """

    def __init__(
        self, folder: Path | str, info: DatasetInfo, *, writer: str = "w0000", shard_bytes: int = SHARD_BYTES
    ) -> None:
        self.folder, self.info, self.writer, self.shard_bytes = Path(folder), info, writer, shard_bytes
        if (self.folder / "dataset.json").exists():
            _check_same(self.folder, DatasetInfo.read(self.folder), info)
        elif self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder} is a file, not a data set; choose another folder")
        elif self.folder.exists() and any(not p.name.startswith(TEMPORARY) for p in self.folder.iterdir()):
            raise InputError(f"{self.folder} exists and is not a data set; choose another folder")
        else:
            info.write(self.folder)
        self._log_path = self.folder / f"episodes-{writer}.jsonl"
        self._lock = FileLock(self.folder / f".{writer}.lock", timeout=0)
        try:
            self._lock.acquire()
        except Timeout:
            raise InputError(f"another process writes into {self.folder} as {writer}; wait for it to end") from None
        commits, intact = read_log(self._log_path) if self._log_path.exists() else ([], 0)
        self._ids = {commit.id for commit in commits}
        self._files: dict[str, IO[bytes]] = {}
        self._shard = int(commits[-1].shard.rsplit("-", 1)[1]) if commits else 0
        self._log = self._log_path.open("ab")
        try:
            self._log.truncate(intact)
            self._open_shard([c for c in commits if c.shard == self._shard_name])
        except BaseException:
            self.close()
            raise

    @property
    def _shard_name(self) -> str:
        return f"{self.writer}-{self._shard}"

    def commit(self, episodes: Sequence[Episode]) -> None:
        """Append episodes as one group: all of them are safe when this returns."""
        self._check_ids(episodes)
        encoded = [self._encode(episode) for episode in episodes]
        records = []
        for episode, columns in zip(episodes, encoded, strict=True):
            if self._size > self.shard_bytes:
                self._sync_columns()
                self._close_shard()
                self._shard += 1
                self._open_shard([])
            records.append(self._append(episode, columns))
        self._sync_columns()
        self._log.write("".join(record.line() for record in records).encode())
        _sync(self._log)
        self._ids |= {record.id for record in records}

    def close(self) -> None:
        """Close all files; committed episodes are already safe."""
        self._close_shard()
        self._log.close()
        self._lock.release()

    def __enter__(self) -> EpisodeWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_ids(self, episodes: Sequence[Episode]) -> None:
        ids = [episode.id for episode in episodes]
        again = sorted({i for i in ids if i in self._ids or ids.count(i) > 1})
        if again:
            raise InputError(f"episode {again[0]} is already in {self.folder}; an id names one work item")

    def _encode(self, episode: Episode) -> dict[str, tuple[bytes, np.ndarray | None]]:
        """Column -> (bytes to store, length of each compressed row or None); rejects what does not fit."""
        if set(episode.columns) != set(self.info.columns):
            raise InputError(
                f"episode {episode.id} has columns {sorted(episode.columns)}, "
                f"this data set has {sorted(self.info.columns)}"
            )
        if episode.steps < 1:
            raise InputError(f"episode {episode.id} has no steps")
        try:
            json.dumps([episode.id, dict(episode.facts)])
        except TypeError as error:
            raise InputError(f"episode {episode.id}: id and facts must be plain JSON values; {error}") from None
        encoded = {}
        for name, column in self.info.columns.items():
            rows = np.asarray(episode.columns[name])
            if name == "action":
                rows = np.concatenate([rows, np.zeros_like(rows[:1])])
            expected = (column.rows(episode.steps), *column.shape)
            if rows.shape != expected or rows.dtype != np.dtype(column.dtype):
                raise InputError(
                    f"episode {episode.id}, column '{name}': expected {column.dtype} {expected}, "
                    f"got {rows.dtype} {rows.shape}"
                )
            if rows.dtype.kind == "f" and not np.isfinite(rows).all():
                raise InputError(f"episode {episode.id}, column '{name}' holds NaN or infinity")
            rows = np.ascontiguousarray(rows)
            if not column.compressed:
                encoded[name] = (rows.tobytes(), None)
            else:
                compressor = zstandard.ZstdCompressor(level=int(column.codec.split(":")[1]))
                frames = [compressor.compress(row) for row in rows]
                encoded[name] = (b"".join(frames), np.array([len(frame) for frame in frames], np.uint64))
        return encoded

    def _append(self, episode: Episode, encoded: dict[str, tuple[bytes, np.ndarray | None]]) -> Commit:
        rows, spans, checks = {}, {}, {}
        for name, (data, lengths) in encoded.items():
            first = self._rows[name]
            count = self.info.columns[name].rows(episode.steps)
            if lengths is not None:
                begin = self._bytes[name]
                self._files[f"{name}.idx"].write((begin + np.cumsum(lengths)).astype("<u8").tobytes())
                spans[name] = [begin, begin + len(data)]
            self._files[f"{name}.bin"].write(data)
            self._rows[name] += count
            self._bytes[name] += len(data)
            rows[name] = [first, first + count]
            checks[name] = checksum(data, lengths)
        return Commit(episode.id, self._shard_name, episode.steps, rows, spans, checks, dict(episode.facts))

    @property
    def _size(self) -> int:
        return sum(self._bytes.values())

    def _open_shard(self, commits: list[Commit]) -> None:
        """Open column files and cut them to what `commits` (this shard's) account for."""
        folder = self.folder / "shards" / self._shard_name
        folder.mkdir(parents=True, exist_ok=True)
        self._rows = {name: max((c.rows[name][1] for c in commits), default=0) for name in self.info.columns}
        self._bytes, self._files = {}, {}
        for name, column in self.info.columns.items():
            if column.compressed:
                self._bytes[name] = max((c.bytes[name][1] for c in commits), default=0)
            else:
                self._bytes[name] = self._rows[name] * column.row_bytes
            self._cut(folder / f"{name}.bin", self._bytes[name])
            if column.compressed:
                self._cut(folder / f"{name}.idx", self._rows[name] * 8)

    def _cut(self, path: Path, size: int) -> None:
        file = self._files[path.name] = path.open("ab")
        if file.tell() < size:
            raise InputError(f"{path} has {file.tell()} bytes, its committed episodes need {size}; restore it")
        file.truncate(size)

    def _sync_columns(self) -> None:
        for file in self._files.values():
            _sync(file)

    def _close_shard(self) -> None:
        for file in self._files.values():
            file.close()


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _check_same(folder: Path, have: DatasetInfo, want: DatasetInfo) -> None:
    old, new = have.to_json(), want.to_json()
    for key in ("columns", "action_low", "action_high", "source"):
        if old[key] != new[key]:
            raise InputError(
                f"{folder} holds another data set ({key} is {_brief(old[key])}, now {_brief(new[key])}); "
                "choose another out=..., or delete that folder"
            )


def _brief(value: object) -> str:
    text = str(value)
    return text if len(text) < 160 else text[:157] + "..."
