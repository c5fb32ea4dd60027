"""The layout on disk, its version, and what one committed episode says about itself.

    <name>/
      dataset.json             what this set is (DatasetInfo); written once, by rename
      episodes-<writer>.jsonl  the commit log, one line per episode; readers trust nothing else
      shards/<writer>-<k>/     column files, a new shard near 1 GiB
        action.bin  state.bin  fixed-size rows, C order, little-endian
        pixels.bin  pixels.idx frames compressed one by one; uint64 end offset of each frame

An episode of T environment steps has T+1 rows per column. Row T of `action` is zero and means nothing: validity
is `steps` in the log line, never NaN. Images may be kept every `stride`-th row only (T // stride + 1 frames):

    step    0    1    2    3    4    5    ...  T-1   T
    action  a0   a1   a2   a3   a4   a5        aT-1  (0)     a_t acts between rows t and t+1
    state   s0   s1   s2   s3   s4   s5        sT-1  sT
    pixels  f0                       f1                      with stride 5

Write order: column bytes, one data sync, then the log lines, one sync. Killing the writer at any moment loses at
most the episodes whose lines were not written; the next writer cuts their bytes off.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lewm.types import InputError

FORMAT, VERSION = "lewm-episodes", 1
TEMPORARY = ".dataset.json.tmp"


@dataclass(frozen=True)
class Column:
    """One recorded quantity: dtype and shape of a row, every how many steps it is kept, how it is stored.

    `codec` is `raw` (fixed-size rows) or `zstd:<level>` (each row compressed by itself, for images).
    """

    dtype: str
    shape: tuple[int, ...]
    stride: int = 1
    codec: str = "raw"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        kind, _, level = self.codec.partition(":")
        if self.codec != "raw" and not (kind == "zstd" and level.isdecimal() and 1 <= int(level) <= 22):
            raise InputError(f"column codec must be 'raw' or 'zstd:<level 1 to 22>', got '{self.codec}'")
        try:
            np.dtype(self.dtype)
        except TypeError:
            raise InputError(f"column dtype must be a numpy dtype, got '{self.dtype}'") from None
        if self.stride < 1:
            raise InputError(f"column stride must be at least 1, got {self.stride}")

    @property
    def compressed(self) -> bool:
        """Whether rows are compressed one by one."""
        return self.codec != "raw"

    @property
    def row_bytes(self) -> int:
        """Bytes of one uncompressed row."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def rows(self, steps: int) -> int:
        """Rows an episode of `steps` steps has in this column."""
        return steps // self.stride + 1


@dataclass(frozen=True)
class DatasetInfo:
    """What a data set is, beside its episodes. Everything is plain JSON.

    Attributes:
        columns: name -> Column; `action` is always there.
        action_low, action_high: raw bounds (A,).
        source: how it was made (env, policy, seed, steps): the identity of the work.
        creator: versions and commit, for the record; differences here do not matter.
    """

    columns: Mapping[str, Column]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    source: Mapping[str, Any] = field(default_factory=dict)
    creator: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `json` can write and `from_json` reads back."""
        return json.loads(json.dumps({"format": FORMAT, "version": VERSION, **asdict(self)}))

    @staticmethod
    def read(folder: Path) -> DatasetInfo:
        """Read `dataset.json`; a missing, foreign or newer file is an `InputError`."""
        path = folder / "dataset.json"
        try:
            record = json.loads(path.read_text())
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(
                f"{folder} is not a data set (no dataset.json); make one with `lewm collect`"
            ) from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is damaged: {error}") from None
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise InputError(f"{path} is not of format {FORMAT}; this folder was written by something else")
        if record.get("version") != VERSION:
            raise InputError(
                f"{path} has version {record.get('version')}, this lewm reads version {VERSION}: "
                "install the lewm that wrote it, or collect again"
            )
        try:
            if "action" not in record["columns"]:
                raise InputError(f"{path} is damaged: column action is missing")
            return DatasetInfo(
                {name: Column(**column) for name, column in record["columns"].items()},
                tuple(record["action_low"]),
                tuple(record["action_high"]),
                record["source"],
                record["creator"],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} is damaged: {error!r}") from None

    def write(self, folder: Path) -> None:
        """Write `dataset.json` atomically."""
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"{TEMPORARY}.{os.getpid()}"
        with temporary.open("w") as file:
            json.dump(self.to_json(), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / "dataset.json")


@dataclass(frozen=True)
class Commit:
    """One line of the log: where an episode's rows are, and their checksums.

    Attributes:
        id: the work item that made the episode; order and split depend on it.
        shard: folder below `shards/`.
        steps: T.
        rows: column -> [first, last + 1] row in the shard.
        bytes: compressed column -> [begin, end) in its `.bin`.
        crc32: column -> checksum of the bytes stored in `.bin`, then of the lengths of compressed rows.
        facts: JSON values about the episode.
    """

    id: int
    shard: str
    steps: int
    rows: Mapping[str, list[int]]
    bytes: Mapping[str, list[int]]
    crc32: Mapping[str, int]
    facts: Mapping[str, Any]

    def line(self) -> str:
        """The log line, newline included."""
        return json.dumps(asdict(self), separators=(",", ":")) + "\n"


def checksum(data: bytes | np.ndarray, lengths: np.ndarray | None) -> int:
    """CRC-32 of an episode's stored bytes, then of the lengths (uint64) of its compressed rows if it has any."""
    check = zlib.crc32(data)
    return check if lengths is None else zlib.crc32(lengths.astype("<u8").tobytes(), check)


def read_log(path: Path) -> tuple[list[Commit], int]:
    """Commits of one log and the length in bytes of its intact part (a torn last line is left out)."""
    data = path.read_bytes()
    intact = data.rfind(b"\n") + 1
    commits = []
    for number, line in enumerate(data[:intact].splitlines(), start=1):
        try:
            commits.append(Commit(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise InputError(f"{path} line {number} is not a commit record ({error}); restore the file") from None
    return commits, intact
