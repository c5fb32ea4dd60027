"""Makes the golden files: small data sets by the real writers of stable-worldmodel and Minari.

    GOLDEN=1 bash experiments/peers/setup_data.sh PEERS
    PEERS/bin/python tests/test_lewm/test_data/test_formats/golden/make.py

`World` is stable-worldmodel's own; `HDF5Writer` and `LanceWriter` get what its collector gives them. Every value
says where it belongs: see `EPISODES` and the functions below it, which the tests repeat.
"""

import importlib.util
import os
import shutil
import sys
import types
from pathlib import Path

import gymnasium as gym
import numpy as np

HERE = Path(__file__).parent
EPISODES = [3, 5]  # environment steps


def skip_init(name):
    """Make a package importable without its __init__, which would import simulators and torchvision."""
    module = types.ModuleType(name)
    module.__path__ = list(importlib.util.find_spec(name).submodule_search_locations)
    sys.modules[name] = module


def fake(name, **names):
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(names)


skip_init("stable_worldmodel")
fake("stable_worldmodel.policy", Policy=object)
fake("stable_worldmodel.plot", save_panel_videos=None, save_video=None)
skip_init("stable_worldmodel.world")
skip_init("stable_worldmodel.wrapper")
from stable_worldmodel.wrapper.default import MegaWrapper  # noqa: E402

sys.modules["stable_worldmodel.wrapper"].MegaWrapper = MegaWrapper
from stable_worldmodel.data.formats.hdf5 import HDF5Writer  # noqa: E402
from stable_worldmodel.data.formats.lance import LanceWriter  # noqa: E402
from stable_worldmodel.world.world import World  # noqa: E402


def pixels(episode, t, size=16):
    """A frame of one grey value, which JPEG keeps: 60 * episode + 8 * t."""
    return np.full((size, size, 3), 60 * episode + 8 * t, np.uint8)


def halves(episode, t):
    """A larger frame whose right half brightens every second step, so that the JPEGs have several lengths."""
    frame = pixels(episode, t, 32)
    frame[:, 16:] += np.uint8(100 * (t % 2))
    return frame


def action(episode, t):
    return np.array([episode, t], np.float32) / 8


def state(episode, t):
    return np.array([episode, t, -t], np.float64)


def reward(episode, t):
    """Of the step t -> t+1."""
    return 10.0 * episode + t


class Steps(gym.Env):
    """Episode and step number as observation; ends after EPISODES[episode] steps."""

    observation_space = gym.spaces.Dict({"state": gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)})
    action_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    render_mode = "rgb_array"

    def __init__(self, render_mode=None):
        self.episode = -1

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.t = (self.episode + 1) % 2, 0  # the collector resets once more after the last episode
        return {"state": state(self.episode, 0)}, {}

    def step(self, given):
        assert (given == action(self.episode, self.t)).all(), (given, self.episode, self.t)
        self.t += 1
        value = reward(self.episode, self.t - 1)
        return {"state": state(self.episode, self.t)}, value, self.t == EPISODES[self.episode], False, {}

    def render(self):
        return pixels(self.episode, self.t)


class Policy:
    def set_env(self, env):
        pass

    def get_action(self, infos):
        return np.stack([action(*row[0, :2]) for row in infos["state"]])


def collected_rows(episode):
    """An episode as stable-worldmodel's wrapper reports it, reset included, action turned as its collector does.

    Published sets have T + 1 rows per episode and NaN in the last action: this is that layout.
    """
    steps = EPISODES[episode]
    times = range(steps + 1)
    actions = [np.full(2, np.nan, np.float32)] + [action(episode, t) for t in range(steps)]
    actions.append(actions.pop(0))
    return {
        "pixels": [pixels(episode, t) for t in times],
        "pixels.wrist": [255 - pixels(episode, t, 8) for t in times],
        "state": [state(episode, t) for t in times],
        "count": [np.int64(100 * episode + t) for t in times],
        "action": actions,
        "reward": [np.nan] + [reward(episode, t) for t in range(steps)],
        "terminated": [False] * steps + [True],
        "truncated": [False] * (steps + 1),
        "step_idx": list(times),
        "id": [7000 + episode] * (steps + 1),
    }


def stable_worldmodel():
    gym.register("Steps-v0", Steps)
    world = World("Steps-v0", 1, image_shape=(16, 16), max_episode_steps=50, goal_conditioned=False)
    world.set_policy(Policy())
    world.collect(
        writer=HDF5Writer(HERE / "swm_collected.h5", mode="overwrite"), episodes=2, seed=0, progress=False
    )
    with HDF5Writer(HERE / "swm.h5", mode="overwrite") as writer:
        writer.write_episodes(collected_rows(e) for e in range(2))
    with LanceWriter(HERE / "swm.lance", mode="overwrite") as writer:
        writer.write_episodes(collected_rows(e) for e in range(2))


def buffers(images, grey):
    from minari.data_collector import EpisodeBuffer

    for episode, steps in enumerate(EPISODES):
        rows = range(steps + 1)
        vectors = np.stack([state(episode, t) for t in rows])
        observations = {
            "camera": np.stack([halves(episode, t)[..., 0] if grey else halves(episode, t) for t in rows]),
            "body": {"state": vectors, "count": np.array([100 * episode + t for t in rows])},
            "pair": (vectors[:, :1].astype(np.float32), vectors[:, 1:].astype(np.float32)),
        }
        yield EpisodeBuffer(
            seed=40 + episode,
            options={"start": {"x": 0.5 * episode}},
            observations=observations if images else vectors,
            actions=np.array([t % 3 for t in range(steps)])
            if images
            else np.stack([action(episode, t) for t in range(steps)]),
            rewards=[reward(episode, t) for t in range(steps)],
            terminations=[t == steps - 1 for t in range(steps)],
            truncations=[False] * steps,
            infos={"distance": np.array([[t + 0.5] for t in rows])},
        )


def minari_sets():
    os.environ["MINARI_DATASETS_PATH"] = str(HERE / "minari")
    import minari

    box = gym.spaces.Box
    nested = lambda grey: gym.spaces.Dict(  # noqa: E731
        {
            "camera": box(0, 255, (32, 32) if grey else (32, 32, 3), np.uint8),
            "body": gym.spaces.Dict({"state": box(-9, 9, (3,), np.float64), "count": gym.spaces.Discrete(1000)}),
            "pair": gym.spaces.Tuple((box(-9, 9, (1,), np.float32), box(-9, 9, (2,), np.float32))),
        }
    )
    for layout in ("hdf5", "arrow", "parquet"):
        for images in (False, True) if layout != "parquet" else (False,):
            minari.create_dataset_from_buffers(
                f"{layout}{'-images' if images else ''}-v0",
                list(buffers(images, layout == "arrow")),
                observation_space=nested(layout == "arrow") if images else box(-np.inf, np.inf, (3,), np.float64),
                action_space=gym.spaces.Discrete(3) if images else box(-1, 1, (2,), np.float32),
                data_format=layout,
                algorithm_name="golden",
                author="lewm",
                author_email="none",
                code_permalink="none",
            )


if __name__ == "__main__":
    for old in (HERE / "minari", HERE / "swm.lance"):
        shutil.rmtree(old, ignore_errors=True)
    stable_worldmodel()
    minari_sets()
