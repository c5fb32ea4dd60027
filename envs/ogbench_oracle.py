"""OGBench's scripted oracles as a data policy: they pick and place, press, pull and push."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np

from envs.ogbench_arm import ManipulationTask, Subtask
from envs.policies import Actor, OrnsteinUhlenbeck, Rngs
from envs.task import GoalTask
from lewm.registry import register
from lewm.types import InputError

STYLES = ("markov", "plan")
ATTEMPTS = 3  # at one subtask, before another goal is drawn


@register("policy", "ogbench_oracle")
class OGBenchOracle:
    """Pursues one goal after another, each subtask by OGBench's oracle for it, with autocorrelated noise on top.

    Args:
        noise: of the actions, in half action ranges; `correlation`: from one step to the next.
        style: "markov" reacts to where things are (OGBench's *noisy* data); "plan" follows a path drawn once for
            each subtask (its *play* data) and so fails more often under noise.
        goals: "drawn" for data; "task" pursues the task's own goal, and rests there: the ceiling of an evaluation.
    """

    def __init__(
        self, *, noise: float = 0.2, correlation: float = 0.7, style: str = "markov", goals: str = "drawn"
    ) -> None:
        if style not in STYLES or goals not in ("drawn", "task"):
            raise InputError(f"ogbench_oracle has styles {STYLES} and goals drawn or task, got {style} and {goals}")
        self.wander = OrnsteinUhlenbeck(correlation=correlation, scale=noise)
        self.style, self.goals = style, goals

    def begin(self, task: GoalTask, rngs: Rngs, steps: int) -> Actor:
        """See `Policy`. Facts: how many goals were pursued, and how many of them reached."""
        if not isinstance(task, ManipulationTask):
            raise InputError(f"ogbench_oracle acts in the tasks cube and scene, not in {type(task).__name__}")
        noise = self.wander.begin(task, rngs, steps)
        streams = [np.random.default_rng(rng.integers(2**63)) for rng in rngs]
        own = task.get_goal() if self.goals == "task" else [None] * len(rngs)
        rows = [_Pursuit(task, rng, self.style, goal) for rng, goal in zip(streams, own, strict=True)]

        def act(t: int, states: np.ndarray) -> np.ndarray:
            actions = np.stack([row.act(t, state) for row, state in zip(rows, states, strict=True)])
            return np.clip(actions + noise(t, states), task.low, task.high)

        return Actor(act, ["ogbench_oracle"] * len(rngs), [row.facts for row in rows])


class _Pursuit:
    """One row's goal, what is being done about it, and by which oracle."""

    def __init__(
        self, task: ManipulationTask, rng: np.random.Generator, style: str, goal: np.ndarray | None
    ) -> None:
        self.task, self.rng, self.style, self.goal = task, rng, style, goal
        self.redraw = goal is None
        self.facts = {"goals": 1 - self.redraw, "goals_reached": 0}
        self.subtask: Subtask | None = None
        self.oracle: Any = None
        self.began, self.attempts = 0, 0

    def act(self, t: int, state: np.ndarray) -> np.ndarray:
        if self.subtask is None or self.oracle.done:
            self._choose(t, state)
        if self.subtask is None:
            return np.zeros(len(self.task.low))
        return self.oracle.select_action(None, self._information(t, state))

    def _choose(self, t: int, state: np.ndarray) -> None:
        """The next thing to do; at the goal, or when stuck, another goal first."""
        before, after = self.subtask, None if self.goal is None else self.task.subtask(state, self.goal)
        self.facts["goals_reached"] += before is not None and after is None
        same = (
            before is not None and after is not None and before.kind == after.kind and before.index == after.index
        )
        self.attempts = self.attempts + 1 if same else 1
        if self.redraw and (after is None or self.attempts > ATTEMPTS):
            self.goal = self.task.sample_goal(self.rng, state)
            self.facts["goals"] += 1
            self.attempts, after = 1, self.task.subtask(state, self.goal)
        self.subtask = after
        if after is not None:
            self.began, self.oracle = t, _oracle(self.task, after.kind, self.style)
            with _global_random(self.rng):
                self.oracle.reset(None, self._information(t, state))

    def _information(self, t: int, state: np.ndarray) -> dict[str, Any]:
        elapsed = np.array([(t - self.began) / self.task.fps])
        return self.task.observe(state, self.subtask) | {"time": elapsed}


def _oracle(task: ManipulationTask, kind: str, style: str) -> Any:
    module = import_module(f"ogbench.manipspace.oracles.{style}.{kind}_{style}")
    oracle = getattr(module, f"{kind.capitalize()}{style.capitalize()}Oracle")
    return oracle(env=task.environment, **({"noise": 0.0} if style == "plan" else {}))


@contextmanager
def _global_random(rng: np.random.Generator) -> Iterator[None]:
    """OGBench's oracles draw from numpy's global generator: lend it this stream, then give it back its own."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(rng.integers(2**32))  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
