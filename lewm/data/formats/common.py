"""What several formats share: errors, rows to episodes, pixels out of floats, safe tensor files, exports."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lewm.data.schema import Column
from lewm.types import Episode, InputError

if TYPE_CHECKING:
    from lewm.data.formats.base import Tick
    from lewm.data.reader import EpisodeReader

LAST_ROW = "no observation follows an episode's last row: its action is dropped, N rows give N - 1 steps"
PART = ".part"
FINGERPRINT, TRANSITION = "lewm_fingerprint", "lewm_transition"
"""Attributes of our exports: of which episodes they are; what is a transition though the format cannot say so."""
PACKED = 1 << 16  # no compressor makes frames of use this much smaller
SMALL = 1 << 26  # bytes that need no asking


@contextmanager
def guarded(what: str) -> Iterator[None]:
    """Whatever goes wrong with damaged input is an `InputError` that says `what` (file, and episode if of one)."""
    try:
        yield
    except InputError as error:
        if what in str(error):
            raise
        raise InputError(f"{what}: {error}") from None
    except Exception as error:  # h5py, pyarrow, pylance and PyAV raise nearly anything, MemoryError included
        raise InputError(f"{what} cannot be read ({error!r}); copy or download it again") from error


def check_size(wanted: int, where: str, stored: int | None = None) -> None:
    """Refuse to read `wanted` bytes that `stored` bytes or memory cannot hold: a header may claim anything."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # free memory would leave out the cache
    except (AttributeError, ValueError, OSError):
        memory = wanted
    if wanted > memory:
        raise InputError(
            f"{where} claims {wanted} bytes to be read at once, this machine's memory has {memory}; copy the file "
            "again, or split its episodes"
        )
    if stored is not None:
        check_stored(wanted, where, stored)


def check_stored(claimed: int, where: str, stored: int) -> None:
    """Refuse what `stored` bytes cannot hold however well they are compressed."""
    if claimed > max(stored * PACKED, SMALL):
        raise InputError(f"{where} claims {claimed} bytes, {stored} are stored; it is damaged: copy it again")


def episode_of_rows(
    number: int,
    rows: Mapping[str, np.ndarray],
    columns: Mapping[str, Column],
    place: str,
    facts: Mapping[str, Any] | None = None,
) -> Episode:
    """N rows of (observation, action) as an episode of N - 1 steps; see LAST_ROW."""
    count = len(rows["action"])
    if count < 2:
        raise InputError(
            f"{place}, episode {number}: {count} row(s) make no step, an episode needs 2 observations or more; "
            "take this episode out of the data set and convert again"
        )
    kept = {}
    for name, column in columns.items():
        values = np.asarray(rows[name])
        if values.shape != (count, *column.shape) or values.dtype != np.dtype(column.dtype):
            raise InputError(
                f"{place}, episode {number}, '{name}': got {values.dtype} {values.shape}, expected {column.dtype} "
                f"{(count, *column.shape)} as elsewhere in the set; mend or leave out that episode"
            )
        kept[name] = values[:-1] if column.transition else values
    return Episode(number, kept, dict(facts or {}))


def to_uint8(frames: np.ndarray, place: str) -> np.ndarray:
    """Frames as uint8; floats only where each is a whole number of 0 to 255, so that nothing is lost."""
    if frames.dtype == np.uint8:
        return frames
    with np.errstate(invalid="ignore"):
        whole = frames.astype(np.uint8)
    if not np.array_equal(whole, frames):
        raise InputError(
            f"{place}: frames are {frames.dtype} from {frames.min()} to {frames.max()} and not whole numbers of "
            "0 to 255; store them as uint8 (h, w, C) first"
        )
    return whole


def load_tensors(path: Path, stand_ins: Mapping[str, Any] | None = None) -> Any:
    """What `torch.save` wrote, tensors only (nothing in the file is run), memory-mapped where the file allows it.

    `stand_ins` maps the full names of classes and functions a file may mention to ours, which are called instead.

    Raises:
        InputError: missing, damaged, or holding anything but tensors and plain values.
    """
    import torch

    if not path.is_file():
        raise InputError(f"{path} is missing; restore the file")
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"  # older files are one pickle and cannot be mapped
    try:
        with torch.serialization.safe_globals([(ours, name) for name, ours in (stand_ins or {}).items()]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except (
        Exception
    ) as error:  # torch has no error of its own: RuntimeError, UnpicklingError, EOFError, KeyError, ...
        reason = str(error).split("\n")[0][:200]
        raise InputError(
            f"{path} cannot be loaded safely: it is damaged, or holds more than tensors ({reason}); "
            "restore it, or save its tensors again with torch.save"
        ) from None


def replace_file(part: Path) -> None:
    """A finished `NAME.part` becomes `NAME`."""
    part.replace(part.with_name(part.name.removesuffix(PART)))


def read_json(path: Path) -> dict[str, Any]:
    """An object out of a JSON file."""
    with guarded(str(path)):
        record = json.loads(path.read_text())
    if not isinstance(record, dict):
        raise InputError(f"{path} is damaged: expected an object, got {type(record).__name__}; restore the file")
    return record


def write_json(path: Path, record: Any) -> None:
    """Write JSON so that `path` is whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + PART)
    part.write_text(json.dumps(record, indent=1) + "\n")
    replace_file(part)


def check_finished(reader: EpisodeReader, out: Path, found: object, tick: Tick) -> None:
    """`out` is there, in one piece, and says of itself to be of the episodes `found`: they must be these."""
    if found != reader.fingerprint:
        raise InputError(f"{out} exists and is not an export of this data set; choose another name or delete it")
    tick(len(reader))


def claim(out: Path, marker: str, reader: EpisodeReader, **options: Any) -> None:
    """Begin an export into `out`, or continue one of the same episodes with the same options.

    `marker` is a file below `out` that says what is being exported, and how its columns map back.

    Raises:
        InputError: `out` holds something else.
    """
    info = reader.info.to_json()
    record = {
        "fingerprint": reader.fingerprint,
        "options": options,
        **{key: info[key] for key in ("columns", "action_low", "action_high", "source")},
    }
    path = out / marker
    if path.is_file():
        try:
            have = json.loads(path.read_text())
        except ValueError as error:
            raise InputError(f"{path} is damaged ({error}); delete {out} and export again") from None
        if have != json.loads(json.dumps(record)):
            raise InputError(
                f"{out} holds an export of other episodes or options; choose another folder, or delete it"
            )
    elif out.exists() and not (
        out.is_dir() and all(path.is_dir() or path.suffix == PART for path in out.rglob("*"))
    ):
        raise InputError(f"{out} exists and is not an export begun here; choose another folder, or delete it")
    else:
        write_json(path, record)
