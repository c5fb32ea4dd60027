"""Frames per second of Two-Room, step and render, one thread.

OMP_NUM_THREADS=1 .venv/bin/python docs/results/two_room_speed.py | tee docs/results/two_room_speed.txt
"""

from __future__ import annotations

import time

import numpy as np

from envs import TwoRoom

FRAMES, REPEATS = 20_000, 5


def measure(rows: int, size: int) -> float:
    """Median frames per second over `REPEATS` runs of about `FRAMES` frames."""
    task = TwoRoom(rows, image_size=size)
    task.reset(seeds=range(rows))
    actions = np.random.default_rng(0).uniform(task.low, task.high, (rows, 2))
    speeds = []
    for _ in range(REPEATS + 1):  # the first warms up
        begin = time.perf_counter()
        for _ in range(max(1, FRAMES // rows)):
            task.step(actions)
            task.render()
        speeds.append(max(1, FRAMES // rows) * rows / (time.perf_counter() - begin))
    return float(np.median(speeds[1:]))


if __name__ == "__main__":
    print("rows  pixels  frames/s (step + render)")
    for size in (64, 224):
        for rows in (1, 64, 1024):
            print(f"{rows:>4}  {size:>6}  {measure(rows, size):>12,.0f}")
