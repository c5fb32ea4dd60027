"""D4RL's flat HDF5. Layout: d4rl, offline_env.py `get_dataset`.

Root arrays of N rows: `observations, actions, rewards, terminals`, mostly `timeouts`, `infos/*`,
`next_observations`; `metadata/*` describes the policy. An episode ends
with the row whose `terminals` or `timeouts` is set:

    row            0    1   ...  n-2   n-1
    observations   o0   o1       on-2  on-1
    actions        a0   a1       an-2  an-1     row t: the action at o_t and the reward for it

There is no observation after the last row, so T = n - 1 and the last action, its reward and its terminal are
dropped; the flags of that row are the facts `terminal` and `timeout`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lewm.data.formats.base import Format, Source
from lewm.data.formats.columns import Leaf, action_column, column_of, named, plain
from lewm.data.formats.common import LAST_ROW, guarded
from lewm.data.formats.hdf5 import FlatSource, find_file, opened, read_all, root_names
from lewm.registry import register
from lewm.types import InputError

if TYPE_CHECKING:
    import h5py

NAMES = {"observations": "observation", "rewards": "reward", "terminals": "terminated", "timeouts": "truncated"}
ENDS = {"terminals": "terminal", "timeouts": "timeout"}
MAX_METADATA = 64  # entries; behind `metadata/` some files keep the weights of the policy


@register("format", "d4rl")
class D4rl(Format):
    """D4RL HDF5, read only."""

    name = "d4rl"
    title = "D4RL HDF5 (observations, actions, terminals)"
    extra = "hdf5"

    @staticmethod
    def detect(path: Path) -> bool:
        """Root arrays `observations`, `actions` and an end of episodes."""
        names = root_names(path)
        return {"observations", "actions"} <= names and bool(names & set(ENDS))

    @staticmethod
    def open(path: Path) -> Source:
        """A file, or a folder that holds one."""
        path = find_file(path)
        with opened(path) as file, guarded(str(path)):
            missing = [name for name in ("observations", "actions") if name not in file]
            if missing or not set(file) & set(ENDS):
                raise InputError(
                    f"{path} needs 'observations', 'actions' and 'terminals' or 'timeouts' at its root, "
                    f"it has {sorted(file)}; this is not D4RL's HDF5"
                )
            begin, rows = _index(file, path)
            leaves, left_out = _leaves(file, path)
            metadata = _metadata(file)
        keep = rows >= 2  # flat files legitimately have single rows: an episode that ends at once, the cut-off end
        if not keep.any():
            raise InputError(f"{path}: no episode has two rows, so there is no step in it; check the file")
        leaves, renamed = named(leaves, path)
        about: dict[str, Any] = {"format": "d4rl", "left_out": left_out, "renamed": renamed, "metadata": metadata}
        about["last_row"] = LAST_ROW
        if not keep.all():
            about["skipped_one_row_episodes"] = int((~keep).sum())
        return D4rlSource(path, leaves, begin[keep], rows[keep], about)


class D4rlSource(FlatSource):
    """An opened D4RL file."""

    def _facts(self, file: h5py.File, position: int, where: str) -> dict[str, Any]:
        """How the episode ended."""
        last = int(self.begin[position] + self.rows[position]) - 1
        return {fact: bool(file[name][last]) for name, fact in ENDS.items() if name in file}


def _index(file: h5py.File, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """First row and number of rows of each episode (E,)."""
    total = len(file["actions"])
    if not total:
        raise InputError(f"{path} has no rows")
    arrays = [file[name] for name in ENDS if name in file]
    if any(array.size != total for array in arrays):
        raise InputError(f"{path}: 'terminals' or 'timeouts' is shorter than 'actions' ({total} rows); mend it")
    flags = [read_all(array, str(path)).reshape(-1).astype(bool) for array in arrays]
    stops = np.flatnonzero(np.logical_or.reduce(flags)) + 1
    if not len(stops) or stops[-1] != total:
        stops = np.append(stops, total)
    begin = np.concatenate([[0], stops[:-1]])
    return begin, stops - begin


def _leaves(file: h5py.File, path: Path) -> tuple[dict[str, Leaf], list[str]]:
    """Arrays to keep, and names with reasons of what is left out."""
    total = len(file["actions"])
    leaves, left_out = {}, []
    groups = [f"infos/{name}" for name in file.get("infos", ())]
    flat = [n for n in file if n not in ("infos", "metadata") and not n.startswith(("infos/", "metadata/"))]
    for name in [*flat, *groups]:
        array = file[name]
        if name == "next_observations":
            left_out.append(f"{name} (the next row of observations)")
        elif not hasattr(array, "dtype") or array.ndim < 1 or len(array) != total:
            left_out.append(f"{name} (not a row per observation)")
        elif name == "actions":
            leaves["action"] = Leaf(name, action_column(array.dtype, array.shape[1:]))
        else:
            stepwise = NAMES.get(name, name) in ("reward", "terminated", "truncated")
            dtype = np.dtype(bool) if name in ENDS else array.dtype
            shape = () if stepwise and array.shape[1:] == (1,) else array.shape[1:]
            column = column_of(dtype, shape, transition=stepwise)
            if column is None:
                left_out.append(f"{name} ({array.dtype})")
            else:
                leaves[NAMES.get(name, name)] = Leaf(name, column)
    return leaves, left_out


def _metadata(file: h5py.File) -> dict[str, Any]:
    """Scalars and texts under `metadata/`: the algorithm, not its weights."""
    group = file.get("metadata")
    entries = {name: group[name] for name in list(group)[:MAX_METADATA]} if hasattr(group, "keys") else {}
    return {
        name: plain(value[()]) for name, value in entries.items() if hasattr(value, "dtype") and value.size == 1
    }
