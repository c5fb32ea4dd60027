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

from envs.factors import Factors
from lewm.registry import build
from lewm.types import InputError


class GoalTask(ABC):
    """A batch of `rows` independent environments with a goal each, made of pure functions of their states.

    A subclass sets `rows`, `low`, `high` (float32 (A,), raw action bounds), `image_shape` (h, w, 3) and
    `state_dim`, and fills in four functions: `sample_state`, `advance`, `draw` and `distance`. States are float64
    (B, state_dim) and hold *everything* the future depends on, varied factors included (`envs.factors`): what a row
    does next depends on its state and action alone, never on what else the task computed before.

    Attributes:
        version: raised whenever the same state and action give something else; data sets record it.
        rendering: JSON facts that decide what an image looks like; data sets record them, too.
        factors: what may vary from episode to episode.
        sensors: name -> length of what `sense` measures beside the image.
        expert: the registered policy that pursues goals here; it has the settings `noise` and `correlation`.
        fps: environment steps per second of the task's own time.
    """

    rows: int
    low: np.ndarray
    high: np.ndarray
    image_shape: tuple[int, int, int]
    state_dim: int
    version: ClassVar[int] = 0
    rendering: Mapping[str, Any] = MappingProxyType({"backend": "numpy"})
    factors: Factors = Factors({})
    sensors: Mapping[str, int] = MappingProxyType({})
    expert: ClassVar[str] = "goal_directed"
    fps: float = 25

    _state: np.ndarray | None = None
    _goal: np.ndarray | None = None

    @abstractmethod
    def sample_state(self, rng: np.random.Generator) -> np.ndarray:
        """One possible state (state_dim,), drawn from the task's start distribution; also used for goals."""

    @abstractmethod
    def advance(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """The states one step later; `actions` (B, A) are finite and within bounds."""

    @abstractmethod
    def draw(self, states: np.ndarray) -> np.ndarray:
        """Images (B, h, w, 3) uint8 of the given states."""

    @abstractmethod
    def distance(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """How far each state is from its goal (B,), in units of the tolerance: at most 1 counts as reached."""

    # What a task may refine. The defaults suit tasks without obstacles or impossible states.

    def sample_goal(self, rng: np.random.Generator, start: np.ndarray) -> np.ndarray:
        """A goal (state_dim,) for an episode that begins in `start`, with its factors."""
        goal = self.sample_state(rng)
        if self.factors.size:
            goal[-self.factors.size :] = start[-self.factors.size :]
        return goal

    def possible(self, states: np.ndarray) -> np.ndarray:
        """Which states can be: bool (B,)."""
        return np.ones(len(states), bool)

    def travel(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """How far each state is from its goal along the way (B,), in units of the tolerance: for oracles."""
        return self.distance(states, goals)

    def measures(self, states: np.ndarray, goals: np.ndarray) -> dict[str, np.ndarray]:
        """Distances by other rules than `distance`, by name, in units of their tolerance: (B,) each."""
        return {}

    def sense(self, states: np.ndarray) -> dict[str, np.ndarray]:
        """What the sensors read: name -> (B, length). `pose`, if there, is what a picture can show of the state."""
        return {}

    def waypoint(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """The next state to head for on the way to `goals`: the goal itself where nothing is in between."""
        return goals

    def detour(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """Whether the straight way from state to goal is blocked: bool (B,)."""
        return np.zeros(len(states), bool)

    def steer(self, states: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Actions (B, A) that move straight towards `targets`, blind to obstacles."""
        raise InputError(
            f"{type(self).__name__} has no `steer`, which goal-directed and greedy policies need: collect with "
            "policy=ou, or another that does not, and evaluate with agents=[model,random]"
        )

    def close(self) -> None:
        """Give back what the task holds, simulators and renderers included; it needs a reset afterwards."""
        self._state = self._goal = None

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
            rngs = [np.random.default_rng(seed) for seed in seeds]
            drawn = np.stack([self.sample_state(rng) for rng in rngs])
            states = drawn if states is None else self._check_states("states", states)
            if goals is None:
                goals = np.stack([self.sample_goal(rng, start) for rng, start in zip(rngs, states, strict=True)])
        states, goals = self._check_states("states", states), self._check_states("goals", goals)
        chosen = np.ones(self.rows, bool) if mask is None else np.asarray(mask, bool)
        for name, given in (("state", states[chosen]), ("goal", goals[chosen])):
            possible = self.possible(given)
            if not possible.all():
                raise InputError(f"{name} {given[~possible][0]} is impossible in {type(self).__name__}")
        if self._state is None and not chosen.all():
            raise InputError("the first reset must cover every row")
        rows = chosen[:, None]
        self._state = states.copy() if self._state is None else np.where(rows, states, self._state)
        self._goal = goals.copy() if self._goal is None else np.where(rows, goals, self._goal)

    def step(self, actions: np.ndarray) -> None:
        """Advance all rows by one step; actions (B, A) are clipped to the bounds, NaN is an error."""
        actions = np.asarray(actions, np.float64)
        if actions.shape != (self.rows, len(self.low)):
            raise InputError(
                f"{type(self).__name__} expects actions of shape {(self.rows, len(self.low))}, got {actions.shape}"
            )
        if not np.isfinite(actions).all():
            raise InputError(f"actions must be finite, got {actions[~np.isfinite(actions).all(1)][0]}")
        self._state = self.advance(self._current(self._state), np.clip(actions, self.low, self.high))

    def get_state(self) -> np.ndarray:
        """States (B, state_dim), a copy."""
        return self._current(self._state).copy()

    def get_goal(self) -> np.ndarray:
        """Goal states (B, state_dim), a copy."""
        return self._current(self._goal).copy()

    def success(self) -> np.ndarray:
        """Whether each row is at its goal now: bool (B,)."""
        return self.distance(self._current(self._state), self._current(self._goal)) <= 1

    def render(self) -> np.ndarray:
        """Images (B, h, w, 3) uint8 of the current states."""
        return self.draw(self._current(self._state))

    def render_goal(self) -> np.ndarray:
        """Images (B, h, w, 3) uint8 of the goal states."""
        return self.draw(self._current(self._goal))

    def _current(self, states: np.ndarray | None) -> np.ndarray:
        if states is None:
            raise InputError(f"{type(self).__name__} has no state yet: call reset first")
        return states

    def _check_states(self, name: str, value: np.ndarray) -> np.ndarray:
        value = np.asarray(value, np.float64)
        if value.shape != (self.rows, self.state_dim):
            raise InputError(f"{name} must have shape {(self.rows, self.state_dim)}, got {value.shape}")
        if not np.isfinite(value).all():
            raise InputError(f"{name} must be finite")
        return value


class SimulatorTask(GoalTask):
    """A task over one simulator, a function (state, action) -> state, which all rows share with its renderer."""

    @abstractmethod
    def simulate(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        """The state (state_dim,) one step later."""

    @abstractmethod
    def draw_one(self, state: np.ndarray) -> np.ndarray:
        """The image (h, w, 3) uint8 of one state."""

    def advance(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """One row after another."""
        return np.stack([self.simulate(state, action) for state, action in zip(states, actions, strict=True)])

    def draw(self, states: np.ndarray) -> np.ndarray:
        """One row after another."""
        return np.stack([self.draw_one(state) for state in np.asarray(states, np.float64)])


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
        self.metadata = {**self.metadata, "render_fps": task.fps}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start an episode; options `state` and `goal` are state vectors."""
        super().reset(seed=seed)
        given = {f"{key}s": np.asarray(value)[None] for key, value in (options or {}).items()}
        unknown = set(given) - {"states", "goals"}
        if unknown:
            raise InputError(f"reset options are 'state' and 'goal', got {sorted(options)}")
        self.task.reset(**given, seeds=[self.np_random.integers(2**63)])
        self._goal_image = self.task.render_goal()[0]
        return self.task.render()[0], self._info()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """One environment step with a raw action (A,)."""
        self.task.step(np.asarray(action)[None])
        info = self._info()
        return self.task.render()[0], float(info["is_success"]), False, False, info

    def render(self) -> np.ndarray | None:
        """The current image in mode `rgb_array`."""
        return self.task.render()[0] if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Close the task."""
        self.task.close()

    def _info(self) -> dict[str, Any]:
        sensed = self.task.sense(self.task.get_state())
        return {
            **{name: values[0] for name, values in sensed.items()},
            "state": self.task.get_state()[0],
            "goal": self.task.get_goal()[0],
            "goal_image": self._goal_image.copy(),
            "is_success": bool(self.task.success()[0]),
        }


def make_env(task: str, render_mode: str | None = None, **settings: Any) -> GoalEnv:
    """The gymnasium face of a registered task, behind the ids `lewm/<Name>-v0`; `settings` are the task's own."""
    return GoalEnv(build("env", {"name": task, **settings}, rows=1), render_mode)
