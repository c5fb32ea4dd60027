"""Data policies: how a batch of rows behaves while it is being recorded.

A policy draws *all* its randomness for an episode from that episode's own generator before the first step, so an
episode is the same whichever batch or worker it was recorded in. `begin(task, rngs, steps)` does the drawing and
returns `act(t, states) -> actions`, which is deterministic and works on the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from envs.task import GoalTask
from lewm.registry import build, register
from lewm.types import InputError

Act = Callable[[int, np.ndarray], np.ndarray]
Rngs = Sequence[np.random.Generator]


class Policy(Protocol):
    """See the module docstring."""

    def begin(self, task: GoalTask, rngs: Rngs, steps: int) -> Act:
        """Draw an episode of `steps` steps per generator; returns `act(t, states (B, s)) -> actions (B, A)`."""


def _half_range(task: GoalTask) -> np.ndarray:
    return (task.high - task.low) / 2


def _normal(task: GoalTask, rngs: Rngs, steps: int) -> np.ndarray:
    """White noise (B, steps, A), one row per generator."""
    return np.stack([rng.standard_normal((steps, len(task.low))) for rng in rngs])


def _replay(task: GoalTask, actions: np.ndarray) -> Act:
    """An open-loop policy from actions (B, steps, A) around the middle of the bounds."""
    clipped = np.clip(actions + (task.low + task.high) / 2, task.low, task.high)
    return lambda t, states: clipped[:, t]


@register("policy", "uniform_hold")
class UniformHold:
    """Uniform random actions, each held for `hold` steps: the random floor of an evaluation."""

    def __init__(self, *, hold: int = 5) -> None:
        if hold < 1:
            raise InputError(f"hold must be at least 1, got {hold}")
        self.hold = hold

    def begin(self, task: GoalTask, rngs: Rngs, steps: int) -> Act:
        """See `Policy`."""
        blocks = -(-steps // self.hold)
        drawn = np.stack([rng.uniform(task.low, task.high, (blocks, len(task.low))) for rng in rngs])
        held = np.repeat(drawn, self.hold, axis=1)
        return lambda t, states: held[:, t]


@register("policy", "ou")
class OrnsteinUhlenbeck:
    """A stationary first-order autoregressive walk: a[t] = c a[t-1] + sqrt(1 - c^2) scale * half range * noise."""

    def __init__(self, *, correlation: float = 0.9, scale: float = 0.7) -> None:
        if not 0 <= correlation <= 1 or not scale >= 0:
            raise InputError(f"ou needs 0 <= correlation <= 1 and scale >= 0, got {correlation} and {scale}")
        self.correlation, self.scale = correlation, scale

    def begin(self, task: GoalTask, rngs: Rngs, steps: int) -> Act:
        """See `Policy`."""
        noise = _normal(task, rngs, steps)
        for t in range(1, steps):
            fresh = np.sqrt(1 - self.correlation**2) * noise[:, t]
            noise[:, t] = self.correlation * noise[:, t - 1] + fresh
        return _replay(task, noise * self.scale * _half_range(task))


@register("policy", "straight")
class Straight:
    """Straight segments: a random direction and speed, kept for a random number of steps.

    A share `rest` of the segments stands still: a model that never saw rest cannot plan to stay at a goal.
    """

    def __init__(self, *, shortest: int = 5, longest: int = 30, rest: float = 0.25) -> None:
        if not 1 <= shortest <= longest or not 0 <= rest < 1:
            raise InputError(
                f"straight needs 1 <= shortest <= longest and 0 <= rest < 1, got {shortest}, {longest}, {rest}"
            )
        self.shortest, self.longest, self.rest = shortest, longest, rest

    def begin(self, task: GoalTask, rngs: Rngs, steps: int) -> Act:
        """See `Policy`."""
        return _replay(task, np.stack([self._segments(task, rng, steps) for rng in rngs]))

    def _segments(self, task: GoalTask, rng: np.random.Generator, steps: int) -> np.ndarray:
        count = -(-steps // self.shortest)
        lengths = rng.integers(self.shortest, self.longest + 1, count)
        direction = rng.standard_normal((count, len(task.low)))
        direction /= np.abs(direction).max(1, keepdims=True)
        speed = rng.uniform(0.2, 1.0, (count, 1)) * (rng.random((count, 1)) >= self.rest)
        return np.repeat(direction * speed * _half_range(task), lengths, axis=0)[:steps]


@register("policy", "goal_directed")
class GoalDirected:
    """Heads for one drawn goal after another along the task's waypoints, with autocorrelated noise on top.

    A goal counts as reached after `patience` steps, or earlier when the way there is nearly done.
    """

    def __init__(self, *, noise: float = 0.4, correlation: float = 0.7, patience: int = 60) -> None:
        if patience < 1:
            raise InputError(f"patience must be at least 1, got {patience}")
        self.wander = OrnsteinUhlenbeck(correlation=correlation, scale=noise)
        self.patience = patience

    def begin(self, task: GoalTask, rngs: Rngs, steps: int) -> Act:
        """See `Policy`."""
        noise = self.wander.begin(task, rngs, steps)
        shortest = min(10, self.patience)  # steps between two goals
        goals = np.stack([[task.sample_state(rng) for _ in range(-(-steps // shortest) + 1)] for rng in rngs])
        rows = np.arange(len(rngs))
        index, since = np.zeros(len(rngs), int), np.zeros(len(rngs), int)

        def act(t: int, states: np.ndarray) -> np.ndarray:
            goal = goals[rows, index]
            reached = np.abs(task.steer(states, goal)).max(1) < 0.5 * task.high.max()
            advance = (reached & (since >= shortest)) | (since >= self.patience)
            index[advance] += 1
            since[:] = np.where(advance, 0, since + 1)
            target = task.waypoint(states, goals[rows, index])
            return np.clip(task.steer(states, target) + noise(t, states), task.low, task.high)

        return act


@register("policy", "greedy")
class Greedy:
    """Straight at the task's goal with the true state: what a planner without a map would do."""

    def begin(self, task: GoalTask, rngs: Rngs, steps: int) -> Act:
        """See `Policy`."""
        return lambda t, states: task.steer(states, task.get_goal())


@register("policy", "mixed")
class Mixed:
    """Each episode follows one of several policies, drawn by weight."""

    def __init__(self, *, ou: float = 1.0, goal_directed: float = 2.0, straight: float = 1.0) -> None:
        weights: Mapping[str, float] = {"ou": ou, "goal_directed": goal_directed, "straight": straight}
        if not (min(weights.values()) >= 0 and 0 < sum(weights.values()) < float("inf")):
            raise InputError(f"policy weights must be non-negative and not all zero, got {dict(weights)}")
        self.weights = np.array(list(weights.values())) / sum(weights.values())
        self.policies = [build("policy", {"name": name}) for name in weights]

    def begin(self, task: GoalTask, rngs: Rngs, steps: int) -> Act:
        """See `Policy`."""
        choice = np.array([rng.choice(len(self.policies), p=self.weights) for rng in rngs])
        members = [(np.flatnonzero(choice == k), policy) for k, policy in enumerate(self.policies)]
        parts = [(rows, p.begin(task, [rngs[r] for r in rows], steps)) for rows, p in members if len(rows)]

        def act(t: int, states: np.ndarray) -> np.ndarray:
            actions = np.empty((len(states), len(task.low)))
            for rows, part in parts:
                actions[rows] = part(t, states[rows])
            return actions

        return act
