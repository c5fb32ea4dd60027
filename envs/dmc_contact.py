"""Tasks of the DeepMind Control Suite in which one thing moves another: ball in cup, finger and spinner."""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.dmc import SuiteTask, choose
from envs.mujoco_task import MuJoCoTask
from lewm.registry import register


@register("env", "ball_in_cup")
class BallInCup(SuiteTask):
    """A ball hangs by a string from a cup that two motors push in the plane of the picture.

    Goals: the ball at rest in the cup, and the cup where a constant push within half of the motors' strength holds
    it. Reached when the ball is within 5 cm of its place in the picture and, relative to the cup, within 2.5 cm of
    it (the suite's rule for a caught ball). `measures` has `caught`: the ball in a cup anywhere, the suite's task.
    """

    domain = "ball_in_cup"
    camera = "cam0"
    substeps = 10
    caught = np.array((0.0, 0.35))  # `relative` of a ball in the middle of the cup

    def sample_state(self, rng: np.random.Generator) -> np.ndarray:
        """The suite's: the cup in its place, the ball anywhere around it where it touches nothing, at rest."""
        while True:
            state = self.state(np.r_[0, 0, rng.uniform((-0.2, 0.2), (0.2, 0.5))], rng)
            if _touches_nothing(self, state):
                return state

    def sample_goal(self, rng: np.random.Generator, start: np.ndarray) -> np.ndarray:
        """Drop the ball into the cup and hold a push until all is at rest."""
        push = rng.uniform(self.low, self.high) / 2
        goal = self.with_factors(self.state([0, 0, *self.caught]), start)
        for _ in range(150):
            goal = self.simulate(goal, push)
        return goal

    def distance(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """The larger of the ball's error and its error relative to the cup, each in units of its tolerance."""
        balls = np.linalg.norm((self.qpos(states) - self.qpos(goals))[:, 2:], axis=1)
        relative = np.linalg.norm(self.relative(states) - self.relative(goals), axis=1)
        return np.maximum(balls / 0.05, relative / 0.025)

    def measures(self, states: np.ndarray, goals: np.ndarray) -> dict[str, np.ndarray]:
        """`caught`: the larger distance, along x and z, of the ball from the middle of the cup."""
        return {"caught": np.abs(self.relative(states) - self.caught).max(1) / 0.025}

    def relative(self, states: np.ndarray) -> np.ndarray:
        """Joint positions of the ball less those of the cup (B, 2)."""
        qpos = self.qpos(states)
        return qpos[:, 2:] - qpos[:, :2]


@register("env", "finger")
class Finger(SuiteTask):
    """A finger of two links turns a spinner that friction stops, without gravity.

    `distance` is between where the goal and where the state have the spinner's marked tip, as in the suite's turn
    tasks; where the finger ends up does not count, as it has to leave the spinner somewhere. `measures` has `pose`,
    the largest of all three joint errors in units of 0.2 rad. Goals are collision-free poses, which stay as they
    are. The suite's target is hidden.

    Args:
        difficulty: "easy", within 7 cm (0.54 rad of the spinner), or "hard", within 3 cm (0.23 rad).
    """

    domain = "finger"
    camera = "cam0"
    substeps = 2
    hidden = ("target",)
    arm = 0.13  # metres from the spinner's hinge to its tip

    def __init__(self, rows: int, *, difficulty: str = "easy", **options: Any) -> None:
        self.tolerance = choose("difficulty", difficulty, {"easy": 0.07, "hard": 0.03})
        super().__init__(rows, **options)

    def sample_state(self, rng: np.random.Generator) -> np.ndarray:
        """Uniform over poses in which nothing touches, at rest."""
        while True:
            state = self.state(self.random_qpos(rng), rng)
            if _touches_nothing(self, state):
                return state

    def distance(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """Between the tips of the spinner, in units of the tolerance."""
        turned = self.errors(states, goals)[:, 2]
        return 2 * self.arm * np.sin(turned / 2) / self.tolerance

    def measures(self, states: np.ndarray, goals: np.ndarray) -> dict[str, np.ndarray]:
        """`pose`: finger and spinner."""
        return {"pose": self.errors(states, goals).max(1) / 0.2}


def _touches_nothing(task: MuJoCoTask, state: np.ndarray) -> bool:
    task.load(state)
    task.mujoco.mj_forward(task.model, task.data)
    return task.data.ncon == 0
