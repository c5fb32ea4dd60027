"""Our own tasks, served by the loops and the clock of `experiments/peers/envs_worker.py`.

python -m experiments.benchmark_envs.worker TASK SIZE FOLDER          on one core: stepping, drawing, recording
python -m experiments.benchmark_envs.worker TASK SIZE FOLDER --whole  on all: whole `lewm collect` calls
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

import envs
from experiments.collect.verb import usual_rows
from experiments.peers.data_worker import one_core, versions
from experiments.peers.envs_worker import STEPS, Collection, Loop, Timed, serve, unit_actions
from lewm import registry
from lewm.data import Column, DatasetInfo, EpisodeReader, EpisodeWriter

SEED, WORKERS, ZSTD = 0, (1, 2), 3
POLICY = {"name": "uniform_hold", "hold": 1}  # the random policy of the other side
PACKAGES = ("lewm", "numpy", "gymnasium", "zstandard", "pymunk", "mujoco")


class Ours:
    """One task at one size; `standard` is drawn with the simulator's own settings, where it has them."""

    def __init__(self, name: str, size: int, folder: Path) -> None:
        self._spec, self._folder = {"name": name, "image_size": size}, folder
        one = self._task(1)
        self.rows, self.rendering = usual_rows(one), dict(one.rendering)

    def timed(self) -> Timed:
        """What can be timed."""
        batch, one = self._task(self.rows), self._task(1)
        timed = {
            "step_render": _loop(batch, _step_render),
            "one_row": _loop(one, _step_render),
            "step": _loop(batch, _step),
            "render": _loop(batch, _render),
            "compress": _compressing(batch),
            "floor": self._floor(),
            "collect": Collection(self._record, _count, self._folder / "collect"),
        }
        if "quality" in registry.defaults("env", self._spec["name"]):
            timed["standard"] = _loop(self._task(self.rows, quality="standard"), _step_render)
        return timed

    def whole(self) -> Timed:
        """`lewm collect`, start to end, by number of workers."""
        return {
            f"workers_{count}": Collection(partial(self._collect, count), _count, self._folder / f"w{count}")
            for count in WORKERS
        }

    @cache  # noqa: B019, lives as long as the process
    def _task(self, rows: int, **settings: Any) -> envs.GoalTask:
        return registry.build("env", {**self._spec, **settings}, rows=rows)

    def _floor(self) -> Loop:
        """Write as many bytes as the pictures have, and do nothing else."""
        picture = np.full((self._spec["image_size"], self._spec["image_size"], 3), 200, np.uint8)
        return Loop(lambda episode: None, lambda t: _fill(self.rows, picture), self.rows)

    def _record(self, folder: Path, episodes: int) -> None:
        """What one worker of `lewm collect` does, once its tasks are made."""
        policy = registry.build("policy", POLICY)
        with EpisodeWriter(folder, _info(self._task(1))) as writer:
            for first in range(0, episodes, self.rows):
                recordings = [writer.begin(i) for i in range(first, min(first + self.rows, episodes))]
                envs.record(self._task(len(recordings)), policy, recordings, seed=SEED, steps=STEPS)
                writer.commit(recordings)

    def _collect(self, workers: int, folder: Path, episodes: int) -> None:
        from experiments.collect import collect
        from experiments.config import compose

        settings = {"out": folder, "episodes": episodes, "steps": STEPS, "workers": workers, "seed": SEED}
        settings |= {f"env.{key}": value for key, value in self._spec.items() if key != "name"}
        settings |= {f"policy.{key}": value for key, value in POLICY.items() if key != "name"}
        chosen = [f"env={self._spec['name']}", f"policy={POLICY['name']}"]
        collect(compose("collect", [*chosen, *(f"{key}={value}" for key, value in settings.items())]))


def _loop(task: envs.GoalTask, do: Any) -> Loop:
    half, middle = (task.high - task.low) / 2, (task.high + task.low) / 2
    actions = middle + half * unit_actions(task.rows, len(task.low))

    def reset(episode: int) -> None:
        task.reset(seeds=[[episode, row] for row in range(task.rows)])

    return Loop(reset, lambda t: do(task, actions[t]), task.rows)


def _compressing(task: envs.GoalTask) -> Loop:
    """Compress pictures of start states as the store does, and do nothing else."""
    frames, compress = [], zstandard.ZstdCompressor(level=ZSTD).compress

    def reset(episode: int) -> None:
        task.reset(seeds=[[episode, row] for row in range(task.rows)])
        frames[:] = task.render()

    return Loop(reset, lambda t: [compress(frame) for frame in frames], task.rows)


def _step_render(task: envs.GoalTask, actions: np.ndarray) -> None:
    task.step(actions)
    task.render()


def _step(task: envs.GoalTask, actions: np.ndarray) -> None:
    task.step(actions)


def _render(task: envs.GoalTask, actions: np.ndarray) -> None:
    task.render()


def _fill(rows: int, picture: np.ndarray) -> None:
    np.empty((rows, *picture.shape), np.uint8)[:] = picture


def _info(task: envs.GoalTask) -> DatasetInfo:
    columns = {
        "pixels": Column("uint8", task.image_shape, codec=f"zstd:{ZSTD}"),
        "state": Column("float64", (task.state_dim,)),
        **{name: Column("float64", (length,)) for name, length in task.sensors.items()},
        "action": Column("float32", (len(task.low),), transition=True),
    }
    return DatasetInfo(columns, tuple(task.low.tolist()), tuple(task.high.tolist()), {"steps": STEPS})


def _count(folder: Path) -> int:
    reader = EpisodeReader(folder)
    return int(reader.steps.sum()) + len(reader)


def main(arguments: Sequence[str]) -> None:
    """Serve what the command line says."""
    name, size, folder, *whole = arguments
    if not whole:
        one_core()
    ours = Ours(name, int(size), Path(folder))
    hello = {"versions": versions(PACKAGES), "rendering": ours.rendering, "rows": ours.rows}
    serve(ours.whole() if whole else ours.timed(), hello)


if __name__ == "__main__":
    main(sys.argv[1:])
