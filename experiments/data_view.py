"""What `lewm data view` draws: a contact sheet, and a video of each episode."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from matplotlib.figure import Figure

from experiments.runs import progress, say
from lewm.data import EpisodeReader
from lewm.data.formats import need
from lewm.types import InputError

FRAMES = 8  # of each episode on the sheet
FRAME, GAP, LABEL, TOP = 1.2, 0.26, 1.3, 0.4  # inches: width of a frame, space above it, row labels, title
LOOKED_AT, ROWS = 200, 6  # an overview: episodes whose policy is looked up, rows shared out among the policies
INK, QUIET = "#1f2937", "#64748b"


def view(reader: EpisodeReader, positions: np.ndarray, out: Path, fps: float) -> None:
    """Write `contact-sheet.png` and `episode-<id>.mp4` of the episodes at these positions."""
    cameras = [name for name, column in reader.info.columns.items() if column.image]
    if not cameras:
        raise InputError(f"{reader.folder} holds no images to look at (columns {sorted(reader.info.columns)})")
    out.mkdir(parents=True, exist_ok=True)
    contact_sheet(reader, positions, cameras).savefig(out / "contact-sheet.png", dpi=110)
    say(f"view      {out / 'contact-sheet.png'}: {len(positions)} episodes of {reader.folder}")
    need("av", "video")
    with progress(len(positions), "view", "episodes") as bar:
        for position in positions:
            path = out / f"episode-{reader.ids[position]}.mp4"
            iio.imwrite(path, _frames(reader, int(position), cameras), plugin="pyav", codec="libx264", fps=fps)
            say(f"          {path}")
            bar.update()


def contact_sheet(reader: EpisodeReader, positions: Sequence[int] | np.ndarray, cameras: Sequence[str]) -> Figure:
    """Frames spread over each episode, one row per episode and camera: who acted, and steps above the frames.

    All of it lies in one pair of axes whose unit is the inch: axes of their own for each frame take seconds.
    """
    rows = [(int(position), camera) for position in positions for camera in cameras]
    shapes = {camera: reader.info.columns[camera].shape for camera in cameras}
    heights = [FRAME * shapes[camera][0] / shapes[camera][1] + GAP for _, camera in rows]
    size = LABEL + FRAMES * (FRAME + 0.06), TOP + sum(heights)
    figure = Figure(figsize=size)
    axis = figure.add_axes((0, 0, 1, 1))
    words = {"color": INK, "va": "center", "parse_math": False}  # a name may hold a $
    axis.text(0.1, TOP / 2, f"{reader.folder.name}: {len(reader)} episodes", fontsize=11, **words)
    for (position, camera), height, end in zip(rows, heights, TOP + np.cumsum(heights), strict=True):
        steps, stride = int(reader.steps[position]), reader.info.columns[camera].stride
        text = [_policy(reader, position), f"episode {reader.ids[position]}", f"{steps} steps"]
        text = [line for line in (*text, camera if len(cameras) > 1 else "") if line]
        axis.text(0.1, end - height / 2 + GAP / 2, "\n".join(text), fontsize=8, **words)
        shown = np.linspace(0, steps // stride, FRAMES).round().astype(int)
        frames = reader.gather(camera, np.full(FRAMES, position), shown)
        for k, (frame, step) in enumerate(zip(frames, shown * stride, strict=True)):
            left = LABEL + k * (FRAME + 0.06)
            place = (left, left + FRAME, end, end - height + GAP)
            axis.imshow(
                frame.squeeze(), cmap="gray", extent=place, aspect="auto"
            )  # the map is for one channel only
            axis.text(left, place[3] - 0.04, f"{step}", fontsize=8, color=QUIET)
    axis.set(xlim=(0, size[0]), ylim=(size[1] + 0.06, 0))
    axis.set_axis_off()
    return figure


def save_overview(reader: EpisodeReader, path: Path) -> None:
    """Write a contact sheet of a few episodes of each policy that acted; nothing for a set without images."""
    cameras = [name for name, column in reader.info.columns.items() if column.image]
    if cameras:
        contact_sheet(reader, overview_positions(reader), cameras).savefig(path, dpi=110)


def overview_positions(reader: EpisodeReader) -> list[int]:
    """Positions of the first few episodes of each policy, among some hundred spread over the set."""
    found: dict[str, list[int]] = {}
    for position in np.unique(np.linspace(0, len(reader) - 1, LOOKED_AT).round().astype(int)):
        found.setdefault(_policy(reader, position), []).append(int(position))
    each = max(1, ROWS // len(found))
    return [position for name in sorted(found) for position in found[name][:each]]


def _policy(reader: EpisodeReader, position: int) -> str:
    """Who acted in an episode; facts of foreign sets may be anything."""
    return str(reader.facts(position).get("policy", ""))


def _frames(reader: EpisodeReader, position: int, cameras: list[str]) -> np.ndarray:
    """All frames of an episode (T, h, w, 3), cameras side by side, of even size, at least 128 pixels high."""
    columns = [_rgb(reader.column(name, position)) for name in cameras]
    count = min(len(rows) for rows in columns)
    height = max(rows.shape[1] for rows in columns)
    padded = [np.pad(rows[:count], ((0, 0), (0, height - rows.shape[1]), (0, 0), (0, 0))) for rows in columns]
    frames = np.concatenate(padded, axis=2)
    times = max(1, -(-128 // frames.shape[1]))
    frames = frames.repeat(times, axis=1).repeat(times, axis=2)
    return np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")


def _rgb(frames: np.ndarray) -> np.ndarray:
    return frames.repeat(3, axis=-1) if frames.shape[-1] == 1 else frames[..., :3]
