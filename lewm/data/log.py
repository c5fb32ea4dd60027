"""The commit log: one line of JSON per episode, each with its own checksum.

    {"id":12,"shard":"w0000-0","steps":100,
     "columns":{"pixels":[1212,480210,501220,2774382913,"9c0f3a51b2e4d687"],"action":[1212,9696,10504,...]},
     "facts":{"seed":[0,12]},"line":1583072934}

Per column: first row in the shard, byte range in its `.bin`, CRC-32 of what is stored (the bytes, then the index of
encoded rows), and a digest of the content, made of the CRC-32 of each decoded row, so that it does not depend on
the compressor (of each stored row where the codec is lossy). `line` is the CRC-32 of the line before `,"line":`.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lewm.data.schema import NAME
from lewm.types import InputError

Place = tuple[int, int, int, int, str]


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
            commit = Commit(**json.loads(body + b"}"))
            sane = type(commit.id) is int and 0 <= commit.id < 2**63 and 1 <= commit.steps < 2**31
            sane = sane and NAME.fullmatch(commit.shard) and commit.shard.rpartition("-")[2].isdecimal()
            sane = sane and all(row >= 0 and 0 <= a <= b for row, a, b, _, _ in commit.columns.values())
        except (TypeError, AttributeError) as error:
            raise ValueError(str(error)) from None
        if not sane:
            raise ValueError("not a commit line of this format")
        return commit


def checksum(data: bytes | memoryview | np.ndarray, index: np.ndarray | None) -> int:
    """CRC-32 of an episode's stored bytes, then of its index (n, 2), uint64: length and CRC-32 of each encoded
    row."""
    check = zlib.crc32(data)
    return check if index is None else zlib.crc32(index.astype("<u8").tobytes(), check)


def log_paths(folder: Path) -> list[Path]:
    """The logs of a set, one per writer."""
    return sorted(folder.glob("episodes-*.jsonl"))


def log_lines(path: Path) -> Iterator[bytes]:
    """Lines of a log with their ends, less a torn last one: a beginning of a line, as a kill leaves it.

    A whole line and something behind it is not torn, its end is damaged: it is given, and is no commit line.
    """
    with path.open("rb") as file:
        for line in file:
            ends = () if line.endswith(b"\n") else re.finditer(rb',"line":(\d+)}', line)
            damaged = any(e.end() < len(line) and int(e[1]) == zlib.crc32(line[: e.start()]) for e in ends)
            if line.endswith(b"\n") or damaged:
                yield line


def parse_log(path: Path) -> Iterator[tuple[Commit, int]]:
    """Commits of one log and the lengths of their lines, one by one; a torn last line is left out.

    Raises:
        InputError: a line is damaged or foreign.
    """
    for number, line in enumerate(log_lines(path), start=1):
        try:
            yield Commit.parse(line), len(line)
        except ValueError as error:
            raise InputError(damaged_line(path, number, line, error)) from None


def committed_ids(folder: Path) -> set[int]:
    """Ids of all committed episodes of a set, for a collection that goes on; empty where there is no set."""
    return {commit.id for path in log_paths(folder) for commit, _ in parse_log(path)}


def damaged_line(path: Path, number: int, line: bytes, error: ValueError) -> str:
    """What to say of a line that is no commit."""
    guess = line[: line.find(b",")].decode(errors="replace")[:40]
    return (
        f"{path} line {number} ({guess} ...) is damaged or foreign: {error}; restore the file, or read the other "
        "episodes with `lewm data convert --skip-damaged`"
    )
