"""A folder of MP4 files to look at and to hand on, with everything else beside them; write only.

    export.json                       what was exported, with which columns
    pixels/episode_000012.mp4         T + 1 frames of a camera, one folder per camera; 000012 is the episode's id
    wrist/episode_000012.mp4
    rows/episode_000012.npz           every other column: T rows of action and reward, T + 1 of state
    rows/episode_000012.json          id, steps, fps and facts; written last: an episode that has it is complete

Frame t is shown at t / fps seconds (t * stride / fps for a camera kept every stride-th step); it is observation t,
and row t of `action` is what was done next. Video is H.264, yuv420p, near lossless; odd sizes are padded by one row
or column. Other columns are exact.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from lewm.data.formats.base import Format, Tick
from lewm.data.formats.common import PART, claim, replace_file, write_json
from lewm.data.formats.video import VideoWriter, even, frame_rate, rgb
from lewm.data.schema import Column
from lewm.extras import need
from lewm.registry import register
from lewm.types import Episode, InputError

if TYPE_CHECKING:
    from lewm.data.reader import EpisodeReader

ROWS = "rows"


@register("format", "mp4")
class Mp4Folder(Format):
    """One MP4 per episode and camera, for eyes and for other people's tools."""

    name: ClassVar[str] = "mp4"
    title: ClassVar[str] = "a folder of MP4 files, the other columns beside them as .npz"
    extra: ClassVar[str | None] = "video"

    @staticmethod
    def detect(path: Path) -> bool:
        """Never: it is not read."""
        return False

    @staticmethod
    def write(reader: EpisodeReader, out: Path, *, fps: float, tick: Tick) -> None:
        """Write every episode that `out` does not have yet.

        Raises:
            InputError: no camera, frames that are no video, `out` holding something else.
        """
        need("av", "video")
        cameras = {name: column for name, column in reader.info.columns.items() if column.image}
        if not cameras:
            raise InputError(f"{reader.folder} has no column of images; there is no video to write")
        for name, column in cameras.items():
            rgb(np.zeros((0, *column.shape), np.uint8), f"column '{name}'")
            frame_rate(fps / column.stride, f"column '{name}'")
        if ROWS in cameras:
            raise InputError(f"a camera may not be called '{ROWS}'; rename it")
        claim(out, "export.json", reader, fps=fps)
        for position, number in enumerate(reader.ids):
            if not (out / ROWS / f"{_name(number)}.json").is_file():
                _write_episode(reader.episode(position), cameras, out, fps)
            tick(1)


def _name(number: int) -> str:
    return f"episode_{int(number):06d}"


def _write_episode(episode: Episode, cameras: dict[str, Column], out: Path, fps: float) -> None:
    name, parts = _name(episode.id), []
    for camera, column in cameras.items():
        frames = even(rgb(np.asarray(episode.columns[camera]), f"column '{camera}'"))
        parts.append(out / camera / f"{name}.mp4{PART}")
        with VideoWriter(parts[-1], frames.shape[1:3], fps / column.stride) as video:
            video.add(frames)
    parts.append(out / ROWS / f"{name}.npz{PART}")
    parts[-1].parent.mkdir(parents=True, exist_ok=True)
    with parts[-1].open("wb") as file:
        np.savez(file, **{key: rows for key, rows in episode.columns.items() if key not in cameras})
    for part in parts:
        replace_file(part)
    record = {"id": episode.id, "steps": episode.steps, "fps": fps, "facts": dict(episode.facts)}
    write_json(out / ROWS / f"{name}.json", record)
