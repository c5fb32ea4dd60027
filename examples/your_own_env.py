"""Your own gymnasium environment: adapt it, collect, train a world model from its pixels, and plan in it.

    python examples/your_own_env.py [folder]          # under five minutes on two CPU cores

The environment is a robot arm with two joints, seen from above, as you might have it: plain gymnasium, vector
observations, no picture. What is added is a drawing, how to read and set its state, and when a goal is reached.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import gymnasium
import numpy as np

from envs import from_gymnasium
from experiments.collect import collect
from experiments.config import compose
from experiments.evaluate import evaluate
from experiments.train import train
from lewm import register

LENGTHS = (0.5, 0.4)  # of upper arm and forearm; the picture is 2 wide
LOW, HIGH = np.array([-1.6, 0.0]), np.array([1.6, 2.4])  # rad, of shoulder and elbow


class Arm(gymnasium.Env):
    """Actions turn shoulder and elbow by up to 0.15 rad a step, as far as they go."""

    observation_space = gymnasium.spaces.Box(-1, 1, (4,))
    action_space = gymnasium.spaces.Box(-0.15, 0.15, (2,))

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """Any posture."""
        super().reset(seed=seed)
        self.joints = self.np_random.uniform(LOW, HIGH)
        return self.observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Turn."""
        self.joints = np.clip(self.joints + action, LOW, HIGH)
        return self.observe(), 0.0, False, False, {}

    def observe(self) -> np.ndarray:
        """Sine and cosine of both joints (4,)."""
        return np.concatenate([np.sin(self.joints), np.cos(self.joints)]).astype(np.float32)


def draw(env: Arm, size: int) -> np.ndarray:
    """The arm as two thick antialiased lines (size, size, 3)."""
    place = (np.arange(size) + 0.5) * 2 / size - 1
    image, start, heading = np.full((size, size, 3), 240.0), np.zeros(2), 0.0
    for length, turn, width, colour in zip(
        LENGTHS, env.joints, (0.1, 0.07), ([60, 90, 160], [220, 90, 50]), strict=True
    ):
        heading += turn
        along = np.array([np.cos(heading), np.sin(heading)])
        dx, dy = place - start[0], place[:, None] - start[1]
        nearest = np.clip(along[0] * dx + along[1] * dy, 0, length)  # the closest point of the line, along it
        away = np.hypot(dx - nearest * along[0], dy - nearest * along[1])
        cover = np.clip((width - away) * size / 2 + 0.5, 0, 1)[..., None]
        image, start = image + cover * (np.array(colour) - image), start + length * along
    return image.astype(np.uint8)


def off(states: np.ndarray, goals: np.ndarray) -> np.ndarray:
    """The worse joint's error (B,), in units of 0.2 rad (11 degrees)."""
    return np.abs(states - goals).max(axis=1) / 0.2


register("env", "arm")(
    from_gymnasium(
        Arm,
        state=(lambda env: env.joints, lambda env, vector: setattr(env, "joints", vector)),
        success=off,
        image=draw,
        sensors={"pose": Arm.observe},
    )
)

COLLECT = ("env=arm", "policy=straight", "episodes=600", "steps=60")
TRAIN = ("trainer.steps=1000",)
EVALUATE = ("pairs=100", "budget=60")


def main(
    folder: Path | str = "runs/arm",
    collecting: Sequence[str] = COLLECT,
    training: Sequence[str] = TRAIN,
    evaluating: Sequence[str] = EVALUATE,
) -> dict:
    """Collect, train and evaluate with the settings of `lewm collect`, `lewm train` and `lewm evaluate`."""
    collect(compose("collect", [*collecting, f"out={folder}/data"]))
    train(compose("train", [*training, f"data={folder}/data", f"out={folder}"]))
    summary = evaluate(compose("evaluate", [*evaluating, f"run={folder}"]))
    print(
        f"reached {summary['success_final']:.0%} of the goal images; random actions {summary['random_final']:.0%}"
    )
    return summary


if __name__ == "__main__":
    main(*sys.argv[1:2])
