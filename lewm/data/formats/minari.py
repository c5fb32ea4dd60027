"""Minari data sets. Layout: minari 0.5.4, dataset/_storages/{hdf5,arrow}_storage.py, serialization.py.

    <id>/data/metadata.json        spaces as JSON strings, data_format, total_episodes, jpeg_encoding
    hdf5            data/main_data.hdf5: a group episode_<i> each; attributes id, total_steps, seed, options/..
    arrow, parquet  data/<i>/part-*.<format>, data/<i>/metadata.json; T+1 rows, transitions padded by one
    of an episode   observations (T+1), actions, rewards, terminations, truncations (T), infos/<key> (T+1)

Observations may be nested (Dict: keys, Tuple: numbers); names are joined with dots. Row t of `actions` acts at
observation t, as here. We read the three layouts without the package and write the first: it is Minari's default,
its reader takes it without the conditions it has for Arrow (an episode in a single record batch, no 1-D infos).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lewm.data.formats.base import Format, Source, Tick
from lewm.data.formats.columns import Leaf, action_column, as_column, column_of, image_rows, named, plain
from lewm.data.formats.common import FINGERPRINT, check_finished, guarded, read_json
from lewm.data.formats.minari_files import FACTS, MAIN_FILE, METADATA, Arrow, Node, OpenedArrow, OpenedHdf5
from lewm.data.formats.minari_spaces import bounds_of, is_image, is_raw, leaves_of, shape_of, space_of
from lewm.registry import register
from lewm.types import Episode, InputError

if TYPE_CHECKING:
    from lewm.data.reader import EpisodeReader

PER_STEP = {"rewards": "reward", "terminations": "terminated", "truncations": "truncated"}


@register("format", "minari")
class Minari(Format):
    """Minari data sets, both ways."""

    name = "minari"
    title = "Minari data set (HDF5, Arrow, Parquet)"
    extra = "minari"

    @staticmethod
    def detect(path: Path) -> bool:
        """A folder with Minari's metadata.json in it or in its `data`."""
        try:
            return "action_space" in _metadata(path)[1]
        except (InputError, OSError):
            return False

    @staticmethod
    def open(path: Path) -> Source:
        """The folder of the data set, its `data` folder, or its HDF5 file."""
        return MinariSource(*_metadata(path))

    @staticmethod
    def write(reader: EpisodeReader, out: Path, *, fps: float, tick: Tick) -> None:
        """Write folder `out`, named `<name>-v<number>`; it loads as that id where it lies in MINARI_DATASETS_PATH.

        Observations become a Dict space, images raw (lossless, gzip). A run after a kill starts afresh.
        """
        if re.fullmatch(r"[-_\w]+-v\d+", out.name) is None:
            raise InputError(f"{out}: Minari wants names like 'push-v0', got '{out.name}'")
        if out.exists():
            check_finished(reader, out, _metadata(out)[1].get(FINGERPRINT), tick)
            return
        from lewm.data.formats.minari_write import write_minari

        write_minari(reader, out, tick)


def _metadata(path: Path) -> tuple[Path, dict[str, Any]]:
    """The `data` folder and its metadata.json."""
    folder = path.parent if path.name == MAIN_FILE else path
    file = next((f for f in (folder / "data" / METADATA, folder / METADATA) if f.exists()), None)
    if file is None:
        raise InputError(f"{path} has no {METADATA} or data/{METADATA}; this is not a Minari data set")
    return file.parent, read_json(file)


class MinariSource(Source):
    """An opened Minari data set; `data` is the folder of its metadata.json."""

    def __init__(self, data: Path, record: Mapping[str, Any]) -> None:
        self.data = data
        where = data / METADATA
        layout = record.get("data_format", "hdf5")
        if layout not in ("hdf5", "arrow", "parquet"):
            raise InputError(f"{where} has data_format '{layout}'; known: hdf5, arrow, parquet")
        self._open = OpenedHdf5.open if layout == "hdf5" else OpenedArrow.open(layout)
        self._count = record.get("total_episodes")
        if not isinstance(self._count, int) or self._count < 1:
            raise InputError(f"{where} has total_episodes {self._count!r}; expected at least one episode")
        self._action_space = space_of(record, "action_space", where)
        if self._action_space["type"] not in ("Box", "Discrete", "MultiDiscrete", "MultiBinary"):
            raise InputError(
                f"{where}: actions of type {self._action_space['type']} are not supported; flatten them"
            )
        with guarded(str(where)):
            spaces = dict(leaves_of(space_of(record, "observation_space", where)))
            jpeg = bool(record.get("jpeg_encoding", True))
            self._shapes = {path: shape_of(space) for path, space in spaces.items()}
            self._encoded = {path for path, space in spaces.items() if jpeg and is_image(space)}
            self._bounds = bounds_of(self._action_space)
        with self._open(data) as files:
            leaves, left_out = self._describe(files)
        self._leaves, renamed = named(leaves, data)
        self.columns = {name: leaf.column for name, leaf in self._leaves.items()}
        kept = (
            "dataset_id",
            "minari_version",
            "algorithm_name",
            "env_spec",
            "author",
            "description",
            "requirements",
        )
        self.about: Mapping[str, Any] = {
            "format": f"minari {layout}",
            **{key: plain(record[key]) for key in kept if key in record},
            "left_out": left_out,
            "renamed": renamed,
        }

    def __len__(self) -> int:
        return self._count

    def action_bounds(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Those of the action space, where they are finite."""
        return self._bounds

    def episodes(self, first: int = 0) -> Iterator[Episode]:
        """One episode in memory at a time; facts are seed, reset options and what else its metadata has."""
        with self._open(self.data) as files:
            for position in range(first, len(self)):
                columns = self._read(files, position, self._leaves)
                with guarded(f"{self.data}, episode {position}"):
                    facts = files.facts(position)
                    ours = json.loads(facts.pop(FACTS, "{}"))
                    facts = {k: plain(v) for k, v in facts.items() if k not in ("id", "total_steps")} | ours
                yield Episode(position, columns, facts)

    def actions(self) -> Iterator[np.ndarray]:
        """The actions alone."""
        with self._open(self.data) as files:
            for position in range(len(self)):
                yield self._read(files, position, {"action": self._leaves["action"]})["action"]

    def _describe(self, files: Any) -> tuple[dict[str, Leaf], list[str]]:
        """Columns of the first episode; infos only where every episode has them alike."""
        with guarded(f"{self.data}, episode 0"):
            root = files.episode(0)
            leaves, left_out = {}, []
            for path, shape in self._shapes.items():
                name = path.removeprefix("observations").replace("/_index_", "/").strip("/") or "observation"
                column = None
                if shape is not None:
                    rows = self._array(root.at(path), path)[:1]
                    column = column_of(rows.dtype, rows.shape[1:])
                if column is None:
                    left_out.append(f"{name} (not of numbers)")
                else:
                    leaves[name] = Leaf(path, column)
            actions = np.asarray(root.at("actions").rows())
            leaves["action"] = Leaf("actions", action_column(actions.dtype, actions.shape[1:]))
            for path, name in PER_STEP.items():
                rows = np.asarray(root.at(path).rows())
                column = column_of(rows.dtype, rows.shape[1:], transition=True)
                if column is None:
                    raise InputError(f"'{path}' is {rows.dtype} {rows.shape}, expected a number in each row")
                leaves[name] = Leaf(path, column)
        first = dict(self._infos(files, 0))
        common = set(first.items())
        for position in range(1, self._count if first else 0):
            common &= set(self._infos(files, position))
        for path, kind in first.items():
            column = column_of(*kind[:2], transition=kind[2]) if kind else None
            if column is None or (path, kind) not in common:
                left_out.append(f"{path} (not of numbers, or not alike in all episodes)")
            else:
                leaves[path.removeprefix("infos/") if kind[2] else path] = Leaf(path, column, late=kind[2])
        return leaves, left_out

    def _infos(self, files: Any, position: int) -> Iterator[tuple[str, tuple | None]]:
        """Path and (dtype, row shape, late) of every info of an episode; None where the store cannot keep it."""
        with guarded(f"{self.data}, episode {position}"):
            root = files.episode(position, data=False)
            if "infos" not in root.names():
                return
            for path, node in root.at("infos").arrays("infos/"):
                kind = node.kind()
                yield path, None if kind is None else (kind[0].name, kind[1], node.late)

    def _read(self, files: Any, position: int, leaves: Mapping[str, Leaf]) -> dict[str, np.ndarray]:
        """T rows of transitions, T + 1 of observations."""
        where = f"{self.data}, episode {position}"
        columns = {}
        with guarded(where):
            root = files.episode(position)
            count = len(root.at("rewards").rows()) + (not isinstance(root, Arrow))
            if count < 2:
                raise InputError(f"{where} has no step; remove it with minari.split_dataset or filter_episodes")
            for name, leaf in leaves.items():
                rows = self._array(root.at(leaf.path), leaf.path)
                begin, end = leaf.span(count)
                padded = isinstance(root, Arrow) or leaf.late or not leaf.column.transition
                if len(rows) != count - (not padded):
                    raise InputError(
                        f"{where}: '{leaf.path}' has {len(rows)} rows, expected {count - (not padded)} for "
                        f"{count - 1} steps; mend or leave out that episode"
                    )
                columns[name] = as_column(rows[begin:end], leaf.column, f"{where}, column '{name}'")
        return columns

    def _array(self, node: Node, path: str) -> np.ndarray:
        """Rows of an array, images decoded, in the shape its space states."""
        rows, shape = node.rows(), self._shapes.get(path)
        if path in self._encoded and not is_raw(rows, shape):
            return image_rows([bytes(row) for row in rows], path, shape)
        rows = np.asarray(rows)
        return rows if shape is None else rows.reshape(len(rows), *shape)
