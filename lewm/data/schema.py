"""The layout on disk, its version, and what a data set says about itself.

    <name>/
      dataset.json             what this set is (DatasetInfo); written once, by rename, with its own checksum
      episodes-<writer>.jsonl  the commit log, one line per episode (`log.py`); readers trust nothing else
      shards/<writer>-<k>/     column files, a new shard near 1 GiB
        action.bin  state.bin  fixed-size rows, C order, little-endian
        pixels.bin  pixels.idx rows encoded one by one; for each its end offset and its CRC-32, both uint64
      index.npz                a cache of the logs of a large set; may be deleted at any time

An episode of T environment steps has T+1 rows per column. Row T of a transition column (`action`, `reward`) is zero
and means nothing: validity is `steps` in the log line, never NaN. Images may be kept every `stride`-th row only
(T // stride + 1 frames):

    step    0    1    2    3    4    5    ...  T-1   T
    action  a0   a1   a2   a3   a4   a5        aT-1  (0)     a_t acts between rows t and t+1
    reward  r0   r1   r2   r3   r4   r5        rT-1  (0)     r_t came of a_t
    state   s0   s1   s2   s3   s4   s5        sT-1  sT
    pixels  f0                       f1                      with stride 5

Write order: column bytes, one data sync, then the log lines, one sync. Killing the writer at any moment loses at
most the episodes whose lines were not written; the next writer cuts their bytes off.
"""

from __future__ import annotations

import json
import os
import re
import threading
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lewm.types import InputError

INDEX_ROW = 16  # bytes of a row of an `.idx` file
FORMAT, VERSION = "lewm-episodes", 2
TEMPORARY = ".dataset.json.tmp"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}  # Windows
CODECS = "'raw', 'zstd:<level 1 to 22>' or 'jpeg:<quality 1 to 100>'"


@dataclass(frozen=True)
class Column:
    """One recorded quantity: dtype and shape of a row, every how many steps it is kept, how it is stored.

    `codec` is `raw` (fixed-size rows), `zstd:<level>` (each row compressed by itself, lossless, for rendered
    images) or `jpeg:<quality>` (lossy, for cameras). A `transition` column (`action`, `reward`, `terminated`)
    belongs to the steps between observations: T rows per episode, not T+1.
    """

    dtype: str
    shape: tuple[int, ...]
    stride: int = 1
    codec: str = "raw"
    transition: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        kind, _, level = self.codec.partition(":")
        top = {"zstd": 22, "jpeg": 100}.get(kind, 0)
        if self.codec != "raw" and not (level.isdecimal() and 1 <= int(level) <= top):
            raise InputError(f"column codec must be {CODECS}, got '{self.codec}'")
        try:
            dtype = np.dtype(self.dtype)
        except TypeError:
            raise InputError(f"column dtype must be a numpy dtype, got '{self.dtype}'") from None
        if dtype.kind not in "biuf":
            raise InputError(f"column dtype must be boolean, integer or float, got '{self.dtype}'")
        object.__setattr__(self, "dtype", dtype.newbyteorder("<").name)
        if kind == "jpeg" and not (self.image and self.shape[2] in (1, 3)):
            raise InputError(f"codec jpeg needs uint8 rows (h, w, 1 or 3), got {self.dtype} {self.shape}")
        if self.stride < 1 or min(self.shape, default=1) < 1:
            raise InputError(f"column stride and sizes must be at least 1, got {self.stride} and {self.shape}")
        if self.transition and self.stride != 1:
            raise InputError(f"a transition column is kept at every step, got stride {self.stride}")

    @property
    def compressed(self) -> bool:
        """Whether rows are encoded one by one and so differ in length."""
        return self.codec != "raw"

    @property
    def lossless(self) -> bool:
        """Whether rows come back as they were given."""
        return not self.codec.startswith("jpeg")

    @property
    def image(self) -> bool:
        """Whether rows are images: uint8 (h, w, C) with C of 1, 3 or 4."""
        return self.dtype == "uint8" and len(self.shape) == 3 and self.shape[2] in (1, 3, 4)

    @property
    def row_bytes(self) -> int:
        """Bytes of one decoded row."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def rows(self, steps: int) -> int:
        """Rows an episode of `steps` steps has in this column."""
        return steps // self.stride + 1


@dataclass(frozen=True)
class DatasetInfo:
    """What a data set is, beside its episodes. Everything is plain JSON.

    Attributes:
        columns: name -> Column; `action` (floats, one axis, a transition) is always there.
        action_low, action_high: raw bounds (A,).
        source: how it was made (environment, render settings, policy, seed, steps): the identity of the work.
        creator: versions and commit, for the record; differences here do not matter.
    """

    columns: Mapping[str, Column]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    source: Mapping[str, Any] = field(default_factory=dict)
    creator: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.columns:
            if not NAME.fullmatch(name) or name.partition(".")[0].lower() in RESERVED:
                raise InputError(f"a column's name may hold letters, digits and _ . -, got '{name}'")
        if len({name.casefold() for name in self.columns}) < len(self.columns):
            raise InputError(
                f"columns must differ in more than case, their files would not: {sorted(self.columns)}"
            )
        action = self.columns.get("action")
        bounds = len(self.action_low), len(self.action_high)
        if action is None or np.dtype(action.dtype).kind != "f" or (*action.shape, *action.shape) != bounds:
            raise InputError(
                f"a data set needs a column 'action' of floats (A,) and A bounds each way, got {action}, {bounds}"
            )
        low, high = (np.array(bound, np.float64) for bound in (self.action_low, self.action_high))
        if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
            raise InputError(f"action bounds must be finite with low < high, got {low} and {high}")
        object.__setattr__(self, "action_low", tuple(low.tolist()))
        object.__setattr__(self, "action_high", tuple(high.tolist()))
        try:
            json.dumps([self.source, self.creator], allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"source and creator of a data set must be plain JSON values; {error}") from None
        if not action.transition:  # an action never belongs to an observation
            columns = {**self.columns, "action": Column(**{**asdict(action), "transition": True})}
            object.__setattr__(self, "columns", columns)

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `json` can write and `read` takes back."""
        return json.loads(json.dumps({"format": FORMAT, "version": VERSION, **asdict(self)}))

    @staticmethod
    def read(folder: Path) -> DatasetInfo:
        """Read `dataset.json`; a missing, damaged, foreign or other version's file is an `InputError`."""
        path = folder / "dataset.json"
        try:
            record = json.loads(path.read_text())
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(
                f"{folder} is not a data set (no dataset.json); make one with `lewm collect`, or bring one over "
                "with `lewm data convert`"
            ) from None
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InputError(f"{path} is damaged: {error}") from None
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise InputError(f"{path} is not of format {FORMAT}; this folder was written by something else")
        if record.get("version") != VERSION:
            raise InputError(
                f"{path} has version {record.get('version')}, this lewm reads version {VERSION}: "
                "install the lewm that wrote it, or collect again"
            )
        if record.pop("crc32", None) != _checksum(record):
            raise InputError(f"{path} is damaged: it does not match its own checksum; restore it from a copy")
        try:
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
        """Write `dataset.json` atomically, unless it is there: look afterwards whose it is."""
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"{TEMPORARY}.{os.getpid()}.{threading.get_ident()}"
        record = self.to_json()
        with temporary.open("w") as file:
            json.dump({**record, "crc32": _checksum(record)}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, folder / "dataset.json")  # unlike a rename, it never replaces another writer's file
        except FileExistsError:
            return
        except OSError:  # a file system without links
            temporary.replace(folder / "dataset.json")
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(folder)


def _checksum(record: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def sync_folder(folder: Path) -> None:
    """Make names in a folder survive a power cut, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
