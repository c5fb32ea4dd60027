"""A policy from elsewhere as an agent: one function from pictures to actions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from envs import GoalTask
from experiments.evaluate.agents import Act, Agent
from lewm.types import InputError

Function = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


def policy(function: Function) -> type[Agent]:
    """What to register as an agent, of a function (images, goal images, step) -> actions:

        @register("agent", "mine")
        @policy
        def mine(images, goal_images, t):
            return my_network(images, goal_images)

    With that in my_package: `lewm evaluate run=... plugins=[my_package] agents=[model,mine]`.

    Args:
        function: gets images (B, h, w, 3) uint8 of now and of the goal, and the step t = 0, 1, ..., at 0 of which
            new episodes begin; gives raw actions (B, A), those beyond the bounds are clipped. What it does in a row
            must depend on that row alone.
    """

    class Outside:
        seeded = False

        def __init__(self, *, pairs: int | None = None) -> None:
            self.pairs = pairs

        def begin(self, task: GoalTask, seeds: Sequence[int], steps: int) -> Act:
            goals, expected = task.render_goal(), (task.rows, len(task.low))

            def act(t: int) -> np.ndarray:
                actions = np.asarray(function(task.render(), goals, t))
                if actions.shape != expected:
                    raise InputError(
                        f"agent {function.__name__} gave actions of shape {actions.shape}, expected {expected}"
                    )
                return actions

            return act

    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(Outside, name, getattr(function, name))
    return Outside
