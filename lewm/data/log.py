"""The commit log: one line of JSON per episode, each with its own checksum; and all of them as arrays.

    {"id":12,"shard":"w0000-0","steps":100,
     "columns":{"pixels":[1212,480210,501220,2774382913,"9c0f3a51b2e4d687"],"action":[1212,9696,10504,...]},
     "facts":{"seed":[0,12]},"line":1583072934}

Per column: first row in the shard, byte range in its `.bin`, CRC-32 of what is stored (the bytes, then the lengths
of encoded rows), and a digest of the content: the rows' own bytes, or for zstd the checksums of the decoded rows,
so that it does not depend on the compressor. `line` is the CRC-32 of the line before `,"line":`.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lewm.types import InputError

CACHED_FROM = 20_000  # episodes; a smaller set's log is parsed as fast as a cache is read
Place = tuple[int, int, int, int, str]
PLACE = np.dtype([("row", "<i8"), ("begin", "<i8"), ("end", "<i8"), ("crc32", "<u4"), ("content", "<u8")])


@dataclass(frozen=True)
class Commit:
    """One line of the log.

    Attributes:
        id: the work item that made the episode; order and split depend on it.
        shard: folder below `shards/`.
        steps: T.
        columns: name -> (first row, begin, end, CRC-32, content digest in hexadecimal).
        facts: JSON values about the episode.
    """

    id: int
    shard: str
    steps: int
    columns: Mapping[str, Place]
    facts: Mapping[str, Any]

    def line(self) -> str:
        """The log line, newline included."""
        record = {"id": self.id, "shard": self.shard, "steps": self.steps}
        body = json.dumps({**record, "columns": self.columns, "facts": self.facts}, separators=(",", ":"))[:-1]
        return f'{body},"line":{zlib.crc32(body.encode())}}}\n'

    @staticmethod
    def parse(line: bytes) -> Commit:
        """Raises ValueError for what is no commit line or does not match its checksum."""
        body, mark, check = line.rpartition(b',"line":')
        if not mark or check not in (b"%d}\n" % (crc := zlib.crc32(body)), b"%d}" % crc):
            raise ValueError("not a commit line, or damaged")
        try:
            return Commit(**json.loads(body + b"}"))
        except TypeError as error:
            raise ValueError(str(error)) from None


def checksum(data: bytes | memoryview | np.ndarray, lengths: np.ndarray | None) -> int:
    """CRC-32 of an episode's stored bytes, then of the lengths (uint64) of its encoded rows if it has any."""
    check = zlib.crc32(data)
    return check if lengths is None else zlib.crc32(lengths.astype("<u8").tobytes(), check)


def log_paths(folder: Path) -> list[Path]:
    """The logs of a set, one per writer."""
    return sorted(folder.glob("episodes-*.jsonl"))


def read_log(path: Path) -> tuple[list[Commit], int]:
    """Commits of one log and the length in bytes of its intact part (a torn last line is left out)."""
    lines, commits = split_lines(path.read_bytes()), []
    for number, line in enumerate(lines, start=1):
        try:
            commits.append(Commit.parse(line))
        except ValueError as error:
            raise InputError(damaged_line(path, number, line, error)) from None
    return commits, sum(map(len, lines))


def split_lines(data: bytes) -> list[bytes]:
    """Lines of a log with their ends, less a torn last one: a beginning of a line, as a kill leaves it.

    A whole line and something behind it is not torn, its end is damaged: it stays, and is no commit line.
    """
    lines = [line + b"\n" for line in data.split(b"\n")]  # and at no \r, as splitlines would
    last = lines.pop()[:-1]
    ends = re.finditer(rb',"line":(\d+)}', last)
    if any(match.end() < len(last) and int(match[1]) == zlib.crc32(last[: match.start()]) for match in ends):
        lines.append(last)
    return lines


def committed_ids(folder: Path) -> set[int]:
    """Ids of all committed episodes of a set, for a collection that goes on; empty where there is no set."""
    return {commit.id for path in log_paths(folder) for commit in read_log(path)[0]}


def damaged_line(path: Path, number: int, line: bytes, error: ValueError) -> str:
    """What to say of a line that is no commit."""
    guess = line[: line.find(b",")].decode(errors="replace")[:40]
    return (
        f"{path} line {number} ({guess} ...) is damaged or foreign: {error}; restore the file, or read the other "
        "episodes with `lewm data convert --skip-damaged`"
    )


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
        places = {name: place[positions] for name, place in self.places.items()}
        parts = (x[positions] for x in (self.shard, self.log, self.offset))
        shard, log, offset = parts
        return Table(self.ids[positions], self.steps[positions], self.shards, shard, places, self.logs, log, offset)

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        arrays = (self.ids, self.steps, self.shard, self.log, self.offset, *self.places.values())
        return sum(array.nbytes for array in arrays)


def read_table(folder: Path, columns: Sequence[str]) -> tuple[Table, list[str]]:
    """Parse all logs, or take the cache that matches their bytes.

    Returns:
        The table of intact lines, first of each id; and a sentence for every damaged line and repeated id.
    """
    paths = log_paths(folder)
    contents = [path.read_bytes() for path in paths]
    key = json.dumps([[p.name, len(c), zlib.crc32(c)] for p, c in zip(paths, contents, strict=True)])
    cached = _read_cache(folder / "index.npz", key, columns)
    if cached is not None:
        return cached, []
    table, faults = _parse(paths, contents, columns)
    if len(table) >= CACHED_FROM and not faults:
        _write_cache(folder / "index.npz", key, table)
    return table, faults


def _parse(paths: list[Path], contents: list[bytes], columns: Sequence[str]) -> tuple[Table, list[str]]:
    faults: list[str] = []
    heads: list[tuple[int, int, int, int, int]] = []  # id, steps, shard, log, offset
    places: dict[str, list[tuple[int, int, int, int, int]]] = {name: [] for name in columns}
    shards: dict[str, int] = {}
    for number, (path, content) in enumerate(zip(paths, contents, strict=True)):
        offset = 0
        for count, line in enumerate(split_lines(content), start=1):
            try:
                commit = Commit.parse(line)
                if commit.columns.keys() != places.keys():
                    raise ValueError(f"it names columns {sorted(commit.columns)}, the set has {sorted(places)}")
                found = {n: (*commit.columns[n][:4], int(commit.columns[n][4], 16)) for n in columns}
            except (ValueError, TypeError, AttributeError) as error:
                faults.append(damaged_line(path, count, line, ValueError(str(error))))
            else:
                shard = shards.setdefault(commit.shard, len(shards))
                heads.append((commit.id, commit.steps, shard, number, offset))
                for name, place in found.items():
                    places[name].append(place)
            offset += len(line)
    head = np.array(heads, np.int64).reshape(-1, 5)
    order = np.argsort(head[:, 0], kind="stable")
    head = head[order]
    repeated = np.concatenate([[False], np.diff(head[:, 0]) == 0]) if len(head) else np.zeros(0, bool)
    names = [path.name for path in paths]
    for k in np.flatnonzero(repeated):
        logs = " and ".join(names[head[j, 3]] for j in (k - 1, k))
        faults.append(f"{paths[0].parent} holds episode {head[k, 0]} twice ({logs}); remove one of the two logs")
    table = Table(
        head[:, 0],
        head[:, 1].astype(np.int32),
        list(shards),
        head[:, 2].astype(np.int32),
        {name: np.array(place, PLACE)[order] for name, place in places.items()},
        names,
        head[:, 3].astype(np.int32),
        head[:, 4],
    )
    return (table.take(np.flatnonzero(~repeated)) if repeated.any() else table), faults


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
