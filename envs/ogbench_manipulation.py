"""OGBench's manipulation tasks: cubes to be brought to their places, and a scene with drawer, window, buttons."""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.ogbench_arm import SIDE, TOLERANCE, ManipulationTask, Subtask
from lewm.registry import register
from lewm.types import InputError

SHUT, OPEN = 0.0, {"drawer": -0.16, "window": 0.2}
LOCKS = {"drawer": 0, "window": 1}  # the button that locks each, while it is red


@register("env", "cube")
class Cube(ManipulationTask):
    """`rows` visual-cube tables: cubes to be brought to where the goal image shows them.

    Starts are OGBench's: cubes anywhere, in any orientation. So are goals, but for half of them in which one cube
    stands on another, where there are several.

    Args:
        rows: number of independent rows B.
        cubes: how many, 1 to 4.
    """

    def __init__(self, rows: int, *, cubes: int = 1, **options: Any) -> None:
        if not 1 <= cubes <= 4:
            raise InputError(f"cube has 1 to 4 cubes, got {cubes}")
        self.cubes = cubes
        super().__init__(rows, **options)

    def ogbench(self) -> tuple[str, str, str]:
        """See the base class."""
        return "cube_env", "CubeEnv", ("single", "double", "triple", "quadruple")[self.cubes - 1]

    def arrange_goal(self, rng: np.random.Generator) -> None:
        """Half of the time, one cube onto another."""
        if self.cubes > 1 and rng.random() < 0.5:
            top, base = self._places[rng.choice(self.cubes, 2, replace=False)]
            self.data.qpos[top] = self.data.qpos[base] + (0, 0, SIDE)

    def subtask(self, state: np.ndarray, goal: np.ndarray) -> Subtask | None:
        """The misplaced cube with nothing on it that belongs lowest, and has its place free if that can be."""
        at, to = self.places(np.stack([state, goal]))

        def reluctance(cube: int) -> tuple[bool, float, bool]:
            others = np.delete(at, cube, axis=0)
            above = others - at[cube]
            covered = (np.linalg.norm(above[:, :2], axis=1) < SIDE) & (above[:, 2] > SIDE / 2)
            taken = np.linalg.norm(others - to[cube], axis=1) < SIDE
            return covered.any(), round(to[cube, 2], 2), taken.any()

        misplaced = np.flatnonzero(np.linalg.norm(at - to, axis=1) > TOLERANCE)
        return self.move_cube(min(misplaced, key=reluctance), goal) if len(misplaced) else None


@register("env", "scene")
class Scene(ManipulationTask):
    """`rows` visual-scene tables: a cube, a drawer, a window, and two buttons that lock these while they are red.

    Success is OGBench's: cube, drawer and window within 4 cm, and the buttons as in the goal. Starts are OGBench's.
    In goals drawer and window are open or shut, and three times in ten the cube is in an open drawer.
    """

    cubes = 1

    def __init__(self, rows: int, **options: Any) -> None:
        super().__init__(rows, **options)
        self._slides = {name: self.column(f"{name}_slide") for name in OPEN}

    def ogbench(self) -> tuple[str, str, str]:
        """See the base class."""
        return "scene_env", "SceneEnv", "scene"

    def arrange_goal(self, rng: np.random.Generator) -> None:
        """See the class."""
        for name, value in OPEN.items():
            self.data.joint(f"{name}_slide").qpos[0] = rng.choice([SHUT, value])
        if self.data.joint("drawer_slide").qpos[0] and rng.random() < 0.3:
            self.data.qpos[self._places[0]] = self._env._drawer_center
            self.data.qpos[self._places[0, :2]] += rng.uniform(-0.005, 0.005, 2)

    def distance(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """The farthest of all parts; a button in the other state is 2 away."""
        parts = [super().distance(states, goals)]
        parts += [np.abs(states[:, k] - goals[:, k]) / TOLERANCE for k in self._slides.values()]
        parts += [2 * np.abs(self._buttons(states) - self._buttons(goals)).max(1)]
        return np.max(parts, axis=0)

    def remembered(self) -> np.ndarray:
        """And the states of the buttons (2,): 0 is red, locked."""
        return np.concatenate([super().remembered(), self._env._cur_button_states])

    def load(self, state: np.ndarray) -> None:
        """Locks are dampings in the model, so they come first."""
        self._env._cur_button_states = self._buttons(state[None])[0].astype(int)
        self._env._apply_button_states()
        super().load(state)

    def aim(self, subtask: Subtask) -> None:
        """Buttons, drawer and window, too."""
        super().aim(subtask)
        if subtask.kind == "button":
            self._env._target_button = subtask.index
            self._env._target_button_states[subtask.index] = subtask.value[0]
        elif subtask.kind in OPEN:
            axis = {"drawer": 1, "window": 0}[subtask.kind]
            self.model.site(f"{subtask.kind}_handle_center_target").pos[axis] = subtask.value[0]

    def subtask(self, state: np.ndarray, goal: np.ndarray) -> Subtask | None:
        """Out of the drawer; drawer and window, unlocked where needed; the cube; the buttons last."""
        self.load(state)
        self._mj.mj_forward(self.model, self.data)  # where the drawer is
        (buttons, wanted), cube = self._buttons(np.stack([state, goal])), self.move_cube(0, goal)
        away = super().distance(state[None], goal[None])[0] > 1
        if away and self._env._is_in_drawer(self.places(state[None])[0, 0]):
            return cube
        for name, column in self._slides.items():
            if abs(state[column] - goal[column]) > TOLERANCE:
                lock = LOCKS[name]
                return Subtask(name, 0, goal[[column]]) if buttons[lock] else Subtask("button", lock, np.ones(1))
        if away:
            return cube
        wrong = np.flatnonzero(buttons != wanted)
        return Subtask("button", wrong[0], wanted[wrong[:1]]) if len(wrong) else None

    def _buttons(self, states: np.ndarray) -> np.ndarray:
        return states[:, self._physics + 13 : self._physics + 15]

    def _pose(self, states: np.ndarray) -> np.ndarray:
        """Also buttons, drawer and window."""
        slides = states[:, [self.column(f"{name}_slide") for name in OPEN]]
        return np.concatenate([super()._pose(states), self._buttons(states), slides], axis=1)
