"""The GoalTask contract: a batch of goal-reaching environments, and its one-row gymnasium face.

A task is defined once and serves collection, evaluation and rehearsal. It never resets itself, has no time limit
and does not end on success: success is a measurement, so every episode of an evaluation runs its full budget.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import gymnasium
import numpy as np

from lewm.types import InputError


class GoalTask(ABC):
    """A batch of `rows` independent environments with a goal each.

    A subclass sets `rows`, `low`, `high` (float32 (A,), raw action bounds), `image_shape` (h, w, 3) and
    `state_dim`, and fills in the abstract methods. States are float64 (B, state_dim) and hold *everything* the
    future depends on: `reset(states=get_state())` continues exactly. Data sets record `version`, raised
    whenever the same state and action give something else, and `rendering`, JSON facts that decide what an image
    looks like.
    """

    rows: int
    low: np.ndarray
    high: np.ndarray
    image_shape: tuple[int, int, int]
    state_dim: int
    version: ClassVar[int] = 0
    rendering: Mapping[str, Any] = MappingProxyType({"backend": "numpy"})

    @abstractmethod
    def sample_state(self, rng: np.random.Generator) -> np.ndarray:
        """One valid state (state_dim,), drawn from the task's start distribution; also used for goals."""

    @abstractmethod
    def set_state(self, states: np.ndarray, goals: np.ndarray, mask: np.ndarray) -> None:
        """Put the rows of `mask` into `states` with `goals`; an impossible state is an `InputError`."""

    @abstractmethod
    def get_state(self) -> np.ndarray:
        """States (B, state_dim), a copy."""

    @abstractmethod
    def get_goal(self) -> np.ndarray:
        """Goal states (B, state_dim), a copy."""

    @abstractmethod
    def advance(self, actions: np.ndarray) -> None:
        """Move every row by one step; `actions` (B, A) are finite and within bounds."""

    @abstractmethod
    def draw(self, states: np.ndarray) -> np.ndarray:
        """Images (B, h, w, 3) uint8 of the given states."""

    @abstractmethod
    def success(self) -> np.ndarray:
        """Whether each row is at its goal now: bool (B,)."""

    # What scripted policies and the `free` track may ask for. The defaults suit tasks without obstacles.

    def waypoint(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """The next state to head for on the way to `goals`: the goal itself where nothing is in between."""
        return goals

    def detour(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """Whether the straight way from state to goal is blocked: bool (B,)."""
        return np.zeros(len(states), bool)

    def steer(self, states: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Actions (B, A) that move straight towards `targets`, blind to obstacles."""
        raise InputError(f"{type(self).__name__} has no `steer`, which goal-directed and greedy policies need")

    # Shared by all tasks.

    def reset(
        self,
        states: np.ndarray | None = None,
        goals: np.ndarray | None = None,
        seeds: Sequence[Any] | None = None,
        mask: np.ndarray | None = None,
    ) -> None:
        """Put rows into given or drawn states.

        Args:
            states, goals: (B, state_dim); what is None is drawn, start first, from the row's seed.
            seeds: one seed per row (anything `numpy.random.default_rng` takes), needed when something is drawn.
            mask: bool (B,), the rows to reset; all by default.
        """
        if states is None or goals is None:
            if seeds is None or len(seeds) != self.rows:
                raise InputError(f"reset draws states, so it needs {self.rows} seeds, got {seeds}")
            drawn = np.stack([self._draw_pair(np.random.default_rng(seed)) for seed in seeds])
            states = drawn[:, 0] if states is None else states
            goals = drawn[:, 1] if goals is None else goals
        states, goals = (self._check_states(name, value) for name, value in (("states", states), ("goals", goals)))
        self.set_state(states, goals, np.ones(self.rows, bool) if mask is None else np.asarray(mask, bool))

    def step(self, actions: np.ndarray) -> None:
        """Advance all rows by one step; actions (B, A) are clipped to the bounds, NaN is an error."""
        actions = np.asarray(actions, np.float64)
        if actions.shape != (self.rows, len(self.low)):
            raise InputError(
                f"{type(self).__name__} expects actions of shape {(self.rows, len(self.low))}, got {actions.shape}"
            )
        if not np.isfinite(actions).all():
            raise InputError(f"actions must be finite, got {actions[~np.isfinite(actions).all(1)][0]}")
        self.advance(np.clip(actions, self.low, self.high))

    def render(self) -> np.ndarray:
        """Images (B, h, w, 3) uint8 of the current states."""
        return self.draw(self.get_state())

    def render_goal(self) -> np.ndarray:
        """Images (B, h, w, 3) uint8 of the goal states."""
        return self.draw(self.get_goal())

    def _draw_pair(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return self.sample_state(rng), self.sample_state(rng)

    def _check_states(self, name: str, value: np.ndarray) -> np.ndarray:
        value = np.asarray(value, np.float64)
        if value.shape != (self.rows, self.state_dim):
            raise InputError(f"{name} must have shape {(self.rows, self.state_dim)}, got {value.shape}")
        if not np.isfinite(value).all():
            raise InputError(f"{name} must be finite")
        return value


class GoalEnv(gymnasium.Env):
    """The one-row gymnasium face of a task: pixels in, raw actions out, `info["is_success"]`.

    `reset(options={"state": ..., "goal": ...})` sets either; what is missing is drawn from `seed`. The reward is
    1 while the row is at its goal. Nothing terminates or truncates an episode.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 25}

    def __init__(self, task: GoalTask, render_mode: str | None = None) -> None:
        if task.rows != 1:
            raise InputError(f"the gymnasium face shows one row, got a task of {task.rows}")
        self.task = task
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(0, 255, task.image_shape, np.uint8)
        self.action_space = gymnasium.spaces.Box(task.low, task.high, dtype=np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start an episode; options `state` and `goal` are state vectors."""
        super().reset(seed=seed)
        given = {f"{key}s": np.asarray(value)[None] for key, value in (options or {}).items()}
        unknown = set(given) - {"states", "goals"}
        if unknown:
            raise InputError(f"reset options are 'state' and 'goal', got {sorted(options)}")
        self.task.reset(**given, seeds=[self.np_random.integers(2**63)])
        return self.task.render()[0], self._info()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """One environment step with a raw action (A,)."""
        self.task.step(np.asarray(action)[None])
        info = self._info()
        return self.task.render()[0], float(info["is_success"]), False, False, info

    def render(self) -> np.ndarray | None:
        """The current image in mode `rgb_array`."""
        return self.task.render()[0] if self.render_mode == "rgb_array" else None

    def _info(self) -> dict[str, Any]:
        return {
            "state": self.task.get_state()[0],
            "goal": self.task.get_goal()[0],
            "goal_image": self.task.render_goal()[0],
            "is_success": bool(self.task.success()[0]),
        }
