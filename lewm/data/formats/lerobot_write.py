"""Writes a LeRobotDataset v3.0, one group of episodes after the other; layout in `lerobot`.

A group (GROUP_BYTES of raw rows) is one parquet file, one MP4 per camera and one file of meta/episodes. Each is
written beside its place and renamed, meta/episodes last: a group that has it is complete, and a second run goes on
after it. Statistics and tasks are made of meta/episodes at the end and so do not depend on interruptions. info.json
is the very last file: without it no reader takes the folder for a data set. Memory holds one episode.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lewm.data.formats import lerobot_stats as statistics
from lewm.data.formats.base import Tick
from lewm.data.formats.common import PART, claim, replace_file, write_json
from lewm.data.formats.lerobot import MARKER
from lewm.data.formats.lerobot_tables import BOOKKEEPING, EXTRA, schema_of, table_of, task_table
from lewm.data.formats.video import VideoWriter, frame_rate, rgb
from lewm.data.schema import Column
from lewm.extras import need
from lewm.types import Episode, InputError

if TYPE_CHECKING:
    from lewm.data.reader import EpisodeReader

GROUP_BYTES = 1 << 29  # raw; near LeRobot's 100 MB a parquet file with PNGs, less with video
CHUNK = 1000  # files per chunk folder
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES = f"meta/episodes/{DATA.removeprefix('data/')}"
VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
NO_TASK = "unspecified"  # LeRobot wants a text for every frame


@dataclass(frozen=True)
class Plan:
    """What is written where: feature key -> (our column's name, its Column), and the derived `next.done`."""

    fps: int
    images: str
    features: Mapping[str, tuple[str, Column]]
    done_from: tuple[str, ...]

    @property
    def cameras(self) -> list[str]:
        """Feature keys of images."""
        return [key for key, (_, column) in self.features.items() if column.image]


def write(reader: EpisodeReader, out: Path, *, fps: float, tick: Tick, images: str) -> None:
    """Write every episode, T frames each: the last observation has no action and LeRobot no row for it.

    Raises:
        InputError: a column LeRobot cannot hold, a frame rate that is not whole, `out` holding something else.
    """
    need("pyarrow.parquet", EXTRA)
    need("av", EXTRA)
    plan = _plan(reader.info.columns, fps, images)
    features = {name: key for key, (name, _) in plan.features.items()}
    claim(out, MARKER, reader, fps=plan.fps, images=images, features=features)
    rows = np.concatenate([[0], np.cumsum(reader.steps)])
    groups = list(_groups(reader, plan))
    tasks: dict[str, int] = {}
    for number, (first, last) in enumerate(groups):
        place = out / EPISODES.format(chunk_index=number // CHUNK, file_index=number % CHUNK)
        if not place.is_file():
            _write_group(reader, out, plan, number, range(first, last), rows, tasks)
        for episode in need("pyarrow.parquet", EXTRA).read_table(place, columns=["tasks"])["tasks"].to_pylist():
            tasks.setdefault(episode[0], len(tasks))
        tick(last - first)
    _finish(out, plan, len(groups), len(reader), int(rows[-1]), tasks)


def _plan(columns: Mapping[str, Column], fps: float, images: str) -> Plan:
    if frame_rate(fps, "LeRobot").denominator != 1:
        raise InputError(f"LeRobot wants a whole number of frames per second, got {fps:g}; give another fps")
    if images not in ("video", "image"):
        raise InputError(f'images must be "video" or "image", got "{images}"')
    features: dict[str, tuple[str, Column]] = {}
    state = next((name for name in ("state", "proprio", "observation") if name in columns), None)
    for name, column in columns.items():
        if column.stride != 1:
            raise InputError(
                f"LeRobot keeps a frame for every row, column '{name}' has every {column.stride}th step only; "
                "collect with frame_stride=1"
            )
        h, w = column.shape[:2] if column.image else (0, 0)
        if column.image and column.shape[2] not in (1, 3):
            raise InputError(f"LeRobot's images have 1 or 3 channels, column '{name}' is {column.shape}")
        if images == "video" and (h % 2 or w % 2):
            raise InputError(
                f"video (yuv420p) needs even sizes, column '{name}' is {h} x {w}; export with images=image (PNG)"
            )
        if name == "action":
            key = name
        elif column.transition:
            key = f"next.{name}"
        elif column.image:
            key = f"observation.images.{name}"
        else:
            key = "observation.state" if name == state else f"observation.{name}"
        features[key] = (name, column)
    done = tuple(name for name in ("terminated", "truncated") if f"next.{name}" in features)
    return Plan(int(fps), images, features, done if "next.done" not in features else ())


def _groups(reader: EpisodeReader, plan: Plan) -> Iterator[tuple[int, int]]:
    """[first, last + 1] episode positions of each group; depends on the data set alone."""
    size = sum(column.row_bytes for _, column in plan.features.values())
    first, held = 0, 0
    for position, steps in enumerate(reader.steps):
        if position > first and held + steps * size > GROUP_BYTES:
            yield first, position
            first, held = position, 0
        held += steps * size
    yield first, len(reader)


def _write_group(
    reader: EpisodeReader,
    out: Path,
    plan: Plan,
    number: int,
    positions: range,
    rows: np.ndarray,
    tasks: Mapping[str, int],
) -> None:
    """One parquet file, one video per camera, one file of meta/episodes."""
    pa, pq = need("pyarrow", EXTRA), need("pyarrow.parquet", EXTRA)
    at = {"chunk_index": number // CHUNK, "file_index": number % CHUNK}
    seen, shown, records = dict(tasks), 0, []
    data, meta = _part(out / DATA.format(**at)), _part(out / EPISODES.format(**at))
    cameras = plan.cameras if plan.images == "video" else []
    videos = {key: _part(out / VIDEO.format(video_key=key, **at)) for key in cameras}
    schema = schema_of(_spec(plan))
    with ExitStack() as stack:
        writers = {
            key: stack.enter_context(VideoWriter(path, plan.features[key][1].shape[:2], plan.fps, gop=2))
            for key, path in videos.items()
        }
        table_writer = stack.enter_context(pq.ParquetWriter(data, schema, compression="snappy"))
        for position in positions:
            episode = reader.episode(position)
            task = episode.facts.get("task")
            task = task if isinstance(task, str) and task else NO_TASK
            index = seen.setdefault(task, len(seen))
            columns = _frames(episode, plan, position, int(rows[position]), index)
            for key, writer in writers.items():
                writer.add(rgb(columns[key], f"column '{plan.features[key][0]}'"))
            table_writer.write_table(table_of(columns, schema))
            record = {
                "episode_index": position,
                "tasks": [task],
                "length": episode.steps,
                **{f"{folder}/{k}": v for folder in ("data", "meta/episodes") for k, v in at.items()},
                "dataset_from_index": int(rows[position]),
                "dataset_to_index": int(rows[position + 1]),
                "lewm/facts": json.dumps(dict(episode.facts)),
                **statistics.flat({key: statistics.of_feature(values) for key, values in columns.items()}),
            }
            for key in cameras:
                record |= {f"videos/{key}/{k}": v for k, v in at.items()}
                record[f"videos/{key}/from_timestamp"] = shown / plan.fps
                record[f"videos/{key}/to_timestamp"] = (shown + episode.steps) / plan.fps
            shown += episode.steps
            records.append(record)
    pq.write_table(pa.Table.from_pylist(records), meta, compression="snappy")
    for part in (*videos.values(), data, meta):  # meta/episodes last: it says that the others are complete
        replace_file(part)


def _part(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(path.name + PART)


def _frames(episode: Episode, plan: Plan, position: int, first: int, task: int) -> dict[str, np.ndarray]:
    """Feature -> its T rows, LeRobot's own five among them."""
    steps = episode.steps
    columns = {key: np.asarray(episode.columns[name])[:steps] for key, (name, _) in plan.features.items()}
    if plan.done_from:
        columns["next.done"] = np.logical_or.reduce(
            [columns[f"next.{name}"].astype(bool) for name in plan.done_from]
        )
    frame = np.arange(steps, dtype=np.int64)
    own = (
        (frame / plan.fps).astype(np.float32),
        frame,
        np.full(steps, position),
        first + frame,
        np.full(steps, task),
    )
    return columns | dict(zip(BOOKKEEPING, own, strict=True))


def _spec(plan: Plan) -> dict[str, dict[str, Any]]:
    """The features as info.json describes them."""
    spec = {}
    for key, (_, column) in plan.features.items():
        if not column.image:
            shape = [int(np.prod(column.shape, dtype=int))]  # LeRobot's Array2D and up need the package `datasets`
            spec[key] = {"dtype": column.dtype, "shape": shape, "names": None}
            continue
        h, w, _ = column.shape
        spec[key] = {"dtype": plan.images, "shape": [h, w, 3], "names": ["height", "width", "channels"]}
        if plan.images == "video":
            facts = {"height": h, "width": w, "codec": "h264", "pix_fmt": "yuv420p", "is_depth_map": False}
            facts |= {"fps": plan.fps, "channels": 3}
            spec[key]["info"] = {f"video.{k}": v for k, v in facts.items()} | {"has_audio": False}
    if plan.done_from:
        spec["next.done"] = {"dtype": "bool", "shape": [1], "names": None}
    own = {key: "float32" if key == "timestamp" else "int64" for key in BOOKKEEPING}
    return spec | {key: {"dtype": dtype, "shape": [1], "names": None} for key, dtype in own.items()}


def _finish(out: Path, plan: Plan, groups: int, episodes: int, frames: int, tasks: Mapping[str, int]) -> None:
    """Everything about the whole set: statistics, tasks, and at the very end info.json."""
    pq = need("pyarrow.parquet", EXTRA)
    total = statistics.Total()
    for number in range(groups):
        path = out / EPISODES.format(chunk_index=number // CHUNK, file_index=number % CHUNK)
        keys = [name for name in pq.read_schema(path).names if name.startswith("stats/")]
        for record in pq.read_table(path, columns=keys).to_pylist():
            total.add(record)
    write_json(out / "meta" / "stats.json", total.result())
    part = _part(out / "meta" / "tasks.parquet")
    pq.write_table(task_table(tasks), part)
    replace_file(part)
    info = {
        "codebase_version": "v3.0",
        "robot_type": None,
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": len(tasks),
        "chunks_size": CHUNK,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": plan.fps,
        "splits": {"train": f"0:{episodes}"},
        "data_path": DATA,
        "video_path": VIDEO if plan.images == "video" and plan.cameras else None,
        "features": _spec(plan),
    }
    write_json(out / "meta" / "info.json", info)
