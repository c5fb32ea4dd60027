"""What `lewm data view` draws: a contact sheet, and a video of each episode."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as iio
import numpy as np
from matplotlib.figure import Figure

from experiments.runs import progress, say
from lewm.data import EpisodeReader
from lewm.data.formats import need
from lewm.types import InputError

FRAMES = 8  # of each episode on the sheet
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


def contact_sheet(reader: EpisodeReader, positions: np.ndarray, cameras: list[str]) -> Figure:
    """Frames spread over each episode, one row per episode and camera, step numbers above them."""
    rows = [(int(position), camera) for position in positions for camera in cameras]
    figure = Figure(figsize=(FRAMES * 1.25, len(rows) * 1.5 + 0.5), layout="constrained")
    figure.suptitle(f"{reader.folder.name}: {len(reader)} episodes", x=0.01, ha="left", color=INK, fontsize=11)
    axes = figure.subplots(len(rows), FRAMES, squeeze=False)
    for (position, camera), row in zip(rows, axes, strict=True):
        steps, stride = int(reader.steps[position]), reader.info.columns[camera].stride
        shown = np.linspace(0, steps // stride, FRAMES).round().astype(int)
        frames = reader.gather(camera, np.full(FRAMES, position), shown)
        for axis, frame, step in zip(row, frames, shown * stride, strict=True):
            axis.imshow(frame.squeeze(), cmap="gray" if frame.shape[-1] == 1 else None)
            axis.set_title(f"{step}", fontsize=8, color=QUIET, pad=3)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
        label = f"episode {reader.ids[position]}\n{steps} steps" + (f"\n{camera}" if len(cameras) > 1 else "")
        row[0].set_ylabel(label, fontsize=8, color=INK)
    return figure


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
