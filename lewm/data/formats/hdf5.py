"""What the HDF5 formats share: opening and reading with errors that name file and place."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lewm.data.formats.base import Source
from lewm.data.formats.columns import Leaf, as_column, plain
from lewm.data.formats.common import check_size, guarded
from lewm.extras import need, pip_command
from lewm.types import Episode, InputError

if TYPE_CHECKING:
    import h5py

SUFFIXES = (".h5", ".hdf5")


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
def opened(path: Path, extra: str = "hdf5") -> Iterator[h5py.File]:
    """An HDF5 file for reading; filters of hdf5plugin are there if the package is."""
    h5py = need("h5py", extra)
    with suppress(ImportError):
        import hdf5plugin  # noqa: F401  importing it registers the filters
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    try:
        file = h5py.File(path, "r")
    except Exception as error:
        raise InputError(f"{path} is damaged, cut short or not HDF5 ({error}); copy or download it again") from None
    with file:
        yield file


def root_names(path: Path) -> set[str]:
    """Names at the root of an HDF5 file, or of the only one of a folder; empty where unknown. Never raises."""
    try:
        with opened(find_file(path)) as file, guarded(str(path)):
            return set(file)
    except InputError:
        return set()


def read_rows(dataset: h5py.Dataset, begin: int, end: int, where: str) -> np.ndarray:
    """Rows [begin, end) of a dataset; `where` names file and episode in errors."""
    place = f"{where}: column '{dataset.name}'"
    if end > len(dataset):
        raise InputError(f"{place} has {len(dataset)} rows, {end} are needed; mend the file")
    if dataset.external:
        raise InputError(f"{place} lies outside the file, in {dataset.external[0][0]}; copy it into the file")
    stored = None if dataset.is_virtual else dataset.id.get_storage_size()
    check_size((end - begin) * _row_bytes(dataset), place, stored)
    try:
        return np.asarray(dataset[begin:end])
    except Exception as error:
        missing = _missing_filter(dataset)
        if missing:
            raise InputError(
                f"{place} is compressed with {missing}, which this h5py does not have: {pip_command('hdf5')}"
            ) from None
        raise InputError(f"{place} cannot be read ({error}); copy it again") from None


def read_all(dataset: h5py.Dataset, where: str) -> np.ndarray:
    """All rows of a dataset."""
    return read_rows(dataset, 0, len(dataset), where)


def _row_bytes(dataset: h5py.Dataset) -> int:
    return math.prod(dataset.shape[1:]) * dataset.dtype.itemsize


def _missing_filter(dataset: h5py.Dataset) -> str | None:
    """Name of a compression filter of this dataset that is not available, or None."""
    h5z = need("h5py", "hdf5").h5z
    plist = dataset.id.get_create_plist()
    for number in range(plist.get_nfilters()):
        code, _, _, name = plist.get_filter(number)
        if not h5z.filter_avail(code):
            return f"filter {code} ({name.decode(errors='replace') or 'no name'})"
    return None


def is_text(dtype: np.dtype) -> bool:
    """Whether an array of an HDF5 file holds strings."""
    return dtype.kind == "S" or need("h5py", "hdf5").check_string_dtype(dtype) is not None


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
                with guarded(where):
                    columns = {name: self._rows(file, leaf, position, where) for name, leaf in self.leaves.items()}
                    facts = self._facts(file, position, where)
                yield Episode(position, columns, facts)

    def actions(self) -> Iterator[np.ndarray]:
        """The actions alone."""
        with opened(self.path) as file:
            for position in range(len(self)):
                where = f"{self.path}, episode {position}"
                with guarded(where):
                    rows = self._rows(file, self.leaves["action"], position, where)
                yield rows

    def _rows(self, file: h5py.File, leaf: Leaf, position: int, where: str) -> np.ndarray:
        begin, (first, last) = int(self.begin[position]), leaf.span(int(self.rows[position]))
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
