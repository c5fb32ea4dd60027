"""Draw the pictures of docs/envs.md: a start beside its goal, a short GIF of data, and all tasks in one strip.

    python docs/envs/make.py                # all tasks; or name some: python docs/envs/make.py push_t wall

Films show the task's expert without noise where there is one, else smooth random actions: 12 seconds of the task's
own time, at twice the speed.
"""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from envs import IDS, rollout
from lewm.registry import build
from lewm.types import InputError

HERE = Path(__file__).parent
FILM, STILL, TILE = 112, 224, 96  # pixels
SECONDS, FRAMES, SEED = 12.0, 60, 3
COLUMNS, GAP, LINE = 5, 8, 14  # of the strip: tasks side by side; pixels between tiles, and of a line of text


def main(tasks: list[str]) -> None:
    """A PNG and a GIF per gymnasium id; the strip when no task is named."""
    chosen = {id: IDS[id] for id in IDS if not tasks or IDS[id][0] in tasks}
    for id, (name, settings) in tqdm(chosen.items()):
        place, env = HERE / short(id).lower(), {"name": name, **settings}
        iio.imwrite(place.with_suffix(".png"), start_and_goal(env, STILL))
        iio.imwrite(place.with_suffix(".gif"), film(env), duration=1000 * SECONDS / FRAMES / 2, loop=0)
    if not tasks:
        strip().save(HERE / "strip.png", optimize=True)


def short(id: str) -> str:
    """An id without what all have in common."""
    return id.removeprefix("lewm/").removesuffix("-v0")


def start_and_goal(env: dict[str, Any], size: int) -> np.ndarray:
    """Pictures of a start and its goal side by side, a white line in between."""
    with closing(build("env", {**env, "image_size": size}, rows=1)) as task:
        task.reset(seeds=[SEED])
        line = np.full((size, 2, 3), 255, np.uint8)
        return np.concatenate([task.render()[0], line, task.render_goal()[0]], axis=1)


def film(env: dict[str, Any]) -> np.ndarray:
    """Frames (FRAMES, FILM, FILM, 3) of an episode."""
    with closing(build("env", {**env, "image_size": FILM}, rows=1)) as task:
        stride = max(1, round(task.fps * SECONDS / FRAMES))
        how = {"seed": SEED, "steps": (FRAMES - 1) * stride, "frame_stride": stride}
        try:
            (episode,) = rollout(task, build("policy", {"name": "expert", "noise": 0.0}), [0], **how)
        except InputError:  # no expert here
            (episode,) = rollout(task, build("policy", {"name": "ou"}), [0], **how)
        return episode.columns["pixels"]


def strip() -> Image.Image:
    """A start and its goal of every task, by name."""
    lines, width, height = -(-len(IDS) // COLUMNS), 2 * TILE + 2 + GAP, TILE + LINE + GAP
    sheet = Image.new("RGB", (COLUMNS * width - GAP, lines * height - GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for k, (id, (name, settings)) in enumerate(IDS.items()):
        left, top = k % COLUMNS * width, k // COLUMNS * height
        pen.text((left, top), f"{short(id)}: start, goal", fill=(60, 60, 60))
        sheet.paste(Image.fromarray(start_and_goal({"name": name, **settings}, TILE)), (left, top + LINE))
    return sheet


if __name__ == "__main__":
    main(sys.argv[1:])
