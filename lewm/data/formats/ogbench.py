"""OGBench data sets (ogbench 1.2, ogbench/utils.py): one `<name>.npz`, streamed out of the zip file.

    observations (N, d) or uint8 (N, h, w, C) for visual-*      -> observation, or pixels
    actions (N, A)   terminals (N,) 1 at a trajectory's last row
    often qpos, qvel, button_states (N, ...)                    -> columns of that name

Row t is (observation t, action taken there). A trajectory's last action has no stored successor and is dropped: N
rows give N - 1 steps. `<name>-val.npz` is a data set of its own: give it to read it. Goals are not in the file.
numpy.load would unpack everything into memory; here rows are read in order, one trajectory at a time.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, ClassVar

import numpy as np

from lewm.data.formats.base import Format, Source
from lewm.data.formats.columns import column_of
from lewm.data.formats.common import LAST_ROW, check_size, episode_of_rows, guarded
from lewm.data.schema import Column
from lewm.registry import register
from lewm.types import Episode, InputError

NEEDED = ("observations", "actions", "terminals")
CHUNK = 1 << 20  # bytes skipped at a time
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    ValueError,
    OSError,
    KeyError,
    NotImplementedError,
    RuntimeError,
)


@register("format", "ogbench")
class OGBench(Format):
    """An OGBench .npz file."""

    name: ClassVar[str] = "ogbench"
    title: ClassVar[str] = "OGBench: a .npz file with observations, actions and terminals"

    @staticmethod
    def detect(path: Path) -> bool:
        """Whether it is a .npz with the three arrays every OGBench file has."""
        try:
            if path.suffix != ".npz":
                return False
            with zipfile.ZipFile(path) as archive:
                return {f"{name}.npy" for name in NEEDED} <= set(archive.namelist())
        except DAMAGE:
            return False

    @staticmethod
    def open(path: Path) -> OGBenchSource:
        """Open for streaming, one trajectory in memory."""
        return OGBenchSource(path)


class OGBenchSource(Source):
    """An OGBench file opened for streaming."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                names = [name[:-4] for name in archive.namelist() if name.endswith(".npy")]
        except DAMAGE as error:
            raise InputError(f"{path} is not a .npz file ({error}); download it again") from None
        missing = [name for name in NEEDED if name not in names]
        if missing:
            raise InputError(
                f"{path} has no array '{missing[0]}', only {', '.join(names)}: this is not OGBench data"
            )
        self._members: dict[str, str] = {}
        self.columns: dict[str, Column] = {}
        left_out = {}
        with ExitStack() as stack:
            arrays = {name: stack.enter_context(_Rows(path, name)) for name in names}
            count = arrays["actions"].count
            if not count:
                raise InputError(f"{path} holds no rows; download it again")
            for name, array in arrays.items():
                if array.count != count:
                    raise InputError(
                        f"{path}: '{name}' has {array.count} rows, 'actions' {count}; download it again"
                    )
                if name == "terminals":
                    flags = array.read(count).reshape(-1)
                    if flags.dtype.kind not in "biuf" or len(flags) != count:
                        raise InputError(
                            f"{path}: 'terminals' is {flags.dtype} {array.shape}, expected a flag in each row"
                        )
                    ends = np.flatnonzero(flags) + 1
                elif not self._add(name, array):
                    left_out[name] = f"{array.dtype} {array.shape}"
        if "action" not in self.columns:
            raise InputError(f"{path}: 'actions' is {left_out['actions']}, expected numbers")
        self._ends = ends if len(ends) and ends[-1] == count else np.append(ends, count)
        self.about = {"format": "OGBench npz", "file": path.name, "left_out": left_out, "note": LAST_ROW}

    def __len__(self) -> int:
        return len(self._ends)

    def action_bounds(self) -> None:
        """None: the file states none."""

    def actions(self) -> Iterator[np.ndarray]:
        """The actions of each trajectory, images unread."""
        for rows in self._stream({"action": self._members["action"]}, 0):
            yield rows["action"][:-1]

    def episodes(self, first: int = 0) -> Iterator[Episode]:
        """Trajectories in the file's order; rows before `first` are unpacked (zip cannot skip) but not kept."""
        for number, rows in enumerate(self._stream(self._members, first), start=first):
            yield episode_of_rows(number, rows, self.columns, str(self.path))

    def _add(self, name: str, array: _Rows) -> bool:
        """Take an array for a column; False if it is not of numbers."""
        image = array.dtype == np.uint8 and len(array.shape) == 3
        ours = {"actions": "action", "observations": "pixels" if image else "observation"}.get(name, name)
        dtype, shape = array.dtype, array.shape
        if ours == "action":
            dtype = np.dtype(np.float32) if dtype.kind in "biu" else dtype  # powderworld's are whole numbers
            shape = shape or (1,)
        column = column_of(dtype, shape, transition=ours == "action")
        if column is None:
            return False
        self.columns[ours], self._members[ours] = column, name
        return True

    def _stream(self, members: dict[str, str], first: int) -> Iterator[dict[str, np.ndarray]]:
        """Rows of each trajectory from `first` on, all members read side by side."""
        begin = int(self._ends[first - 1]) if first else 0
        with ExitStack() as stack:
            files = {name: stack.enter_context(_Rows(self.path, member)) for name, member in members.items()}
            for file in files.values():
                file.skip(begin)
            for number in range(first, len(self)):
                count = int(self._ends[number]) - begin
                begin += count
                rows = {}
                with guarded(f"{self.path}, episode {number}"):
                    check_size(count * sum(self.columns[name].row_bytes for name in files), str(self.path))
                    for name, file in files.items():
                        values, column = file.read(count), self.columns[name]
                        rows[name] = values.astype(column.dtype, copy=False).reshape(count, *column.shape)
                yield rows


class _Rows:
    """One array of a .npz file, read row by row in order."""

    def __init__(self, path: Path, name: str) -> None:
        self._place = f"{path}, array '{name}'"
        self._archive: zipfile.ZipFile | None = None
        try:
            self._archive = zipfile.ZipFile(path)
            self._file: IO[bytes] = self._archive.open(f"{name}.npy")
            version = np.lib.format.read_magic(self._file)
            header = (
                np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            )
            shape, self._column_major, self.dtype = header(self._file)
            self._size = math.prod(shape[1:]) * self.dtype.itemsize
            held = self._archive.getinfo(f"{name}.npy").file_size
            if min(shape, default=1) < 0 or math.prod(shape) * self.dtype.itemsize > held:
                raise ValueError(f"it claims {shape} of {self.dtype} in {held} bytes")
        except Exception as error:  # numpy evaluates the header as Python's literals, which may raise anything
            self.__exit__()
            raise InputError(f"{self._place} is damaged ({error}); download the file again") from None
        self.count, self.shape = (shape[0] if shape else 0), tuple(shape[1:])

    def read(self, rows: int) -> np.ndarray:
        """The next rows (rows, *shape)."""
        if self.dtype.hasobject or (self._column_major and len(self.shape)):
            raise InputError(f"{self._place} holds Python objects or is in Fortran order; save it as a plain array")
        try:
            data = self._file.read(rows * self._size)
        except DAMAGE as error:
            raise InputError(f"{self._place} is damaged ({error}); download the file again") from None
        if len(data) != rows * self._size:
            raise InputError(f"{self._place} is cut short; download the file again")
        return np.frombuffer(bytearray(data), self.dtype).reshape(rows, *self.shape)

    def skip(self, rows: int) -> None:
        """Pass over rows."""
        left = rows * self._size
        try:
            while left > 0:
                data = self._file.read(min(left, CHUNK))
                if not data:
                    break  # the next `read` says so
                left -= len(data)
        except DAMAGE as error:
            raise InputError(f"{self._place} is damaged ({error}); download the file again") from None

    def __enter__(self) -> _Rows:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._archive is not None:
            self._archive.close()
