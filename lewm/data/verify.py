"""What is wrong with a data set, and what an interrupted writer left in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lewm.data.log import log_lines, log_paths

if TYPE_CHECKING:
    from lewm.data.reader import EpisodeReader


@dataclass(frozen=True)
class Fault:
    """Something wrong with a set: of an episode (its id), or of a file as a whole (None)."""

    episode: int | None
    text: str


def verify(reader: EpisodeReader, tick: Callable[[int], object]) -> Iterator[Fault]:
    """See `EpisodeReader.verify`."""
    yield from reader.faults
    yield from _strays(reader)
    for position in range(len(reader)):
        for name in reader.info.columns:
            text = reader.check(position, name)
            if text is not None:
                yield Fault(int(reader.ids[position]), text)
        tick(1)


def leftovers(reader: EpisodeReader) -> list[str]:
    """What a killed writer leaves behind, no fault: its next start cuts it off."""
    found = []
    for path in log_paths(reader.folder):
        spare = path.stat().st_size - sum(len(line) for line in log_lines(path))
        if spare:
            found.append(f"{path} ends in a torn line of {spare} bytes")
    for folder, spare in _uncommitted(reader):
        if _being_written(reader, folder):
            found.append(f"{folder} holds {spare} bytes behind its last committed episode")
    return found


def _strays(reader: EpisodeReader) -> Iterator[Fault]:
    """Bytes that no crash explains: of a writer without a log, or in a shard that its writer had finished."""
    logs = {path.name.removeprefix("episodes-").removesuffix(".jsonl") for path in log_paths(reader.folder)}
    for folder, spare in _uncommitted(reader):
        if _writer(folder) not in logs:
            yield Fault(None, f"{folder}: the log of its writer, episodes-{_writer(folder)}.jsonl, is missing")
        elif not _being_written(reader, folder):
            yield Fault(None, f"{folder} holds {spare} bytes that the log of its writer does not account for")


def _uncommitted(reader: EpisodeReader) -> list[tuple[Path, int]]:
    """Shard folders that hold more bytes than were committed, and how many."""
    committed = {reader.shards[k].folder: reader.shards[k].committed_bytes() for k in range(len(reader.shards))}
    found = []
    for folder in sorted(path for path in (reader.folder / "shards").glob("*-*") if path.is_dir()):
        there = sum(path.stat().st_size for path in folder.iterdir() if path.suffix in (".bin", ".idx"))
        spare = there - committed.get(folder, 0)
        if spare > 0:
            found.append((folder, spare))
    return found


def _being_written(reader: EpisodeReader, folder: Path) -> bool:
    """Whether a kill explains it: the shard of its writer's last episode, or the one after."""
    own = [shard for shard in reader.table.shards if shard.rpartition("-")[0] == _writer(folder)]
    last = max((int(shard.rpartition("-")[2]) for shard in own), default=0)
    return int(folder.name.rpartition("-")[2]) in (last, last + 1)


def _writer(folder: Path) -> str:
    return folder.name.rpartition("-")[0]
