"""Steps, renders and collects with stable-worldmodel's own World, turn by turn; runs in the peer's venv.

    python envs_worker.py TASK SIZE FOLDER       answer commands, one JSON line each (see `serve`)

FOLDER is for what is collected. One file beside `data_worker.py`, run by path where we are not installed;
`experiments/benchmark_envs/worker.py` serves ours with the same loops and clock.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

try:
    from experiments.peers.data_worker import PEER, one_core, skip_init, versions
except ImportError:  # we are not installed in the peer's venv
    from data_worker import PEER, one_core, skip_init, versions

STEPS = 100  # of an episode
PACKAGES = ("stable-worldmodel", "torch", "gymnasium", "pymunk", "pygame", "dm-control", "mujoco", "lancedb")
NAMES = {"two_room": "swm/TwoRoom-v1", "push_t": "swm/PushT-v1", "reacher": "swm/ReacherDMControl-v0"}
ENDINGS = {"lance": "lance", "hdf5": "h5"}


@dataclass
class Loop:
    """Steps one after another. `reset(episode)`, before every hundredth, is not timed; `step(t)` is.

    Attributes:
        frames: that one step makes.
    """

    reset: Callable[[int], None]
    step: Callable[[int], Any]
    frames: int

    def warm(self, seconds: float) -> None:
        """Once, for whatever is done at the first time."""
        self.turn(seconds / 4)

    def turn(self, seconds: float) -> dict[str, float]:
        """Frames made in at least so many seconds."""
        count, spent = 0, 0.0
        while spent < seconds:
            self.reset(count // STEPS)
            for t in range(STEPS):
                begin = time.perf_counter()
                self.step(t)
                spent += time.perf_counter() - begin
                count += 1
                if spent >= seconds:
                    break
        return {"frames": count * self.frames, "seconds": spent}


@dataclass
class Collection:
    """Collections into a new folder: `collect(folder, episodes)` is timed, `count(folder)` tells the frames."""

    collect: Callable[[Path, int], Any]
    count: Callable[[Path], int]
    folder: Path
    episodes: int = field(init=False, default=1)

    def warm(self, seconds: float) -> None:
        """Find how many episodes take so long; the very first, with all that is done only once, is no guide."""
        self.turn(seconds)
        while (spent := self.turn(seconds)["seconds"]) < seconds / 2:
            self.episodes *= 4
        self.episodes = max(1, round(self.episodes * seconds / spent))

    def turn(self, seconds: float, episodes: int | None = None) -> dict[str, float]:
        """So many episodes as take about `seconds`, or as given: frames, seconds, bytes on disk."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        count = episodes or self.episodes
        begin = time.perf_counter()
        self.collect(self.folder, count)
        spent = time.perf_counter() - begin
        stored = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        frames = self.count(self.folder)
        shutil.rmtree(self.folder)
        return {"frames": frames, "seconds": spent, "episodes": count, "bytes": stored}


Timed = Mapping[str, Loop | Collection]


def unit_actions(rows: int, size: int) -> np.ndarray:
    """The actions (STEPS, rows, size) everybody takes, in -1..1 of their bounds; those of one row are the same."""
    return np.random.default_rng(0).uniform(-1, 1, (STEPS, rows, size)).astype(np.float32)


def serve(timed: Timed, hello: Mapping[str, Any]) -> None:
    """Say what can be timed, then answer each line of stdin with one line.

    {"do": "warm", "kind": k, "seconds": s}  -> {}, or {"error": text} where it cannot be done here
    {"do": "turn", "kind": k, "seconds": s}  -> frames and seconds; of a collection episodes and bytes, too
    """
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries say is no answer
    print(json.dumps({"kinds": list(timed), **hello}), file=out, flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        do, one = command.pop("do"), timed[command.pop("kind")]
        try:
            answer = getattr(one, do)(**command) or {}
        except Exception as error:  # whatever a combination of libraries makes of it
            if do != "warm":
                raise
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=out, flush=True)


class Peer:
    """One task of theirs at one size, a single environment in its pool: the pool steps one after another."""

    def __init__(self, task: str, size: int, folder: Path) -> None:
        self._name, self._size, self._folder = NAMES[task], size, folder
        load()

    def timed(self) -> Timed:
        """What can be timed. A store comes last: writing Lance from another thread may leave GL unusable."""
        loop = Loop(lambda episode: self._world.reset(seed=episode), self._step, 1)
        stores = {
            kind: Collection(partial(self._collect, kind), partial(_count, kind), self._folder / kind)
            for kind in ("hdf5", "lance")
        }
        return {"step_render": loop, **stores}

    @cached_property
    def _world(self) -> Any:
        world = self._make()
        self._actions = unit_actions(1, world.envs.single_action_space.shape[0])
        return world

    def _step(self, t: int) -> None:
        self._world.envs.step(self._actions[t])

    def _collect(self, kind: str, folder: Path, episodes: int) -> None:
        self._stored[kind].collect(_place(kind, folder), episodes=episodes, format=kind, progress=False)

    @cached_property
    def _stored(self) -> dict[str, Any]:
        from stable_worldmodel.policy import RandomPolicy

        worlds = {kind: self._make() for kind in ENDINGS}
        for world in worlds.values():
            world.set_policy(RandomPolicy(seed=0))
            world.reset(seed=0)
        return worlds

    def _make(self) -> Any:
        from stable_worldmodel.world import World

        return World(self._name, 1, image_shape=(self._size, self._size), max_episode_steps=STEPS)


def _place(kind: str, folder: Path) -> Path:
    return folder / f"data.{ENDINGS[kind]}"


def _count(kind: str, folder: Path) -> int:
    """Frames, as their reader finds them."""
    from stable_worldmodel.data import HDF5Dataset, LanceDataset

    path = _place(kind, folder)
    data = HDF5Dataset(path=path) if kind == "hdf5" else LanceDataset(path)
    return int(np.sum(data.lengths))


def load() -> None:
    """Import theirs without what is not installed: other simulators, the model's part, torchvision."""
    skip_init(PEER)
    for part in ("two_room", "pusht", "dmcontrol"):
        skip_init(f"{PEER}.envs.{part}")
    sys.modules["torchvision"] = types.ModuleType("torchvision")
    sys.modules["torchvision"].tv_tensors = types.ModuleType("torchvision.tv_tensors")
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    import stable_worldmodel.spaces
    import stable_worldmodel.utils

    package = sys.modules[PEER]
    package.spaces, package.utils = stable_worldmodel.spaces, stable_worldmodel.utils
    import stable_worldmodel.envs  # registers them


def main(arguments: Sequence[str]) -> None:
    """Serve what the command line says."""
    task, size, folder = arguments
    one_core()
    timed = Peer(task, int(size), Path(folder)).timed()
    serve(timed, {"versions": versions(PACKAGES)})


if __name__ == "__main__":
    main(sys.argv[1:])
