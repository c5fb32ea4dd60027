"""robomimic's HDF5. Layout: robomimic docs, datasets/overview.

    data/                 attributes env_args (JSON: env_name, type, env_kwargs), total
      demo_<i>/           attributes num_samples, model_file
        actions (N, A)    rewards, dones (N,)    states (N, S)
        obs/<key> (N, ..)    next_obs/<key> (N, ..)
    mask/<filter>         names of demos

With `next_obs` the last observation is its last row, so T = N; `states`, which has no such row, then belongs to the
steps. Without, T = N - 1: the last action has no successor and is dropped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lewm.data.formats.base import Format, Source
from lewm.data.formats.columns import Leaf, action_column, as_column, column_of, named, plain
from lewm.data.formats.common import LAST_ROW, guarded
from lewm.data.formats.hdf5 import find_file, opened, read_all, read_rows
from lewm.registry import register
from lewm.types import Episode, InputError

if TYPE_CHECKING:
    import h5py

PER_STEP = {"actions": "action", "rewards": "reward", "dones": "terminated"}
NOT_ROWS = ("obs", "next_obs")


@register("format", "robomimic")
class Robomimic(Format):
    """robomimic HDF5, read only."""

    name = "robomimic"
    title = "robomimic HDF5 (data/demo_*)"
    extra = "hdf5"

    @staticmethod
    def detect(path: Path) -> bool:
        """A group `data` with groups `demo_*`."""
        try:
            with opened(find_file(path)) as file, guarded(str(path)):
                return bool(_demos(file))
        except InputError:
            return False

    @staticmethod
    def open(path: Path) -> Source:
        """A file, or a folder that holds one."""
        return RobomimicSource(find_file(path))


def _demos(file: h5py.File) -> list[str]:
    """Names of the demos, in the order of their numbers."""
    group = file.get("data")
    names = [name for name in group if re.fullmatch(r"demo_\d+", name)] if hasattr(group, "keys") else []
    return sorted(names, key=lambda name: int(name[5:]))


class RobomimicSource(Source):
    """An opened robomimic file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with opened(path) as file, guarded(str(path)):
            self._names = _demos(file)
            if not self._names:
                raise InputError(f"{path} has no data/demo_* groups; this is not robomimic's HDF5")
            data = file["data"]
            self._final = all("next_obs" in data[name] for name in self._names)
            leaves, left_out = self._describe(data[self._names[0]])
            self._masks = {
                name: {plain(demo) for demo in read_all(file["mask"][name], str(path))}
                for name in file.get("mask", ())
            }
            environment = json.loads(data.attrs.get("env_args", "{}"))
        self._leaves, renamed = named(leaves, path)
        self.columns = {name: leaf.column for name, leaf in self._leaves.items()}
        self.about: Mapping[str, Any] = {
            "format": "robomimic",
            "environment": plain(environment),
            "left_out": left_out,
            "renamed": renamed,
            "last_row": "the last observation is that of next_obs" if self._final else LAST_ROW,
        }

    def __len__(self) -> int:
        return len(self._names)

    def action_bounds(self) -> None:
        """The format states no bounds."""
        return

    def episodes(self, first: int = 0) -> Iterator[Episode]:
        """One demo in memory at a time; facts are its name, its filters and `success` where a done says so."""
        with opened(self.path) as file:
            for position in range(first, len(self)):
                name = self._names[position]
                with guarded(f"{self.path}, {name}"):
                    demo = file["data"][name]
                    columns = {key: self._rows(demo, leaf, name) for key, leaf in self._leaves.items()}
                    facts = {
                        "demo": name,
                        "filters": sorted(k for k, names in self._masks.items() if name in names),
                    }
                    facts |= {k: plain(v) for k, v in demo.attrs.items() if k not in ("num_samples", "model_file")}
                yield Episode(position, columns, facts)

    def actions(self) -> Iterator[np.ndarray]:
        """The actions alone."""
        with opened(self.path) as file:
            for name in self._names:
                with guarded(f"{self.path}, {name}"):
                    rows = self._rows(file["data"][name], self._leaves["action"], name)
                yield rows

    def _describe(self, demo: h5py.Group) -> tuple[dict[str, Leaf], list[str]]:
        """Columns of the first demo, and what is left out; every demo must have the same."""
        leaves, left_out = {}, ["model_file (attribute, the scene's XML)"] if "model_file" in demo.attrs else []
        if "actions" not in demo or "obs" not in demo:
            raise InputError(f"{self.path}, {demo.name} needs 'actions' and 'obs', it has {sorted(demo)}")
        rows = len(demo["actions"])
        arrays = {f"obs/{key}": demo["obs"][key] for key in demo["obs"]}
        arrays |= {key: demo[key] for key in demo if key not in NOT_ROWS}
        for path, array in arrays.items():
            key = path.removeprefix("obs/")
            if not hasattr(array, "dtype") or array.ndim < 1 or len(array) != rows:
                left_out.append(f"{path} (not a row per step)")
            elif path == "actions":
                leaves["action"] = Leaf(path, action_column(array.dtype, array.shape[1:]))
            else:
                stepwise = path in PER_STEP or (self._final and not path.startswith("obs/"))
                dtype = np.dtype(bool) if path == "dones" else array.dtype
                column = column_of(dtype, array.shape[1:], transition=stepwise)
                if column is None:
                    left_out.append(f"{path} ({array.dtype})")
                else:
                    leaves[PER_STEP.get(path, key)] = Leaf(path, column)
        return leaves, left_out

    def _rows(self, demo: h5py.Group, leaf: Leaf, name: str) -> np.ndarray:
        """T rows of a transition, T + 1 of an observation."""
        where = f"{self.path}, {name}"
        count = len(demo["actions"])
        if count + self._final < 2:
            raise InputError(f"{where} has {count} row(s), which is no step; remove this demo from the file")
        array = demo[leaf.path]
        if len(array) != count:
            raise InputError(f"{where}: '{leaf.path}' has {len(array)} rows and 'actions' {count}; mend the file")
        if not self._final:
            return as_column(read_rows(array, *leaf.span(count), where), leaf.column, where)
        rows = read_rows(array, 0, count, where)
        if not leaf.column.transition:
            rows = np.concatenate([rows, read_rows(demo[f"next_{leaf.path}"], count - 1, count, where)])
        return as_column(rows, leaf.column, where)
