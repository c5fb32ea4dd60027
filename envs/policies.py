"""Data policies: how a batch of rows behaves while it is being recorded.

A policy draws *all* its randomness for an episode from that episode's own generator before the first step, so an
episode is the same whichever batch or worker it was recorded in. `begin(task, rngs, steps)` does the drawing and
returns an `Actor`: `act(t, states) -> actions`, deterministic and for the whole batch, and who acts in each row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from envs.task import GoalTask
from lewm.registry import build, register
from lewm.types import InputError

Act = Callable[[int, np.ndarray], np.ndarray]
Rngs = Sequence[np.random.Generator]


@dataclass(frozen=True)
class Actor:
    """A policy at work on a batch.

    Attributes:
        act: `act(t, states (B, s)) -> actions (B, A)`, called once for each t = 0, 1, ...
        names: the policy that acts in each row; recorded with the episode.
        facts: JSON facts about each row's episode, complete after the last step; recorded with it.
    """

    act: Act
    names: Sequence[str]
    facts: Sequence[dict[str, Any]] = field(default=())

    def __call__(self, t: int, states: np.ndarray) -> np.ndarray:
        """Actions (B, A) at step t."""
        return self.act(t, states)


class Policy(Protocol):
    """See the module docstring."""

    def begin(self, task: GoalTask, rngs: Rngs, steps: int) -> Actor:
        """Draw an episode of `steps` steps per generator."""


def _half_range(task: GoalTask) -> np.ndarray:
    return (task.high - task.low) / 2


def _normal(task: GoalTask, rngs: Rngs, steps: int) -> np.ndarray:
    """White noise (B, steps, A), one row per generator."""
    return np.stack([rng.standard_normal((steps, len(task.low))) for rng in rngs])


def _replay(name: str, task: GoalTask, actions: np.ndarray) -> Actor:
    """An open-loop policy from actions (B, steps, A) around the middle of the bounds."""
    clipped = np.clip(actions + (task.low + task.high) / 2, task.low, task.high)
    return Actor(lambda t, states: clipped[:, t], [name] * len(actions))


def _chain(task: GoalTask, rng: np.random.Generator, start: np.ndarray, count: int) -> np.ndarray:
    """Goals (count, s) one after another, each drawn for an episode that begins in the one before."""
    goals = [start]
    for _ in range(count):
        goals.append(task.sample_goal(rng, goals[-1]))
    return np.stack(goals[1:])


@register("policy", "uniform_hold")
class UniformHold:
    """Uniform random actions, each held for `hold` steps: the random floor of an evaluation. 1 is plain uniform."""

    def __init__(self, *, hold: int = 5) -> None:
        if hold < 1:
            raise InputError(f"hold must be at least 1, got {hold}")
        self.hold = hold

    def begin(self, task: GoalTask, rngs: Rngs, steps: int) -> Actor:
        """See `Policy`."""
        blocks = -(-steps // self.hold)
        drawn = np.stack([rng.uniform(task.low, task.high, (blocks, len(task.low))) for rng in rngs])
        held = np.repeat(drawn, self.hold, axis=1)
        return Actor(lambda t, states: held[:, t], ["uniform_hold"] * len(rngs))


@register("policy", "ou")
class OrnsteinUhlenbeck:
    """A stationary first-order autoregressive walk: a[t] = c a[t-1] + sqrt(1 - c^2) scale * half range * noise."""

    def __init__(self, *, correlation: float = 0.9, scale: float = 0.7) -> None:
        if not 0 <= correlation <= 1 or not scale >= 0:
            raise InputError(f"ou needs 0 <= correlation <= 1 and scale >= 0, got {correlation} and {scale}")
        self.correlation, self.scale = correlation, scale

    def begin(self, task: GoalTask, rngs: Rngs, steps: int) -> Actor:
        """See `Policy`."""
        noise = _normal(task, rngs, steps)
        for t in range(1, steps):
            fresh = np.sqrt(1 - self.correlation**2) * noise[:, t]
            noise[:, t] = self.correlation * noise[:, t - 1] + fresh
        return _replay("ou", task, noise * self.scale * _half_range(task))


@register("policy", "momentum")
class Momentum:
    """A random walk of the action itself, reflected at its bounds: a[t] = a[t-1] + step * half range * noise.

    It starts anywhere and stays uniform over the range, however smooth it is.
    """

    def __init__(self, *, step: float = 0.2) -> None:
        if not 0 <= step < np.inf:
            raise InputError(f"momentum needs a finite step of at least 0, got {step}")
        self.step = step

    def begin(self, task: GoalTask, rngs: Rngs, steps: int) -> Actor:
        """See `Policy`."""
        starts = np.stack([rng.uniform(-1, 1, len(task.low)) for rng in rngs])
        walk = self.step * _normal(task, rngs, steps)
        walk[:, 0] = starts
        folded = np.abs((np.cumsum(walk, axis=1) - 1) % 4 - 2) - 1  # noise is symmetric: the same as reflecting
        return _replay("momentum", task, folded * _half_range(task))


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

    def begin(self, task: GoalTask, rngs: Rngs, steps: int) -> Actor:
        """See `Policy`."""
        return _replay("straight", task, np.stack([self._segments(task, rng, steps) for rng in rngs]))

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

    def begin(self, task: GoalTask, rngs: Rngs, steps: int) -> Actor:
        """See `Policy`."""
        noise = self.wander.begin(task, rngs, steps)
        shortest = min(10, self.patience)  # steps between two goals
        count = -(-steps // shortest) + 1
        goals = np.empty((0, 0, 0))
        rows = np.arange(len(rngs))
        index, since = np.zeros(len(rngs), int), np.zeros(len(rngs), int)

        def act(t: int, states: np.ndarray) -> np.ndarray:
            nonlocal goals
            if t == 0:
                goals = np.stack([_chain(task, rng, start, count) for rng, start in zip(rngs, states, strict=True)])
            goal = goals[rows, index]
            reached = np.abs(task.steer(states, goal)).max(1) < 0.5 * task.high.max()
            reached &= task.distance(states, goal) <= 1  # a motor may rest half-way, at full speed
            advance = (reached & (since >= shortest)) | (since >= self.patience)
            index[advance] += 1
            since[:] = np.where(advance, 0, since + 1)
            target = task.waypoint(states, goals[rows, index])
            middle = (task.low + task.high) / 2  # where the noise is centred
            return np.clip(task.steer(states, target) + noise(t, states) - middle, task.low, task.high)

        return Actor(act, ["goal_directed"] * len(rngs))


@register("policy", "greedy")
class Greedy:
    """Straight at the task's goal with the true state: what a planner without a map would do."""

    def begin(self, task: GoalTask, rngs: Rngs, steps: int) -> Actor:
        """See `Policy`."""
        return Actor(lambda t, states: task.steer(states, task.get_goal()), ["greedy"] * len(rngs))


@register("policy", "expert")
class Expert:
    """The task's own scripted expert, with autocorrelated noise of `noise` half action ranges."""

    def __init__(self, *, noise: float = 0.2, correlation: float = 0.7) -> None:
        self.settings = {"noise": noise, "correlation": correlation}
        OrnsteinUhlenbeck(correlation=correlation, scale=noise)

    def begin(self, task: GoalTask, rngs: Rngs, steps: int) -> Actor:
        """See `Policy`."""
        return build("policy", {"name": task.expert, **self.settings}).begin(task, rngs, steps)


@register("policy", "mixed")
class Mixed:
    """Each episode follows one of several policies, drawn by weight.

    Args:
        parts: names of policies, or policies with settings, `{name: ou, scale: 0.3}`; `weights`: one for each.
    """

    def __init__(
        self,
        *,
        parts: Sequence[str | Mapping[str, Any]] = ("ou", "goal_directed", "straight"),
        weights: Sequence[float] = (1.0, 2.0, 1.0),
    ) -> None:
        if len(parts) != len(weights) or not len(parts):
            raise InputError(f"mixed needs a weight for each part, got {list(parts)} and {list(weights)}")
        if not (min(weights) >= 0 and 0 < sum(weights) < float("inf")):
            raise InputError(f"policy weights must be non-negative and not all zero, got {list(weights)}")
        self.weights = np.array(weights) / sum(weights)
        self.policies = [build("policy", {"name": part}) if isinstance(part, str) else part for part in parts]

    def begin(self, task: GoalTask, rngs: Rngs, steps: int) -> Actor:
        """See `Policy`."""
        choice = np.array([rng.choice(len(self.policies), p=self.weights) for rng in rngs])
        members = [(np.flatnonzero(choice == k), policy) for k, policy in enumerate(self.policies)]
        parts = [(rows, p.begin(task, [rngs[r] for r in rows], steps)) for rows, p in members if len(rows)]
        names, facts = [""] * len(rngs), [{} for _ in rngs]
        for rows, part in parts:
            for k, row in enumerate(rows):
                names[row] = part.names[k]
                facts[row] = part.facts[k] if part.facts else facts[row]

        def act(t: int, states: np.ndarray) -> np.ndarray:
            actions = np.empty((len(states), len(task.low)))
            for rows, part in parts:
                actions[rows] = part(t, states[rows])
            return actions

        return Actor(act, names, facts)
