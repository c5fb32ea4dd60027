"""Diffusion-policy replay buffers (diffusion_policy/common/replay_buffer.py): a zarr group, or one in a zip file.

    data/img (N, h, w, 3)  data/state (N, 5)  data/action (N, 2)  data/keypoint ...     N rows, episodes end to end
    meta/episode_ends (E,) int64                                                        one past each one's last row

Row t is (observation t, action taken there); an episode's last action has no successor and is dropped: N rows give
N - 1 steps. Push-T's actions are where the pusher shall go, in pixels of 512. Images stored as floats of 0 to 255
become uint8 where that loses nothing. Rows are read an episode at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lewm.data.formats.base import Format, Source
from lewm.data.formats.columns import camera_names, column_of
from lewm.data.formats.common import LAST_ROW, check_size, check_stored, episode_of_rows, guarded, to_uint8
from lewm.data.schema import Column
from lewm.extras import need
from lewm.registry import register
from lewm.types import Episode, InputError

EXTRA = "zarr"
ENDS = "meta/episode_ends"
MAIN_CAMERAS = ("img", "image", "camera_0", "camera0_rgb", "agentview_image")


@register("format", "diffusion_policy")
class DiffusionPolicy(Format):
    """A diffusion-policy replay buffer."""

    name: ClassVar[str] = "diffusion_policy"
    title: ClassVar[str] = "diffusion policy: a .zarr folder or .zarr.zip with data/ and meta/episode_ends"
    extra: ClassVar[str | None] = EXTRA

    @staticmethod
    def detect(path: Path) -> bool:
        """Whether it is a zarr folder with meta/episode_ends, or is called .zarr.zip."""
        try:
            return (path / ENDS).is_dir() if path.is_dir() else path.name.endswith(".zarr.zip") and path.is_file()
        except OSError:
            return False

    @staticmethod
    def open(path: Path) -> ReplayBuffer:
        """Open for streaming, one episode in memory."""
        return ReplayBuffer(path)


class ReplayBuffer(Source):
    """A replay buffer opened for streaming."""

    def __init__(self, path: Path) -> None:
        self.path = path
        zarr = need("zarr", EXTRA)
        try:
            store = zarr.storage.ZipStore(path, mode="r") if path.is_file() else path
            group = zarr.open_group(store, mode="r")
            self._ends = _ends(group[ENDS], path)
            arrays = dict(group["data"].arrays())
        except InputError:
            raise
        except Exception as error:  # zarr passes on whatever its codecs, JSON and file system raise
            raise InputError(
                f"{path} is not a replay buffer, or damaged ({_brief(error)}); copy it again"
            ) from None
        if "action" not in arrays:
            raise InputError(f"{path} has no data/action, only {', '.join(sorted(arrays)) or 'nothing'}")
        rows = arrays["action"].shape[0]
        if not len(self._ends) or (np.diff(self._ends, prepend=0) < 1).any() or self._ends[-1] != rows:
            raise InputError(f"{path}: {ENDS} must ascend to the {rows} rows of data/action; copy it again")
        images = [name for name, array in sorted(arrays.items()) if _is_image(array)]
        cameras = camera_names(images, MAIN_CAMERAS)
        self._arrays: dict[str, Any] = {}
        self.columns: dict[str, Column] = {}
        left_out = {}
        for name, array in sorted(arrays.items()):
            if array.shape[:1] != (rows,):
                raise InputError(
                    f"{path}: data/{name} has shape {array.shape}, data/action {rows} rows; copy it again"
                )
            with guarded(f"{path}, data/{name}"):
                if not self._add(cameras.get(name, name), array, name in images):
                    left_out[name] = f"dtype {array.dtype}, shape {array.shape}"
        if "action" not in self.columns:
            raise InputError(f"{path}: data/action is {left_out['action']}, expected numbers")
        self.about = {
            "format": "diffusion-policy replay buffer",
            "cameras": {ours: name for name, ours in cameras.items()},
            "left_out": left_out,
            "note": LAST_ROW,
        }

    def __len__(self) -> int:
        return len(self._ends)

    def action_bounds(self) -> None:
        """None: the format states none."""

    def actions(self) -> Iterator[np.ndarray]:
        """The actions of each episode, images unread."""
        for number in range(len(self)):
            yield self._rows("action", number)[:-1]

    def episodes(self, first: int = 0) -> Iterator[Episode]:
        """Episodes in the buffer's order."""
        for number in range(first, len(self)):
            with guarded(f"{self.path}, episode {number}"):
                rows = {name: self._rows(name, number) for name in self.columns}
                episode = episode_of_rows(number, rows, self.columns, str(self.path))
            yield episode

    def _add(self, ours: str, array: Any, image: bool) -> bool:
        """Take an array for a column; False if it is not of numbers."""
        dtype = np.dtype(np.uint8) if image else array.dtype
        if ours == "action" and dtype.kind in "biu":
            dtype = np.dtype(np.float32)
        shape = array.shape[1:] or ((1,) if ours == "action" else ())
        column = column_of(dtype, shape, transition=ours == "action")
        if column is None:
            return False
        _check_stored(array, f"{self.path}, {array.name}")
        missing = array.nchunks - array.nchunks_initialized
        if image and missing:  # zarr would read them as black; chunks of zeros alone may be absent elsewhere
            raise InputError(
                f"{self.path}: {missing} of {array.nchunks} chunks of {array.name} are missing; copy it again"
            )
        if self.path.is_dir() and array.metadata.zarr_format == 2:
            _check_blosc(self.path / array.path, array)
        self._arrays[ours], self.columns[ours] = array, column
        return True

    def _rows(self, name: str, number: int) -> np.ndarray:
        begin, end = (int(self._ends[number - 1]) if number else 0), int(self._ends[number])
        array, column = self._arrays[name], self.columns[name]
        place = f"{self.path}, episode {number}, {array.name}"
        check_size((end - begin) * column.row_bytes, place)
        try:
            values = np.asarray(array[begin:end])
        except Exception as error:  # as above
            raise InputError(f"{place}: a chunk is damaged ({_brief(error)}); copy it again") from None
        if column.image:
            return to_uint8(values, place)
        return values.astype(column.dtype, copy=False).reshape(end - begin, *column.shape)


def _ends(array: Any, path: Path) -> np.ndarray:
    """One past each episode's last row (E,)."""
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(
            f"{path}: {ENDS} is {array.dtype} {array.shape}, expected whole numbers (E,); copy it again"
        )
    _check_stored(array, f"{path}, {ENDS}")
    return np.asarray(array[:]).astype(np.int64)


def _check_stored(array: Any, where: str) -> None:
    """Compare the size an array claims with its chunks: those that are missing are read as zeros."""
    check_stored(array.nbytes, where, array.nbytes_stored())


def _check_blosc(folder: Path, array: Any) -> None:
    """Compare each chunk's length with its header: Blosc decodes one cut short to whatever lies behind it."""
    if not any(getattr(codec, "codec_id", None) == "blosc" for codec in array.compressors):
        return
    for chunk in folder.rglob("*"):
        if chunk.name.startswith(".") or chunk.is_dir():
            continue
        with chunk.open("rb") as file:
            header = file.read(16)
        if len(header) < 16 or int.from_bytes(header[12:], "little") != chunk.stat().st_size:
            raise InputError(f"{chunk} is damaged: its length is not the one in its header; copy it again")


def _is_image(array: Any) -> bool:
    """(N, h, w, 1, 3 or 4) of bytes, or of floats where h and w are no small matrix's."""
    if array.ndim != 4 or array.shape[3] not in (1, 3, 4):
        return False
    return array.dtype == np.uint8 or (array.dtype.kind == "f" and min(array.shape[1:3]) >= 8)


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
