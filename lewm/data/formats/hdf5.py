"""What the HDF5 formats share: opening and reading with errors that name file and place, rows to columns.

Also for the other formats of this group: how a foreign quantity becomes a `Column`, and which image is `pixels`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lewm.data.formats import common
from lewm.data.formats.base import Source, need
from lewm.data.schema import Column
from lewm.types import Episode, InputError

if TYPE_CHECKING:
    import h5py

SUFFIXES = (".h5", ".hdf5")
FAILURES = (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError, IndexError)
"""What h5py, pyarrow and pylance raise on damaged input."""


def find_file(path: Path) -> Path:
    """The HDF5 file meant by `path`: itself, or the only one of a folder."""
    if not path.exists():
        raise InputError(f"{path} does not exist")
    if not path.is_dir():
        return path
    files = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES)
    if len(files) != 1:
        names = ", ".join(p.name for p in files[:5]) or "none"
        raise InputError(f"{path} must hold exactly one .h5 or .hdf5 file, it has {len(files)} ({names}); name one")
    return files[0]


@contextmanager
def guarded(what: str) -> Iterator[None]:
    """Turn a library's traceback about damaged input into an `InputError` that begins with `what`."""
    try:
        yield
    except InputError:
        raise
    except FAILURES as error:
        raise InputError(f"{what} cannot be read ({error}); copy or download it again") from None


@contextmanager
def opened(path: Path, extra: str = "hdf5") -> Iterator[h5py.File]:
    """An HDF5 file for reading; filters of hdf5plugin are there if the package is."""
    h5py = need("h5py", extra)
    with suppress(ImportError):
        import hdf5plugin  # noqa: F401  importing it registers the filters
    try:
        file = h5py.File(path, "r")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except OSError as error:
        raise InputError(f"{path} is damaged, cut short or not HDF5 ({error}); copy or download it again") from None
    with file:
        yield file


def root_names(path: Path) -> set[str]:
    """Names at the root of an HDF5 file, or of the only one of a folder; empty where unknown. Never raises."""
    try:
        with opened(find_file(path)) as file:
            return set(file)
    except (InputError, *FAILURES):
        return set()


def read_rows(dataset: h5py.Dataset, begin: int, end: int, where: str) -> np.ndarray:
    """Rows [begin, end) of a dataset; `where` names file and episode in errors."""
    if end > len(dataset):
        raise InputError(
            f"{where}: column '{dataset.name}' has {len(dataset)} rows, {end} are needed; mend the file"
        )
    try:
        return np.asarray(dataset[begin:end])
    except FAILURES as error:
        missing = _missing_filter(dataset)
        if missing:
            raise InputError(
                f"{where}: column '{dataset.name}' is compressed with {missing}, which this h5py does not have: "
                'pip install "lewm[hdf5]" (it brings hdf5plugin)'
            ) from None
        raise InputError(f"{where}: column '{dataset.name}' cannot be read ({error}); copy it again") from None


def _missing_filter(dataset: h5py.Dataset) -> str | None:
    """Name of a compression filter of this dataset that is not available, or None."""
    h5z = need("h5py", "hdf5").h5z
    plist = dataset.id.get_create_plist()
    for number in range(plist.get_nfilters()):
        code, _, _, name = plist.get_filter(number)
        if not h5z.filter_avail(code):
            return f"filter {code} ({name.decode(errors='replace') or 'no name'})"
    return None


def clean(name: str) -> str:
    """A name the store accepts: `/` becomes `.`, whatever else is odd becomes `_`."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", name.strip("/").replace("/", "."))
    return re.sub(r"^(?=[.-]|$)", "_", name)


def column_of(dtype: np.dtype | str, shape: Iterable[int], *, transition: bool = False) -> Column | None:
    """The column for rows of this dtype and shape; None for what is not kept (text, ragged, compound)."""
    dtype, shape = np.dtype(dtype), tuple(int(n) for n in shape)
    if dtype.kind not in "biuf" or dtype.itemsize > 8 or 0 in shape:
        return None
    return common.column_of(dtype, shape, transition=transition)


def action_column(dtype: np.dtype | str, shape: Iterable[int]) -> Column:
    """The column of actions: flat, floats kept as they are, integers as float32."""
    dtype = np.dtype(dtype)
    name = dtype.newbyteorder("=").name if dtype.kind == "f" else "float32"
    return Column(name, (int(np.prod(tuple(shape), dtype=np.int64)),), transition=True)


def as_column(rows: np.ndarray, column: Column, where: str) -> np.ndarray:
    """Rows in dtype and row shape of the column; only transitions (integer actions, flags) change their kind."""
    if not column.transition and not np.can_cast(rows.dtype, column.dtype, "safe"):
        raise InputError(f"{where}: a column changes from {column.dtype} to {rows.dtype}; make all episodes alike")
    if rows.size != len(rows) * int(np.prod(column.shape, dtype=np.int64)):
        raise InputError(
            f"{where}: rows of shape {rows.shape[1:]} where {column.shape} was before; make them alike"
        )
    return np.ascontiguousarray(rows, dtype=column.dtype).reshape(len(rows), *column.shape)


def decode(data: bytes) -> np.ndarray:
    """An encoded image as (h, w, 3) or, where it is grey, (h, w, 1)."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        if image.mode in ("L", "1"):
            return np.asarray(image.convert("L"))[..., None]
        return np.asarray(image.convert("RGB"))


def plain(value: Any) -> Any:
    """A value of h5py or numpy as one that JSON has; infinities and NaN as text."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {str(key): plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def is_text(dtype: np.dtype) -> bool:
    """Whether an array of an HDF5 file holds strings."""
    return dtype.kind == "S" or need("h5py", "hdf5").check_string_dtype(dtype) is not None


def main_camera(columns: Iterable[tuple[str, Column]]) -> str | None:
    """The image to be called `pixels`: the first one, unless something has that name already."""
    columns = list(columns)
    if any(name == "pixels" for name, _ in columns):
        return None
    return next((name for name, column in columns if column.image), None)


@dataclass(frozen=True)
class Leaf:
    """One array of a file and what becomes of it.

    `late` marks transition rows that the format stores with the observation they led to: row t+1 belongs to step t.
    """

    path: str
    column: Column
    late: bool = False

    def span(self, rows: int) -> tuple[int, int]:
        """Which of an episode's `rows` rows to keep, for rows - 1 steps."""
        return (1, rows) if self.late else (0, rows - 1 if self.column.transition else rows)


def named(leaves: Mapping[str, Leaf], what: Path | str) -> tuple[dict[str, Leaf], dict[str, str]]:
    """Leaves under names the store accepts, the main camera as `pixels`; and what was renamed, new -> path."""
    camera = main_camera((name, leaf.column) for name, leaf in leaves.items())
    result: dict[str, Leaf] = {}
    changed = {}
    for name, leaf in leaves.items():
        new = "pixels" if name == camera else clean(name)
        if new in result:
            raise InputError(f"{what}: two columns would be called '{new}' (one is '{name}'); rename one of them")
        result[new] = leaf
        if new != name.replace("/", "."):
            changed[new] = leaf.path
    return result, changed


@dataclass(eq=False)
class FlatSource(Source):
    """Episodes that lie one behind the other in arrays of N rows; `begin` and `rows` (E,) say where.

    `constants` are arrays (fact -> path) that become a fact of an episode where all its rows agree.
    """

    path: Path
    leaves: Mapping[str, Leaf]
    begin: np.ndarray
    rows: np.ndarray
    about: Mapping[str, Any]
    constants: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.columns = {name: leaf.column for name, leaf in self.leaves.items()}

    def __len__(self) -> int:
        return len(self.begin)

    def action_bounds(self) -> None:
        """These formats state no bounds."""
        return

    def episodes(self, first: int = 0) -> Iterator[Episode]:
        """One episode in memory at a time."""
        with opened(self.path) as file:
            for position in range(first, len(self)):
                where = f"{self.path}, episode {position}"
                columns = {name: self._rows(file, leaf, position) for name, leaf in self.leaves.items()}
                with guarded(where):
                    facts = self._facts(file, position, where)
                yield Episode(position, columns, facts)

    def actions(self) -> Iterator[np.ndarray]:
        """The actions alone."""
        with opened(self.path) as file:
            for position in range(len(self)):
                yield self._rows(file, self.leaves["action"], position)

    def _rows(self, file: h5py.File, leaf: Leaf, position: int) -> np.ndarray:
        begin, (first, last) = int(self.begin[position]), leaf.span(int(self.rows[position]))
        where = f"{self.path}, episode {position}"
        rows = read_rows(file[leaf.path], begin + first, begin + last, where)
        return as_column(rows, leaf.column, where)

    def _facts(self, file: h5py.File, position: int, where: str) -> dict[str, Any]:
        """What is constant over the episode, and what a subclass adds."""
        facts = {}
        begin = int(self.begin[position])
        for name, path in self.constants.items():
            values = read_rows(file[path], begin, begin + int(self.rows[position]), where)
            if (values == values[0]).all():
                facts[name] = plain(values[0])
        return facts
