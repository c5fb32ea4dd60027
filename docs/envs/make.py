"""Draw the pictures of docs/envs.md: each task at 224 pixels, and a short GIF of its data policy beside the goal.

python docs/envs/make.py                # all tasks; or name some: python docs/envs/make.py push_t wall
"""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from tqdm import tqdm

from envs import IDS, GoalTask
from lewm.registry import build
from lewm.types import InputError

HERE = Path(__file__).parent
FILM, STILL = 112, 224  # pixels
SECONDS_SHOWN, FRAMES = 4.0, 40


def main(names: list[str]) -> None:
    """One PNG and one GIF per gymnasium id."""
    chosen = {id: IDS[id] for id in IDS if not names or IDS[id][0] in names}
    for id, (name, settings) in tqdm(chosen.items()):
        place = HERE / id.removeprefix("lewm/").removesuffix("-v0").lower()
        with closing(build("env", {"name": name, "image_size": STILL, **settings}, rows=1)) as task:
            task.reset(seeds=[0])
            iio.imwrite(place.with_suffix(".png"), task.render()[0])
        with closing(build("env", {"name": name, "image_size": FILM, **settings}, rows=1)) as task:
            write_film(task, place.with_suffix(".gif"))


def write_film(task: GoalTask, path: Path) -> None:
    """The task's expert where it has one, else held random actions."""
    rng = np.random.default_rng(3)
    start = task.sample_state(rng)
    task.reset(start[None], task.sample_goal(rng, start)[None])
    every = max(1, round(task.fps * SECONDS_SHOWN / FRAMES))
    steps = FRAMES * every
    try:
        actor = build("policy", {"name": "expert", "noise": 0.0}).begin(task, [np.random.default_rng(3)], steps)
        actor(0, task.get_state())
        actor = build("policy", {"name": "expert", "noise": 0.0}).begin(task, [np.random.default_rng(3)], steps)
    except InputError:  # no expert here
        actor = build("policy", {"name": "uniform_hold"}).begin(task, [np.random.default_rng(3)], steps)
    frames = []
    for t in range(steps):
        if t % every == 0:
            frames.append(task.render()[0])
        task.step(np.clip(actor(t, task.get_state()), task.low, task.high))
    iio.imwrite(path, np.stack(frames), duration=100, loop=0)


if __name__ == "__main__":
    main(sys.argv[1:])
