"""LeRobotDataset v3.0, read with pyarrow and PyAV; `lerobot_write` writes it.

    meta/info.json  meta/stats.json  meta/tasks.parquet
    meta/episodes/chunk-000/file-000.parquet   one row per episode: which rows, which seconds of a video
    data/chunk-000/file-000.parquet            one row per frame
    videos/<camera>/chunk-000/file-000.mp4     the episodes of a file one after the other

    row     0    1    ...  N-1             N rows: observation t and the action taken there
    state   s0   s1        sN-1
    action  a0   a1        (aN-1)          no row N: the last action has no successor and is dropped, T = N - 1
    next.*  r0   r1        (rN-1)          what came of a_t

Layout as in lerobot 0.4 to 0.6, src/lerobot/datasets. Frame t of an episode is the one shown at
`from_timestamp + frame_index / fps` seconds. Features of text and depth maps are left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lewm.data.formats.base import Format, Source, Tick
from lewm.data.formats.columns import camera_names, column_of
from lewm.data.formats.common import LAST_ROW, episode_of_rows, guarded, read_json
from lewm.data.formats.lerobot_tables import BOOKKEEPING, EXTRA, EpisodeRows, numbers, pictures
from lewm.data.formats.video import frame_rate, read_frames
from lewm.data.schema import Column
from lewm.extras import need
from lewm.registry import register
from lewm.types import Episode, InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from lewm.data.reader import EpisodeReader

MARKER = "meta/lewm.json"  # beside LeRobot's own files: how an export of ours maps back
FIELD = re.compile(r"\{(chunk_index|file_index|video_key)(?::0([1-9])d)?\}")
BOUNDS = ("action_low", "action_high")
PLACE_KEYS = ("episode_index", "length", "data/chunk_index", "data/file_index", "dataset_from_index")


@register("format", "lerobot")
class LeRobot(Format):
    """LeRobotDataset v3.0, both ways."""

    name: ClassVar[str] = "lerobot"
    title: ClassVar[str] = "LeRobotDataset v3.0: a folder with meta/info.json"
    extra: ClassVar[str | None] = EXTRA

    @staticmethod
    def detect(path: Path) -> bool:
        """Whether meta/info.json names a LeRobot version; 2 as well, so that `open` can say what to do."""
        try:
            return "codebase_version" in json.loads((path / "meta" / "info.json").read_text())
        except (OSError, ValueError, TypeError):
            return False

    @staticmethod
    def open(path: Path) -> LeRobotSource:
        """Open for streaming, one episode in memory."""
        return LeRobotSource(path)

    @staticmethod
    def write(reader: EpisodeReader, out: Path, *, fps: float, tick: Tick, images: str = "video") -> None:
        """Write every episode; `images` is "video" (H.264, as LeRobot users expect) or "image" (PNG, lossless)."""
        from lewm.data.formats.lerobot_write import write

        write(reader, out, fps=fps, tick=tick, images=images)


@dataclass(frozen=True)
class Feature:
    """A feature that is read: its key in LeRobot, our column, how it is stored."""

    key: str
    name: str
    stored: str  # "video", "image" or "rows"
    column: Column


class LeRobotSource(Source):
    """A LeRobotDataset v3.0 opened for streaming."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.info = read_json(root / "meta" / "info.json")
        version = str(self.info.get("codebase_version"))
        if not version.startswith("v3."):
            raise InputError(
                f"{root} is a LeRobotDataset {version}, this reads v3.0; for v2.1 run "
                "`python -m lerobot.datasets.v30.convert_dataset_v21_to_v30` of lerobot first"
            )
        ours = read_json(root / MARKER) if (root / MARKER).is_file() else {}
        with guarded(f"{root}/meta/info.json is damaged; it"):
            self.fps = float(self.info["fps"])
            frame_rate(self.fps, str(root))
            self.features, left_out = _plan(self.info["features"], ours)
            self._bounds = tuple(np.array(ours[key], np.float64) for key in BOUNDS) if ours else None
            for key in ("data_path", "video_path")[: 1 + any(f.stored == "video" for f in self.features)]:
                self._path(key, video_key="key", chunk_index=0, file_index=0)
        if "action" not in {feature.name for feature in self.features}:
            raise InputError(f"{root} has no feature 'action'; a world model needs one: add it to the data set")
        self._places = self._read_places()
        self.columns = {feature.name: feature.column for feature in self.features}
        self.about = {
            "format": f"LeRobotDataset {version}",
            "fps": self.fps,
            "robot_type": self.info.get("robot_type"),
            "features": {feature.name: feature.key for feature in self.features},
            "left_out": left_out,
            "note": LAST_ROW,
        }
        if ours:
            self.about["source"] = ours["source"]

    def __len__(self) -> int:
        return len(self._places["length"])

    def action_bounds(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Those of our own export; LeRobot states none (stats.json holds extremes of the data)."""
        return self._bounds

    def actions(self) -> Iterator[np.ndarray]:
        """The actions of each episode, without decoding an image."""
        files = EpisodeRows(self)
        action = next(feature for feature in self.features if feature.name == "action")
        for number in range(len(self)):
            yield self._values(action, files.read(number, [action.key]), number)[:-1]

    def episodes(self, first: int = 0) -> Iterator[Episode]:
        """Episodes in LeRobot's order; the facts are the task's text and what our own export kept."""
        files = EpisodeRows(self)
        keys = [feature.key for feature in self.features if feature.stored != "video"]
        for number in range(first, len(self)):
            with guarded(f"{self.root}, episode {number}"):
                table = files.read(number, keys)
                rows = {feature.name: self._values(feature, table, number) for feature in self.features}
                episode = episode_of_rows(number, rows, self.columns, str(self.root), self._facts(number))
            yield episode

    def data_file(self, number: int) -> Path:
        """The parquet file of an episode's rows."""
        chunk, file = (int(self._places[f"data/{part}_index"][number]) for part in ("chunk", "file"))
        return self._path("data_path", chunk_index=chunk, file_index=file)

    def place(self, number: int) -> tuple[int, int, int]:
        """LeRobot's index of an episode, its first row in the whole set and its number of rows."""
        return tuple(int(self._places[key][number]) for key in ("episode_index", "dataset_from_index", "length"))

    def _path(self, key: str, **fields: int | str) -> Path:
        """A file below the root, by a template of info.json: the fields LeRobot knows and nothing else."""

        def fill(field: re.Match[str]) -> str:
            value = fields[field[1]]
            return str(value).zfill(int(field[2] or 0)) if isinstance(value, int) else value

        template = self.info[key]
        path = Path(FIELD.sub(fill, template))
        odd = set(FIELD.sub("", template)) & set("{}\0")
        if odd or path.is_absolute() or ".." in path.parts:
            raise InputError(
                f"{self.root}/meta/info.json: {key} '{template}' names no file below the data set; restore it, "
                "LeRobot's own is 'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet'"
            )
        return self.root / path

    def _facts(self, number: int) -> dict[str, Any]:
        kept = self._places.get("lewm/facts")
        if kept is not None:
            return json.loads(kept[number])
        tasks = list(self._places["tasks"][number]) if "tasks" in self._places else []
        return {"task": tasks[0]} if len(tasks) == 1 else {"tasks": tasks}

    def _values(self, feature: Feature, table: pa.Table, number: int) -> np.ndarray:
        """The rows (N, *shape) of a feature of one episode."""
        place = f"{self.data_file(number)}, episode {number}, '{feature.key}'"
        if feature.stored == "rows":
            return numbers(table.column(feature.key), feature.column, place)
        if feature.stored == "image":
            return pictures(table.column(feature.key), feature.column, place)
        key, length = feature.key, self.place(number)[2]
        chunk, file = (int(self._places[f"videos/{key}/{part}_index"][number]) for part in ("chunk", "file"))
        path = self._path("video_path", video_key=key, chunk_index=chunk, file_index=file)
        start = float(self._places[f"videos/{key}/from_timestamp"][number])
        size = feature.column.shape[:2]
        frames = read_frames(path, length, size, start=start, fps=self.fps, extra=EXTRA)
        return frames[..., : feature.column.shape[2]]  # grey comes back as three equal channels

    def _read_places(self) -> dict[str, Any]:
        """Where each episode is: columns of meta/episodes, less its statistics."""
        pq, pa, pc = need("pyarrow.parquet", EXTRA), need("pyarrow", EXTRA), need("pyarrow.compute", EXTRA)
        videos = [feature.key for feature in self.features if feature.stored == "video"]
        wanted = list(PLACE_KEYS)
        wanted += [f"videos/{k}/{part}" for k in videos for part in ("chunk_index", "file_index", "from_timestamp")]
        files = sorted((self.root / "meta" / "episodes").glob("*/*.parquet"))
        tables = []
        for path in files:
            with guarded(f"{path} is damaged; it"):
                schema = pq.read_schema(path)
                for key in wanted:
                    kinds = (pa.types.is_integer, pa.types.is_floating)[: 1 + key.endswith("timestamp")]
                    if key not in schema.names or not any(kind(schema.field(key).type) for kind in kinds):
                        raise InputError(f"{path} has no column '{key}' of numbers; restore the file")
                table = pq.read_table(path, columns=[*wanted, *({"tasks", "lewm/facts"} & set(schema.names))])
                bad = [k for k in wanted if table[k].null_count or not (pc.min(table[k]).as_py() or 0) >= 0]
                if bad:
                    raise InputError(f"{path}: '{bad[0]}' is missing or negative in some row; restore the file")
                tables.append(table)
        total = sum(len(table) for table in tables)
        if not total or total != self.info.get("total_episodes"):
            raise InputError(
                f"{self.root}: info.json counts {self.info.get('total_episodes')} episodes, meta/episodes has "
                f"{total}; the copy is not complete: download it again"
            )
        text = ("tasks", "lewm/facts")
        with guarded(f"{self.root}/meta/episodes"):
            table = pa.concat_tables(tables, promote_options="permissive").sort_by("episode_index")
            return {k: table[k].to_pylist() if k in text else table[k].to_numpy() for k in table.column_names}


def _plan(features: Mapping[str, Any], ours: Mapping[str, Any]) -> tuple[list[Feature], dict[str, str]]:
    """Which features are read as which columns, and which are left out and why."""
    names, left_out = _names(features, ours), {}
    plan = []
    for key, name in names.items():
        spec = features[key]
        kind, shape = spec["dtype"], tuple(int(size) for size in spec["shape"])
        info = {**(spec.get("video_info") or {}), **(spec.get("info") or {})}
        if kind in ("video", "image"):
            if info.get("is_depth_map") or info.get("video.is_depth_map"):
                left_out[key] = "a depth map"
                continue
            if (spec.get("names") or [None])[0] in ("channel", "channels"):
                shape = (*shape[1:], shape[0])
            column = column_of(np.uint8, shape)
        elif kind in ("string", "language"):
            left_out[key] = "text"
            continue
        else:
            transition = name == "action" or key.startswith("next.")
            dtype = np.float32 if name == "action" and np.dtype(kind).kind != "f" else kind
            scalar = shape == (1,) and transition and name != "action"
            column = column_of(dtype, () if scalar else shape, transition=transition)
            kind = "rows"
        if name in ours.get("columns", {}):
            known = ours["columns"][name]
            column = column_of(
                known["dtype"], known["shape"], transition=name == "action" or known["transition"] is True
            )
        if column is None:
            left_out[key] = f"{spec['dtype']} of shape {shape}"
            continue
        if kind != "rows" and not column.image:
            raise InputError(f"feature '{key}' is {kind} of shape {shape}, expected (h, w, C)")
        plan.append(Feature(key, name, kind, column))
    return plan, left_out


def _names(features: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, str]:
    """Feature -> column. `observation.` and `next.` fall away; one camera is called `pixels`."""
    if ours:
        return {key: name for name, key in ours["options"]["features"].items()}
    keys = [key for key in features if key not in BOOKKEEPING]
    cameras = [key for key in keys if features[key]["dtype"] in ("video", "image")]
    names: dict[str, str] = {}
    for key in keys:
        short = key.removeprefix("observation.images.") if key in cameras else key
        short = short.removeprefix("observation.").removeprefix("next.").replace("/", ".")
        names[key] = short if short not in names.values() else key.replace("/", ".")
    main = camera_names([names[key] for key in cameras], ["image", "top", "front"])
    return {key: main[name] if key in cameras else name for key, name in names.items()}
