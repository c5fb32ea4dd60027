"""All commit lines of a set as arrays: what a reader knows of its episodes, without an object for each."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lewm.data.log import Commit, damaged_line, log_lines, log_paths

CACHED_FROM = 20_000  # episodes; a smaller set's log is parsed as fast as a cache is read
PLACE = np.dtype([("row", "<i8"), ("begin", "<i8"), ("end", "<i8"), ("crc32", "<u4"), ("content", "<u8")])


@dataclass(frozen=True)
class Table:
    """All committed episodes of a set as arrays, ordered by id; nothing per episode is a Python object.

    Attributes:
        ids, steps: (E,).
        shards: names; `shard` (E,) indexes them.
        places: column -> structured array (E,) of `PLACE`.
        logs: names of the log files; `log`, `offset` (E,) say where an episode's line begins.
    """

    ids: np.ndarray
    steps: np.ndarray
    shards: list[str]
    shard: np.ndarray
    places: Mapping[str, np.ndarray]
    logs: list[str]
    log: np.ndarray
    offset: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, positions: np.ndarray) -> Table:
        """The episodes at these positions."""
        some = {name: getattr(self, name)[positions] for name in ("ids", "steps", "shard", "log", "offset")}
        return replace(self, **some, places={name: place[positions] for name, place in self.places.items()})

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        arrays = (self.ids, self.steps, self.shard, self.log, self.offset, *self.places.values())
        return sum(array.nbytes for array in arrays)


def read_table(folder: Path, columns: Sequence[str]) -> tuple[Table, list[str]]:
    """Parse all logs, or take the cache that was made of the same bytes.

    Returns:
        The table of intact lines, first of each id; and a sentence for every damaged line and repeated id.
    """
    paths = log_paths(folder)
    scans = [_scan(path) for path in paths]
    key = json.dumps([[path.name, *scan] for path, scan in zip(paths, scans, strict=True)])
    cached = _read_cache(folder / "index.npz", key, columns)
    if cached is not None:
        return cached, []
    table, faults = _parse(paths, scans, columns)
    if len(table) >= CACHED_FROM and not faults:
        _write_cache(folder / "index.npz", key, table)
    return table, faults


def _scan(path: Path) -> tuple[int, int, int]:
    """Size, CRC-32 and number of lines of a log."""
    size = check = lines = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            size, check, lines = size + len(chunk), zlib.crc32(chunk, check), lines + chunk.count(b"\n")
    return size, check, lines


def _parse(
    paths: Sequence[Path], scans: Sequence[tuple[int, int, int]], columns: Sequence[str]
) -> tuple[Table, list[str]]:
    """The logs as they were scanned; what writers append meanwhile is left for later."""
    faults: list[str] = []
    most = sum(lines for _, _, lines in scans)
    head = np.empty((most, 5), np.int64)  # id, steps, shard, log, offset
    places = {name: np.empty(most, PLACE) for name in columns}
    shards: dict[str, int] = {}
    found = 0
    for number, path in enumerate(paths):
        offset = 0
        for count, line in enumerate(log_lines(path), start=1):
            if offset + len(line) > scans[number][0]:
                break
            try:
                commit = Commit.parse(line)
                if commit.columns.keys() != places.keys():
                    raise ValueError(f"it names columns {sorted(commit.columns)}, the set has {sorted(places)}")
                for name, place in places.items():
                    *numbers, content = commit.columns[name]
                    place[found] = (*numbers, int(content, 16))
                shard = shards.setdefault(commit.shard, len(shards))
                head[found] = commit.id, commit.steps, shard, number, offset
            except (ValueError, TypeError, OverflowError) as error:
                faults.append(damaged_line(path, count, line, ValueError(str(error))))
            else:
                found += 1
            offset += len(line)
    order = np.argsort(head[:found, 0], kind="stable")
    head = head[order]
    logs = [path.name for path in paths]
    table = Table(
        head[:, 0].copy(),
        head[:, 1].astype(np.int32),
        list(shards),
        head[:, 2].astype(np.int32),
        {name: place[order] for name, place in places.items()},
        logs,
        head[:, 3].astype(np.int32),
        head[:, 4].copy(),
    )
    again = np.flatnonzero(np.diff(table.ids, prepend=-1) == 0)
    for k in again:
        if not _same(table, k - 1, k):  # else one work item was done twice, with one outcome
            names = " and ".join(logs[table.log[j]] for j in (k - 1, k))
            faults.append(
                f"{paths[0].parent} holds two different episodes {table.ids[k]} ({names}); keep the first of them "
                "with `lewm data convert --skip-damaged`"
            )
    return (table.take(np.setdiff1d(np.arange(found), again)) if len(again) else table), faults


def _same(table: Table, i: int, j: int) -> bool:
    """Whether two entries hold the same content."""
    contents = [place["content"] for place in table.places.values()]
    return bool(table.steps[i] == table.steps[j]) and all(content[i] == content[j] for content in contents)


def _write_cache(path: Path, key: str, table: Table) -> None:
    arrays = {f"place.{name}": place for name, place in table.places.items()}
    arrays |= {name: getattr(table, name) for name in ("ids", "steps", "shard", "log", "offset")}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            meta = json.dumps([key, table.shards, table.logs, _arrays_checksum(arrays)])
            np.savez(file, meta=np.array(meta), **arrays)
        temporary.replace(path)
    except OSError:  # a read-only or full disk: a cache can wait
        with suppress(OSError):  # read-only again
            temporary.unlink(missing_ok=True)


def _arrays_checksum(arrays: Mapping[str, np.ndarray]) -> int:
    """Of everything about them: a zip's own CRC is not looked at where a damaged header makes an array shorter."""
    check = 0
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        check = zlib.crc32(array.view(np.uint8), zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), check))
    return check


def _read_cache(path: Path, key: str, columns: Sequence[str]) -> Table | None:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as cache:  # given a path, it leaks the file
            found, shards, logs, check = json.loads(str(cache["meta"]))
            if found != key:
                return None
            arrays = {name: cache[name] for name in cache.files if name != "meta"}
            if _arrays_checksum(arrays) != check:
                return None
            places = {name: arrays[f"place.{name}"] for name in columns}
            ids, steps, shard, log, offset = (arrays[n] for n in ("ids", "steps", "shard", "log", "offset"))
    except Exception:  # zipfile, numpy and json each raise their own for a damaged file; the logs have it all
        return None
    return Table(ids, steps, shards, shard, places, logs, log, offset)
