"""DINO-WM folders (gaoyuezhou/dino_wm, datasets/*_dset.py): Push-T, point maze and wall.

    Push-T       states.pth (E, Tmax, 5)  velocities.pth  rel_actions.pth  abs_actions.pth  seq_lengths.pkl
                 shapes.pkl  obses/episode_000.mp4
    point maze   states.pth  actions.pth  seq_lengths.pth  obses/episode_000.pth (T, h, w, C)
    wall         states.pth  actions.pth  door_locations.pth  wall_locations.pth  obses/episode_000.pth (T, C, h, w)

`seq_lengths[e]` = N rows of episode e are real, the rest is padding; without that file all are. Row t is
(observation t, action taken there); the last action has no successor and is dropped: N - 1 steps. `rel_actions` is
`action`, as DINO-WM trains on it, in the file's units: Push-T's are 100 times what its environment takes. A folder
with `train` and `val` is read whole, train first, and the fact `split` says which. The particle sets (rope,
granular) are not read.

Tensors are memory-mapped and only tensors are loaded; of a pickle only numbers, texts and arrays are taken.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lewm.data.formats.base import Format, Source
from lewm.data.formats.columns import column_of, plain
from lewm.data.formats.common import LAST_ROW, check_size, episode_of_rows, guarded, load_tensors, to_uint8
from lewm.data.formats.video import frame_size, read_frames
from lewm.data.schema import Column
from lewm.registry import register
from lewm.types import Episode, InputError

SPLITS = ("train", "val")
MAIN = ("rel_actions", "actions", "abs_actions")  # the first that exists is `action`
NAMES = {"states": "state", "velocities": "velocity", "proprios": "proprio", "rel_actions": "rel_action"}
NAMES |= {"abs_actions": "abs_action", "door_locations": "door_location", "wall_locations": "wall_location"}
ALLOWED = {  # what pickles of numpy arrays, numpy numbers and torch tensors name; none of it can run anything
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("collections", "OrderedDict"),
}


@register("format", "dino_wm")
class DinoWM(Format):
    """A DINO-WM data folder."""

    name: ClassVar[str] = "dino_wm"
    title: ClassVar[str] = "DINO-WM: a folder with states.pth and obses/, or its parent with train/ and val/"
    extra: ClassVar[str | None] = "video"

    @staticmethod
    def detect(path: Path) -> bool:
        """Whether it, or its train or val, holds states.pth and obses/."""
        try:
            return bool(_parts(path))
        except OSError:
            return False

    @staticmethod
    def open(path: Path) -> DinoSource:
        """Open for streaming, one episode in memory."""
        return DinoSource(path)


class DinoSource(Source):
    """A DINO-WM folder opened for streaming."""

    def __init__(self, root: Path) -> None:
        parts = _parts(root)
        if not parts:
            raise InputError(
                f"{root} has no states.pth beside obses/, nor have its train and val: not DINO-WM data"
            )
        self._parts = [_Part(folder, split) for split, folder in parts.items()]
        with guarded(f"{self._parts[0].folder}, episode 0"):
            self.columns, left_out = self._parts[0].columns()
        self.about = {
            "format": "DINO-WM folder",
            "splits": {part.split: len(part.lengths) for part in self._parts if part.split},
            "action": self._parts[0].main,
            "left_out": left_out,
            "note": LAST_ROW,
        }

    def __len__(self) -> int:
        return sum(len(part.lengths) for part in self._parts)

    def action_bounds(self) -> None:
        """None: the format states none."""

    def actions(self) -> Iterator[np.ndarray]:
        """The actions of each episode, images unread."""
        for position, (part, number) in enumerate(self._places(0)):
            with guarded(f"{part.folder}, episode {position}"):
                rows = part.rows(number, ["action"])["action"]
            yield rows[:-1]

    def episodes(self, first: int = 0) -> Iterator[Episode]:
        """Episodes in order of their numbers, those of train before those of val."""
        for position, (part, number) in enumerate(self._places(first), start=first):
            with guarded(f"{part.folder}, episode {position}"):
                rows = part.rows(number, [name for name in self.columns if name != "pixels"])
                rows["pixels"] = part.frames(number, self.columns["pixels"].shape)
                episode = episode_of_rows(position, rows, self.columns, str(part.folder), part.facts(number))
            yield episode

    def _places(self, first: int) -> list[tuple[_Part, int]]:
        return [(part, number) for part in self._parts for number in range(len(part.lengths))][first:]


@dataclass
class _Part:
    """One folder with states.pth."""

    folder: Path
    split: str

    def __post_init__(self) -> None:
        self._tensors = {path.stem: path for path in sorted(self.folder.glob("*.pth"))}
        self.main = next((name for name in MAIN if name in self._tensors), None)
        if self.main is None:
            raise InputError(
                f"{self.folder} has no {', '.join(f'{name}.pth' for name in MAIN)}; restore one of them"
            )
        held = {name: self._load(name) for name in self._tensors if name in NAMES or name == self.main}
        count, width = held["states"].shape[:2]
        if not count:
            raise InputError(f"{self.folder}/states.pth holds no episode; restore it")
        self.lengths = self._lengths(count, width)
        self._steps, self._whole = {}, {}
        for name, tensor in held.items():
            ours = "action" if name == self.main else NAMES[name]
            if tensor.shape[0] != count:
                raise InputError(
                    f"{self.folder}/{name}.pth has {len(tensor)} episodes, states.pth {count}; restore it"
                )
            if tensor.ndim > 1 and tensor.shape[1] >= max(self.lengths):
                self._steps[ours] = tensor
            elif ours != "action":
                self._whole[ours] = tensor  # one value for the episode
        if "action" not in self._steps:
            raise InputError(f"{self.folder}/{self.main}.pth has no row for each step; restore it")
        shapes = self.folder / "shapes.pkl"
        if shapes.is_file():
            self._whole["shape"] = load_pickle(shapes)

    def columns(self) -> tuple[dict[str, Column], dict[str, str]]:
        """Columns by name, as episode 0 has them; and what is left out, with why."""
        columns, left_out = {}, {}
        for name, tensor in self._steps.items():
            column = column_of(tensor.dtype, tensor.shape[2:], transition=name.endswith("action"))
            if column is not None:
                columns[name] = column
            else:
                left_out[name] = f"{tensor.dtype} {tensor.shape[2:]}"
        if "action" not in columns or np.dtype(columns["action"].dtype).kind != "f":
            raise InputError(f"{self.folder}/{self.main}.pth holds {self._steps['action'].dtype}, not floats")
        video = self._file(0).suffix == ".mp4"
        shape = (*frame_size(self._file(0)), 3) if video else self.frames(0).shape[1:]
        pixels = column_of(np.uint8, shape)
        if pixels is None or not pixels.image:
            raise InputError(f"{self._file(0)} holds frames of shape {shape}, expected (h, w, C); restore it")
        return columns | {"pixels": pixels}, left_out

    def rows(self, number: int, names: list[str]) -> dict[str, np.ndarray]:
        """Rows (N, ...) of one episode, padding cut off; a copy, so that the file's pages can go."""
        length = self.lengths[number]
        missing = [name for name in names if name not in self._steps]
        if missing:
            raise InputError(f"{self.folder} has no '{missing[0]}' for each step, another split has; restore it")
        rows = {name: self._steps[name][number, :length] for name in names}
        check_size(sum(values.nbytes for values in rows.values()), str(self.folder))
        return {name: np.array(values) for name, values in rows.items()}

    def frames(self, number: int, shape: tuple[int, ...] = ()) -> np.ndarray:
        """Frames (N, h, w, C), uint8; `shape` is what is expected of a video's."""
        path, length = self._file(number), self.lengths[number]
        if path.suffix == ".mp4":
            return read_frames(path, length, shape[:2])
        frames = load_tensors(path)
        if not hasattr(frames, "numpy") or frames.ndim != 4 or len(frames) < length:
            raise InputError(
                f"{path}: expected a tensor of {length} or more frames, got {_brief(frames)}; restore it"
            )
        frames = frames[:length].numpy()
        check_size(frames.nbytes, str(path))
        if frames.shape[3] not in (1, 3) and frames.shape[1] in (1, 3):
            frames = frames.transpose(0, 2, 3, 1)
        return np.array(to_uint8(frames, str(path)))

    def facts(self, number: int) -> dict[str, Any]:
        """The split, and values that hold for the whole episode (wall's places, Push-T's shape)."""
        facts = {name: plain(np.asarray(values[number])) for name, values in self._whole.items()}
        return facts | ({"split": self.split} if self.split else {})

    def _load(self, name: str) -> np.ndarray:
        tensor = load_tensors(self._tensors[name])
        if not hasattr(tensor, "numpy") or tensor.ndim < (2 if name == "states" else 1):
            raise InputError(
                f"{self._tensors[name]}: expected a tensor (E, T, ...), got {_brief(tensor)}; restore it"
            )
        with guarded(str(self._tensors[name])):  # sparse ones, and dtypes numpy does not know
            return tensor.numpy()

    def _lengths(self, count: int, width: int) -> list[int]:
        pickled = self.folder / "seq_lengths.pkl"
        if pickled.is_file():
            path, lengths = pickled, load_pickle(pickled)
        elif "seq_lengths" in self._tensors:
            path, lengths = self._tensors["seq_lengths"], load_tensors(self._tensors["seq_lengths"])
        else:
            return [width] * count
        try:
            lengths = [int(length) for length in lengths]
        except (TypeError, ValueError, OverflowError):
            raise InputError(f"{path} does not hold a list of lengths but {_brief(lengths)}; restore it") from None
        if len(lengths) != count or not all(0 < length <= width for length in lengths):
            raise InputError(f"{path}: expected {count} lengths of 1 to {width}; it is not of these states.pth")
        return lengths

    def _file(self, number: int) -> Path:
        for name in (f"episode_{number:03d}", f"episode_{number:05d}"):
            for suffix in (".mp4", ".pth"):
                path = self.folder / "obses" / (name + suffix)
                if path.is_file():
                    return path
        raise InputError(f"{self.folder}/obses/episode_{number:03d}.mp4 or .pth is missing; restore it")


def load_pickle(path: Path) -> Any:
    """A pickle of plain values, numpy arrays and torch tensors; whatever else it names is refused, not run."""
    try:
        with path.open("rb") as file:
            return _Unpickler(file).load()
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # a damaged pickle can raise anything
        raise InputError(f"{path} is damaged ({error!r}); restore it") from None


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core.", "numpy._core.")  # its name before numpy 2; 1.26 knows both
        if (module, name) in ALLOWED:
            return super().find_class(module, name)
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return _tensor_bytes
        raise InputError(f"the file wants to run {module}.{name}; only numbers, texts and arrays are read")


def _tensor_bytes(data: bytes) -> Any:
    import torch

    return torch.load(io.BytesIO(data), weights_only=True)


def _parts(root: Path) -> dict[str, Path]:
    """Split ('' where there are none) -> folder."""
    folders = {"": root} | {split: root / split for split in SPLITS}
    found = {s: f for s, f in folders.items() if (f / "states.pth").is_file() and (f / "obses").is_dir()}
    return {"": root} if "" in found else found


def _brief(value: object) -> str:
    shape = getattr(value, "shape", None)
    return f"{type(value).__name__}{'' if shape is None else f' {tuple(shape)}'}"
