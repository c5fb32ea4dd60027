"""Append episodes to a data set; see `schema` for the layout and the write order."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any
from weakref import WeakSet

import numpy as np
from filelock import FileLock, Timeout

from lewm.data.log import Commit, parse_log
from lewm.data.recording import Recording
from lewm.data.schema import NAME, TEMPORARY, DatasetInfo, sync_folder
from lewm.data.shard import Mark, ShardFiles, write_all
from lewm.types import Episode, InputError

SHARD_BYTES = 1 << 30
IN_FLIGHT = 256


class EpisodeWriter:
    """Writes episodes under one writer's name; several names on one folder do not disturb each other.

    Opening an existing set continues it: bytes of uncommitted episodes are cut off. A set of other columns,
    bounds or source is an error and stays untouched.

        with EpisodeWriter("data/arm", info) as writer:
            episode = writer.begin(7, {"operator": "ann"})
            episode.add(pixels=camera.read(), state=arm.state())
            for action in ...:
                episode.add(action=action)
                episode.add(pixels=camera.read(), state=arm.state())
            writer.commit([episode])

    Raises:
        InputError: what does not fit, named; the set is as it was before the call.
        OSError: the disk is full or fails; the group of episodes is taken back, everything before it is safe.
    """

    def __init__(
        self, folder: Path | str, info: DatasetInfo, *, writer: str = "w0000", shard_bytes: int = SHARD_BYTES
    ) -> None:
        self.folder, self.info, self.writer, self.shard_bytes = Path(folder), info, writer, shard_bytes
        if not NAME.fullmatch(writer):
            raise InputError(f"a writer's name may hold letters, digits and _ . -, got '{writer}'")
        claim(self.folder, info)
        self._log_path = self.folder / f"episodes-{writer}.jsonl"
        self._lock = FileLock(self.folder / f".{writer}.lock", timeout=0, thread_local=False)
        self._undo: tuple[Mark, int] | None = None
        self._ids: set[int] = set()
        self._flying: WeakSet[Recording] = WeakSet()
        with ExitStack() as opened:  # closed again, all of it, where any of it fails
            try:
                opened.enter_context(self._lock.acquire())
            except Timeout:
                raise InputError(
                    f"another process writes into {self.folder} as {writer}; wait for it to end"
                ) from None
            self._open(opened)
            opened.pop_all()

    def _open(self, opened: ExitStack) -> None:
        """Take up the log and the last shard where the committed episodes end."""
        known = self._log_path.exists()
        commits, intact = self._read_log() if known else ([], 0)
        self._shard = int(commits[-1].shard.rsplit("-", 1)[1]) if commits else 0
        there = [path.name.rsplit("-", 1) for path in self.folder.glob("shards/*-*")]
        numbers = [int(number) for writer, number in there if writer == self.writer and number.isdecimal()]
        if max(numbers, default=-1) > (self._shard + 1 if known else -1):
            raise InputError(
                f"{self._log_path} {'has lost lines' if known else 'is missing'}, this writer's shards hold "
                "more: restore it, or write under another name; to go on would erase them"
            )
        self._log = opened.enter_context(self._log_path.open("ab", buffering=0))
        self._files = self._open_shard(self._shard, commits)
        opened.callback(self._files.close)
        sync_folder(self.folder)
        self._log.truncate(intact)
        self._log.seek(intact)  # else `tell` would still say where the torn line ended

    def _read_log(self) -> tuple[list[Commit], int]:
        """Commits of this writer's last shard, and the length of the intact part; notes all ids."""
        last: list[Commit] = []
        commits, self._ids, intact = parse_log(self._log_path), set(), 0
        for commit, length in commits:
            if last and last[-1].shard != commit.shard:
                last = []
            last.append(commit)
            self._ids.add(commit.id)
            intact += length
        return last, intact

    @property
    def _shard_name(self) -> str:
        return f"{self.writer}-{self._shard}"

    def begin(self, id: int, facts: Mapping[str, Any] | None = None) -> Recording:
        """An episode to be recorded row by row; at most 256 may be in flight."""
        if len(self._flying) >= IN_FLIGHT:
            raise InputError(f"{IN_FLIGHT} episodes are being recorded at once; commit or drop some of them first")
        recording = Recording(id, self.info.columns, facts)
        self._flying.add(recording)
        return recording

    def commit(self, episodes: Sequence[Episode | Recording]) -> None:
        """Append episodes in groups of at most 256: all are safe when this returns; a group is there whole or
        not."""
        recordings = [self._recording(episode) for episode in episodes]
        self._check_ids([recording.id for recording in recordings])
        for recording in recordings:
            recording.finish()  # an unfit one must not be found when the groups before it are committed
        for first in range(0, len(recordings), IN_FLIGHT):
            self._commit_group(recordings[first : first + IN_FLIGHT])

    def _recording(self, episode: Episode | Recording) -> Recording:
        if isinstance(episode, Recording):
            if episode.columns != self.info.columns:
                raise InputError(
                    f"episode {episode.id} was begun by a writer of other columns; begin it with this one"
                )
            return episode
        if set(episode.columns) != set(self.info.columns):
            raise InputError(
                f"episode {episode.id} has columns {sorted(episode.columns)}, "
                f"this data set has {sorted(self.info.columns)}"
            )
        recording = Recording(episode.id, self.info.columns, episode.facts)
        for name, rows in episode.columns.items():
            recording.extend(name, np.asarray(rows))
        return recording

    def _check_ids(self, ids: Sequence[int]) -> None:
        again = sorted(i for i, count in Counter(ids).items() if i in self._ids or count > 1)
        if again:
            raise InputError(f"episode {again[0]} is already in {self.folder}; an id names one work item")

    def _commit_group(self, recordings: Sequence[Recording]) -> None:
        """Column bytes, one data sync, then the lines, one sync; whatever fails is taken back."""
        finished = [recording.finish() for recording in recordings]
        commits = []
        try:
            self._take_back()
            if self._files.size > self.shard_bytes:  # between groups only: a crash leaves bytes in one shard
                self._rotate()
            self._undo = self._files.mark(), self._log.tell()
            for recording, columns in zip(recordings, finished, strict=True):
                places = {name: self._files.append(name, *rows.stored()) for name, rows in columns.items()}
                commits.append(Commit(recording.id, self._shard_name, recording.steps, places, recording.facts))
            self._files.sync()
            write_all(self._log, "".join(commit.line() for commit in commits).encode())
            os.fsync(self._log.fileno())
            self._undo = None
        except BaseException as error:
            with suppress(OSError):  # what fails here too is tried again before the next commit
                self._take_back()
            if isinstance(error, OSError):
                raise self._storage_error(error, recordings) from error
            raise
        self._ids |= {commit.id for commit in commits}
        for recording in recordings:
            self._flying.discard(recording)

    def _take_back(self) -> None:
        """Cut off what a failed commit left."""
        if self._undo is not None:
            mark, log_end = self._undo
            self._files.cut(mark)
            self._log.truncate(log_end)
            self._log.seek(log_end)
            self._undo = None

    def _storage_error(self, error: OSError, recordings: Sequence[Recording]) -> OSError:
        ids = [recording.id for recording in recordings]
        what = f"{error.strerror} while writing episodes {min(ids)} to {max(ids)}: "
        what += "they were taken back, the rest is safe"
        return OSError(error.errno, what, error.filename or str(self.folder))  # a failed sync names no file

    def _rotate(self) -> None:
        self._files.sync()
        fresh = self._open_shard(self._shard + 1, [])
        self._files.close()
        self._files, self._shard = fresh, self._shard + 1

    def _open_shard(self, number: int, commits: Sequence[Commit]) -> ShardFiles:
        return ShardFiles(self.folder / "shards" / f"{self.writer}-{number}", self.info.columns, commits)

    def close(self) -> None:
        """Close all files; committed episodes are already safe."""
        self._files.close()
        self._log.close()
        self._lock.release()

    def __enter__(self) -> EpisodeWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def claim(folder: Path, info: DatasetInfo) -> None:
    """Make the folder a data set, or see that it is this one; anything else is an error and stays untouched."""
    inside = [path.name for path in folder.iterdir()] if folder.is_dir() else []  # before the look at dataset.json:
    if (folder / "dataset.json").exists():  # another writer may be making this set, and makes that file first
        old, new = DatasetInfo.read(folder).to_json(), info.to_json()
        for key in ("columns", "action_low", "action_high", "source"):
            if old[key] != new[key]:
                where, was, now = _difference(key, old[key], new[key])
                raise InputError(
                    f"{folder} holds another data set ({where} is {_brief(was)}, now {_brief(now)}); "
                    "choose another out=..., or delete that folder"
                )
    elif folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file, not a data set; choose another folder")
    elif any(not name.startswith(TEMPORARY) for name in inside):
        raise InputError(f"{folder} exists and is not a data set; choose another folder")
    else:
        info.write(folder)
        claim(folder, info)  # another writer may have been faster, with another set


def _difference(key: str, old: Any, new: Any) -> tuple[str, Any, Any]:
    """The innermost setting in which two unequal values differ: its name, and both of its values."""
    if isinstance(old, dict) and isinstance(new, dict):
        differing = [name for name in old | new if old.get(name) != new.get(name)]
        return _difference(f"{key}.{differing[0]}", old.get(differing[0]), new.get(differing[0]))
    return key, old, new


def _brief(value: object) -> str:
    text = str(value)
    return text if len(text) < 160 else text[:157] + "..."
