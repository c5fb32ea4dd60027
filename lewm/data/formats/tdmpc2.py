"""TD-MPC2 data (tdmpc2/trainer/online_trainer.py): one `*.pt`, a TensorDict of E episodes, or a folder of them.

    obs (E, T+1, d) or uint8 (E, T+1, 9, h, w) or a TensorDict of such     action (E, T+1, A)    reward (E, T+1)
    terminated (E, T+1) in newer files                                     task (E, T+1) a number, in mt30 and mt80

    row      0    1    2   ...  T          Their action[t] is the one that led TO obs[t]; row 0 has none (NaN).
    obs      o0   o1   o2       oT         Ours acts AT observation t, so actions, rewards and terminated
    action   NaN  a0   a1       aT-1       move up by one row: T + 1 rows give T steps, and nothing is lost.
    ours     a0   a1   a2

Pixels are stacks of three frames, newest last: the newest is kept. mt30 and mt80 pad observations and actions of
small tasks with zeros; they are kept as they are. A file is a pickle that names tensordict's classes; these are not
imported: stand-ins of ours take the tensors out and nothing in the file is run. Tensors are memory-mapped.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lewm.data.formats.base import Format, Source
from lewm.data.formats.columns import camera_names, column_of
from lewm.data.formats.common import check_size, check_stored, guarded, load_tensors
from lewm.data.schema import Column
from lewm.registry import register
from lewm.types import Episode, InputError

SHIFTED = ("action", "reward", "terminated")  # belong to the step that led to their row
STACK = 3  # frames in a stack of RGB
HEAD = 1 << 20  # bytes of a pickle that `detect` looks at


class _StandIn:
    """What a TensorDict's pickle becomes: its state, untouched."""

    def __setstate__(self, state: Any) -> None:
        self.state = {}
        for part in state if isinstance(state, tuple) else (state,):  # with slots it is (dict, dict of slots)
            self.state |= part or {}


def _make(kind: type, state: Mapping[str, Any]) -> _StandIn:
    held = _StandIn()
    held.__setstate__(state)
    return held


STAND_INS = {
    "tensordict._reductions._make_td": _make,  # 0.4 and later
    "tensordict._td.TensorDict": _StandIn,
    "tensordict.tensordict.TensorDict": _StandIn,  # before 0.3, as mt30 and mt80 were written
}


@register("format", "tdmpc2")
class TDMPC2(Format):
    """TD-MPC2's TensorDict files."""

    name: ClassVar[str] = "tdmpc2"
    title: ClassVar[str] = "TD-MPC2: a .pt TensorDict of episodes, or a folder of them"

    @staticmethod
    def detect(path: Path) -> bool:
        """Whether its first .pt file's pickle names obs, action and reward."""
        try:
            with zipfile.ZipFile(_files(path)[0]) as archive:
                pickled = next(name for name in archive.namelist() if name.endswith("data.pkl"))
                with archive.open(pickled) as file:
                    head = file.read(HEAD)
            return all(word in head for word in (b"obs", b"action", b"reward"))
        except Exception:  # zipfile has many, EOFError and NotImplementedError among them
            return False

    @staticmethod
    def open(path: Path) -> TDMPC2Source:
        """Open for streaming, one episode in memory."""
        return TDMPC2Source(path)


class TDMPC2Source(Source):
    """TD-MPC2 files opened for streaming."""

    def __init__(self, path: Path) -> None:
        self._paths = _files(path)
        if not self._paths:
            raise InputError(f"{path} holds no .pt file; give a TD-MPC2 .pt file or a folder of them")
        self._counts: list[int] = []
        for number, file in enumerate(self._paths):
            with guarded(str(file)):
                arrays = _load(file)
                columns = _columns(arrays, file)
            self._counts.append(len(arrays["action"]))
            if number == 0:
                self.columns = columns
            elif columns != self.columns:
                raise InputError(
                    f"{file} holds other columns than {self._paths[0].name}: {_brief(columns)}, not "
                    f"{_brief(self.columns)}; convert them one by one"
                )
        self.about = {
            "format": "TD-MPC2 TensorDict",
            "files": dict(zip((file.name for file in self._paths), self._counts, strict=True)),
            "note": "actions and rewards moved up by one row; of stacked frames the newest is kept",
        }

    def __len__(self) -> int:
        return sum(self._counts)

    def action_bounds(self) -> None:
        """None: the format states none (TD-MPC2's environments take -1 to 1)."""

    def actions(self) -> Iterator[np.ndarray]:
        """The actions of each episode, observations unread."""
        for position, file, arrays, row in self._places(0):
            with guarded(f"{file}, episode {position}"):
                check_size(arrays["action"][row].nbytes, str(file))
                rows = np.array(arrays["action"][row, 1:])
            yield rows

    def episodes(self, first: int = 0) -> Iterator[Episode]:
        """Episodes in the order of the files' names; facts are the file and the task's number."""
        for position, file, arrays, row in self._places(first):
            with guarded(f"{file}, episode {position}"):
                check_size(sum(arrays[name][row].nbytes for name in self.columns), str(file))
                episode = self._episode(position, file, arrays, row)
            yield episode

    def _episode(self, position: int, file: Path, arrays: dict[str, np.ndarray], row: int) -> Episode:
        place = f"{file}, episode {position}"
        _check_shift(arrays, row, place)
        columns = {}
        for name, column in self.columns.items():
            values = arrays[name][row]
            values = values[1:] if column.transition else values
            columns[name] = np.array(_newest(values) if _is_image(arrays[name]) else values)
        facts: dict[str, Any] = {"file": file.name}
        if "task" in arrays:
            tasks = np.unique(arrays["task"][row])
            if len(tasks) != 1:
                raise InputError(f"{place}: has tasks {tasks.tolist()}, one was expected; split the episode")
            facts["task"] = int(tasks[0])
        return Episode(position, columns, facts)

    def _places(self, first: int) -> Iterator[tuple[int, Path, dict[str, np.ndarray], int]]:
        """(position, file, its arrays, row in it) of each episode; files that end before `first` stay closed."""
        begin = 0
        for file, count in zip(self._paths, self._counts, strict=True):
            if begin + count > first:
                arrays = _load(file)
                for row in range(max(first - begin, 0), count):
                    yield begin + row, file, arrays, row
            begin += count


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("*.pt")) if path.is_dir() else [path] if path.suffix == ".pt" and path.is_file() else []


def _load(path: Path) -> dict[str, np.ndarray]:
    """Column -> array (E, T+1, ...), views of the file."""
    held = _flat(load_tensors(path, STAND_INS), path)
    observations = [name for name in held if name == "obs" or name.startswith("obs.")]
    missing = [name for name in ("action", "reward") if name not in held] + ([] if observations else ["obs"])
    if missing:
        raise InputError(f"{path} has no '{missing[0]}', only {', '.join(held) or 'nothing'}: not TD-MPC2 data")
    if held["action"].ndim == 2:  # one episode by itself
        held = {name: tensor[None] for name, tensor in held.items()}
    shape = held["action"].shape[:2]
    for name, tensor in held.items():
        if tensor.shape[:2] != shape:
            raise InputError(f"{path}: '{name}' is {tuple(tensor.shape)}, 'action' {tuple(shape)}; save it again")
    if len(shape) < 2 or shape[1] < 2:
        raise InputError(
            f"{path}: 'action' is {tuple(shape)}: an episode needs 2 rows or more; leave that file out"
        )
    arrays = {name.removeprefix("obs."): tensor.numpy() for name, tensor in held.items()}
    check_stored(sum(values.nbytes for values in arrays.values()), str(path), path.stat().st_size)
    if "obs" in arrays:
        values = arrays.pop("obs")
        arrays["pixels" if _is_image(values) else "observation"] = values
    cameras = camera_names([name for name, values in arrays.items() if _is_image(values)], ["rgb"])
    return {cameras.get(name, name): values for name, values in arrays.items()}


def _flat(held: Any, path: Path, prefix: str = "") -> dict[str, Any]:
    """Tensors of nested TensorDicts and dicts by their dotted names."""
    if isinstance(held, _StandIn):
        held = held.state.get("_tensordict", held.state.get("_source"))
    if not isinstance(held, Mapping):
        raise InputError(f"{path} holds a {type(held).__name__}, expected a TensorDict of episodes; save one")
    found = {}
    for name, value in held.items():
        if hasattr(value, "numpy"):
            found[f"{prefix}{name}"] = value
        else:
            found |= _flat(value, path, f"{prefix}{name}.")
    return found


def _columns(arrays: Mapping[str, np.ndarray], path: Path) -> dict[str, Column]:
    columns = {}
    for name, values in arrays.items():
        if name == "task":
            continue
        shape = values.shape[2:]
        if _is_image(values):
            shape = (*values.shape[3:], min(values.shape[2], STACK))
        column = column_of(values.dtype, shape, transition=name in SHIFTED)
        if column is None:
            raise InputError(f"{path}: '{name}' is {values.dtype} {shape}, expected numbers; save it without")
        columns[name] = column
    if columns["action"].dtype[:5] != "float" or len(columns["action"].shape) != 1:
        raise InputError(f"{path}: 'action' is {columns['action']}, expected floats (A,)")
    return columns


def _is_image(values: np.ndarray) -> bool:
    """uint8 (E, T+1, channels, h, w), channels of whole RGB frames or of one grey one."""
    return values.dtype == np.uint8 and values.ndim == 5 and (values.shape[2] % 3 == 0 or values.shape[2] == 1)


def _newest(frames: np.ndarray) -> np.ndarray:
    """The newest of each stack (N, 3 k, h, w) as (N, h, w, 3)."""
    return frames[:, -STACK:].transpose(0, 2, 3, 1)


def _check_shift(arrays: Mapping[str, np.ndarray], row: int, place: str) -> None:
    """Row 0 must hold no action: NaN, as TD-MPC2 writes it, or zeros."""
    action, reward = arrays["action"][row, 0], arrays["reward"][row, 0]
    if not (np.isnan(action).any() or np.isnan(reward).any() or not action.any()):
        raise InputError(
            f"{place}: row 0 has an action and a reward. TD-MPC2 keeps NaN there, as its action[t] led to obs[t]; "
            "in this file action[t] seems to act at obs[t], and would be moved by one: convert it from its source"
        )


def _brief(columns: Mapping[str, Column]) -> str:
    return ", ".join(f"{name} {column.dtype} {column.shape}" for name, column in columns.items())
