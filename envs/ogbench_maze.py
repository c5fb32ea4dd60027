"""OGBench's mazes: an ant, or a point, that has to get to another place."""

from __future__ import annotations

from collections import deque
from functools import cache
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from envs.factors import Factor
from envs.ogbench import Knob, OGBenchTask, colour, scale, shift
from lewm.registry import register
from lewm.types import InputError, nearest

if TYPE_CHECKING:
    import gymnasium

NEAR = np.array([(0, 0), (-1, 0), (0, -1), (1, 0), (0, 1)])  # a cell and those beside it
MAZES = ("arena", "medium", "large", "giant")  # "teleport" sends to a random place: not a function of the state


class MazeTask(OGBenchTask):
    """What both mazes share. Cells are (row, column); positions are x along columns, y along rows.

    A start is anywhere up to a quarter cell from the middle of a random free cell, and so is a goal.
    """

    fps: ClassVar[float] = 10
    loco: ClassVar[str]
    tolerance: ClassVar[float]
    radius: ClassVar[float]  # what keeps clear of walls

    def __init__(self, rows: int, *, maze: str = "medium", **options: Any) -> None:
        if maze not in MAZES:
            raise InputError(f"unknown maze '{maze}': {nearest(maze, list(MAZES))}")
        self.maze = maze
        super().__init__(rows, **options)
        self._map = self._env.maze_map == 0
        self._unit, self._offset = self._env._maze_unit, np.array([self._env._offset_x, self._env._offset_y])
        self._free, self._grid = np.argwhere(self._map), tuple(map(tuple, self._map.tolist()))
        self._walls = self._middle(np.argwhere(~self._map))

    def make(self) -> gymnasium.Env:
        """With the colours of the pixel versions: the floor's shows the place."""
        camera = {"camera_name": "back"} if self.loco == "ant" else {}
        env = _blind(self.loco)(maze_type=self.maze, ob_type="pixels", terminate_at_goal=False, **camera)
        Path(env.fullpath).unlink()  # a temporary file that nobody else would delete
        self.camera = env.custom_camera
        return env

    def possible(self, states: np.ndarray) -> np.ndarray:
        """Only within free cells; factors stay in their ranges."""
        return self._map[tuple(self._cells(states[:, :2]).T)] & self.factors.fits(states)

    def distance(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """OGBench's: between positions in the plane, in units of its tolerance; heading and limbs do not count."""
        return np.linalg.norm(states[:, :2] - goals[:, :2], axis=1) / self.tolerance

    def travel(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """Straight where no wall is in the way, else through the middles of cells; in units of the tolerance."""
        here, there = states[:, :2], goals[:, :2]
        ends, which = np.unique(self._cells(there), axis=0, return_inverse=True)
        steps = np.stack([_steps_to(tuple(end), self._grid) for end in ends.tolist()])
        cells = self._cells(here)[:, None] + NEAR  # (B, 5, 2)
        first = np.linalg.norm(here[:, None] - self._middle(cells), axis=2)
        around = (first + self._unit * steps[which.reshape(-1, 1), cells[..., 0], cells[..., 1]]).min(1)
        around += np.linalg.norm(there - self._middle(ends)[which.ravel()], axis=1)
        straight = np.linalg.norm(there - here, axis=1)
        return np.where(self._clear(here, there), straight, np.maximum(around, straight)) / self.tolerance

    def place(self, rng: np.random.Generator) -> np.ndarray:
        """A random position (2,), at least a quarter cell from any wall."""
        cell = self._free[rng.integers(len(self._free))]
        return self._middle(cell) + rng.uniform(-1, 1, 2) * self._unit / 4

    def _middle(self, cells: np.ndarray) -> np.ndarray:
        return np.asarray(cells)[..., ::-1] * self._unit - self._offset

    def _cells(self, positions: np.ndarray) -> np.ndarray:
        cells = ((positions + self._offset) / self._unit + 0.5)[..., ::-1]
        return np.clip(cells, 0, np.array(self._map.shape) - 1).astype(int)

    def _clear(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Which of the segments (B, 2) keep `radius` from all walls: none of the grown boxes is entered."""
        with np.errstate(divide="ignore", invalid="ignore"):
            faces = self._walls + np.array([-1, 1])[:, None, None] * (self._unit / 2 + self.radius)
            when = (faces - start[:, None, None]) / (end - start)[:, None, None]  # (B, face, wall, axis)
        enter, leave = np.nanmin(when, 1).max(-1), np.nanmax(when, 1).min(-1)  # NaN: along a face
        return ~((enter < leave) & (enter < 1) & (leave > 0)).any(1)


@register("env", "antmaze")
class AntMaze(MazeTask):
    """`rows` visual-antmaze worlds: torques of eight joints, seen by a camera that follows the ant.

    The floor's colour tells where the picture was taken. Nothing scripted walks: OGBench's own data come from
    trained policies. Smooth random torques (policy `ou`) are what there is here.

    Args:
        rows: number of independent rows B.
        maze: arena, medium, large or giant.
    """

    loco = "ant"
    tolerance = 0.5
    radius = 0.5  # of its body, about; legs fold
    sensors = MappingProxyType({"pose": 4, "proprio": 16})

    def arrange(self, rng: np.random.Generator, goal: bool) -> None:
        """OGBench's noise around the ant's first pose, in a random place."""
        self._env.reset_model()
        self._env.set_xy(self.place(rng))

    def settle(self, state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Five random steps put it on its feet, as OGBench does for goals."""
        for _ in range(5):
            state = self.simulate(state, rng.uniform(self.low, self.high))
        return state

    def steer(self, states: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """There is no such thing."""
        raise InputError(
            "antmaze has no scripted expert, as walking needs a trained policy: use one that needs none, policy=ou"
        )

    def sense(self, states: np.ndarray) -> dict[str, np.ndarray]:
        """`pose`: x, y, sin and cos of the heading. `proprio`: angles and speeds of the eight joints."""
        w, x, y, z = states[:, 3:7].T
        heading = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
        pose = np.column_stack([states[:, :2], np.sin(heading), np.cos(heading)])
        return {"pose": pose, "proprio": np.concatenate([states[:, 7:15], states[:, 21:29]], axis=1)}

    def knobs(self) -> dict[str, Knob]:
        """Looks of ant and walls (the floor tells the place), light, camera; strength of the motors."""
        model = self.model
        return {
            "ant_color": colour(model.material("self").rgba),
            "wall_color": colour(model.material("wall").rgba),
            "light": scale(0.6, 1.4, model.light_diffuse),
            "camera": shift(model.cam_poscom0[model.camera("back").id], 0.5),
            "gear": scale(0.7, 1.3, model.actuator_gear),
        }


@register("env", "pointmaze")
class PointMaze(MazeTask):
    """`rows` pointmaze worlds: displacements of a ball, seen from above.

    OGBench has no pixel version of it: these are the colours of its visual mazes, in its own view of the whole
    maze. In mazes larger than medium the ball is small: take an image_size of 96 or more.

    Args:
        rows: number of independent rows B.
        maze: arena, medium, large or giant.
    """

    loco = "point"
    tolerance = 1.0
    sensors = MappingProxyType({"pose": 2})
    reach: ClassVar[float] = 0.2  # of one step at full action
    radius = 0.6  # a little less than the ball's 0.7, which may touch

    def arrange(self, rng: np.random.Generator, goal: bool) -> None:
        """A random place, at rest."""
        self._env.set_xy(self.place(rng))

    def simulate(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        """OGBench's step; a varied `speed` multiplies the action."""
        return super().simulate(state, action * self.factors.of(state[None])["speed"][0])

    def sense(self, states: np.ndarray) -> dict[str, np.ndarray]:
        """`pose`: x and y."""
        return {"pose": states[:, :2]}

    def steer(self, states: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Straight at full speed, without overshooting."""
        move = (targets - states)[:, :2] / self.reach / self.factors.of(states)["speed"]
        return move / np.maximum(1.0, np.abs(move).max(1, keepdims=True))

    def detour(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """Whether a wall cuts the ball's straight way."""
        return ~self._clear(states[:, :2], goals[:, :2])

    def waypoint(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """The farthest point in sight on the shortest way through cells."""
        ahead = np.array(goals, float)
        for row, blocked in enumerate(self.detour(states, goals)):
            if blocked:
                here = states[row, :2]
                way = self._middle(self._way(here, goals[row, :2]))
                seen = np.flatnonzero(self._clear(np.broadcast_to(here, way.shape), way))
                ahead[row, :2] = way[seen[-1] if len(seen) else 0]
        return ahead

    def knobs(self) -> dict[str, Knob]:
        """Looks of ball and walls, light, camera; how far an action goes."""
        model = self.model
        return {
            "ball_color": colour(model.material("self").rgba),
            "wall_color": colour(model.material("wall").rgba),
            "light": scale(0.6, 1.4, model.light_diffuse),
            "camera": shift(self.camera.lookat, 1.0),
            "speed": Knob(Factor(1.0, 0.5, 1.5), lambda value: None),  # `simulate` reads it from the state
        }

    def _way(self, start: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """Free cells (n, 2) from the start's to the goal's, both included."""
        here, there = (tuple(int(k) for k in self._cells(position)) for position in (start, goal))
        way, steps = [here], _steps_to(there, self._grid)
        while way[-1] != there:
            i, j = way[-1]
            way.append(min(((i - 1, j), (i, j - 1), (i + 1, j), (i, j + 1)), key=lambda cell: steps[cell]))
        return np.array(way)


@cache
def _steps_to(goal: tuple[int, int], free: tuple[tuple[bool, ...], ...]) -> np.ndarray:
    """Breadth first: how many steps every cell is from the goal's, infinitely many from inside of a wall."""
    steps, queue = np.full(np.shape(free), np.inf), deque([goal])
    steps[goal] = 0
    while queue:
        i, j = queue.popleft()
        for cell in ((i - 1, j), (i, j - 1), (i + 1, j), (i, j + 1)):
            if free[cell[0]][cell[1]] and np.isinf(steps[cell]):
                steps[cell] = steps[i, j] + 1
                queue.append(cell)
    return steps


@cache
def _blind(loco: str) -> type[gymnasium.Env]:
    """OGBench's maze environment, which draws whenever it is made or stepped, without that.

    The class is made inside of a function: an instance, without pictures, has to tell.
    """
    sample = import_module("ogbench.locomaze.maze").make_maze_env(loco, "maze", maze_type="arena")
    Path(sample.fullpath).unlink()

    class Blind(type(sample)):
        def initialize_renderer(self) -> None:
            pass

        def render(self) -> None:
            pass

    return Blind
