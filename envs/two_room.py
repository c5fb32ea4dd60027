"""Two-Room: a disc moves between two rooms joined by a door, seen from above. Batched numpy, no simulator.

Motion is swept along x, then along y, so nothing passes through a wall at any speed and the disc slides along
walls. The task is the one of PLDM and LeWM (arXiv 2502.14819, 2603.19312) with honest collisions: the published
environment checks only the end point of a move.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from envs.factors import TRIES, Factor, Factors, check_colours
from envs.task import GoalTask
from envs.two_room_geometry import WORLD, Geometry
from lewm.registry import register
from lewm.types import InputError

RANGES = {  # of what may vary; of `speed` in shares of its usual value
    "door": (8.5, 55.5),
    "door_size": (8.0, 16.0),
    "wall": (2.0, 8.0),
    "wall_x": (20.0, 44.0),
    "radius": (1.5, 3.5),
    "speed": (0.5, 1.5),
    "agent_color": ((0, 0, 0), (255, 255, 255)),
    "wall_color": ((0, 0, 0), (110, 110, 110)),
    "floor_color": ((150, 150, 150), (255, 255, 255)),
}
COLOURS = ("agent_color", "wall_color", "floor_color")


@register("env", "two_room")
class TwoRoom(GoalTask):
    """`rows` Two-Room worlds. State: the centre (x, y) in world units, then what varies; action: (dx, dy) per step.

    Args:
        rows: number of independent worlds B.
        image_size: side of the square image in pixels.
        door: height of the door's centre; door_size: its full width.
        wall: thickness of the dividing wall; wall_x: where its middle is; border: thickness of the outer one.
        radius: of the disc.
        speed: largest displacement per step and axis. Where it varies, actions keep their bounds and move the disc
            by more or less than they say.
        tolerance: success is a distance of at most this to the goal (7 % of the width).
        agent_color, wall_color, floor_color: red, green, blue in 0..255.
        vary: factors drawn anew for every episode, any of those above from `door` to `floor_color` but `border` and
            `tolerance`.
    """

    def __init__(
        self,
        rows: int,
        *,
        image_size: int = 64,
        door: float = 22.0,
        door_size: float = 12.0,
        wall: float = 3.0,
        wall_x: float = 32.0,
        border: float = 2.0,
        radius: float = 2.5,
        speed: float = 2.0,
        tolerance: float = 4.48,
        agent_color: Sequence[int] = (214, 69, 52),
        wall_color: Sequence[int] = (54, 62, 82),
        floor_color: Sequence[int] = (236, 233, 226),
        vary: Sequence[str] = (),
    ) -> None:
        values = dict(door=door, door_size=door_size, wall=wall, wall_x=wall_x, radius=radius, speed=speed)
        values |= dict(agent_color=agent_color, wall_color=wall_color, floor_color=floor_color)
        ranges = RANGES | {"speed": np.multiply(RANGES["speed"], speed)}
        self.factors = Factors({name: Factor(value, *ranges[name]) for name, value in values.items()}, vary)
        self.state_dim = 2 + self.factors.size
        self.sensors = {"pose": 2} if self.factors.size else {}  # else the state itself is the pose
        self.rows, self.border, self.speed, self.tolerance = rows, border, speed, tolerance
        self.low = np.full(2, -speed, np.float32)
        self.high = np.full(2, speed, np.float32)
        self.image_shape = (image_size, image_size, 3)
        self._check(values)
        self._usual = Geometry.of(Factors(self.factors.known).of(np.zeros((1, 2))), border)
        if not self._usual.has_door.all():
            raise InputError(f"the door (centre {door}, size {door_size}) must fit the wall and the disc")
        if not self._usual.has_rooms.all():
            raise InputError(f"a wall of {wall} at {wall_x} and a disc of radius {radius} leave no room")
        self._drawn: tuple[np.ndarray, np.ndarray] | None = None
        if self.factors.size:
            self.sample_state(np.random.default_rng(0))  # an error here and not in the middle of a collection

    def sample_state(self, rng: np.random.Generator) -> np.ndarray:
        """Either room with equal chance, uniform inside it; what varies is drawn again until it makes a world."""
        if not self.factors.size:
            return self._place(rng, np.zeros(2), left=rng.random() < 0.5)
        for _ in range(TRIES):
            state = np.concatenate([np.zeros(2), self.factors.draw(rng)])
            if self._is_world(state[None])[0] and self.factors.distinct(state[None], *COLOURS)[0]:
                return self._place(rng, state, left=rng.random() < 0.5)
        raise InputError(f"{TRIES} draws of {list(self.factors.vary)} made no world: vary something else")

    def sample_goal(self, rng: np.random.Generator, start: np.ndarray) -> np.ndarray:
        """As `sample_state`, in the world of `start`."""
        return self._place(rng, start, left=rng.random() < 0.5)

    def possible(self, states: np.ndarray) -> np.ndarray:
        """A centre inside a wall is not, nor is a world that does not fit together."""
        return self._geometry(states).has(states) & self._is_world(states)

    def advance(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Swept motion along x, then along y."""
        return self._geometry(states).sweep(states, actions * self._gain(states))

    def distance(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """Between centres, in units of `tolerance`."""
        return np.linalg.norm(states[:, :2] - goals[:, :2], axis=1) / self.tolerance

    def travel(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """The centre's shortest way, around the corners of the door, in units of `tolerance`."""
        return self._geometry(states).way(states, goals) / self.tolerance

    def sense(self, states: np.ndarray) -> dict[str, np.ndarray]:
        """The centre, where the state holds more than that."""
        return {"pose": states[:, :2]} if self.sensors else {}

    def detour(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """Whether the dividing wall cuts the segment from state to goal."""
        return self._geometry(states).cuts(states, goals)

    def waypoint(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """The goal where the way is free, else the door's mouth in the goal's room, else its other mouth."""
        here = self._geometry(states)
        left = goals[:, 0] < here.middle
        there, back = np.array(goals), np.array(goals)
        there[:, 0], back[:, 0] = np.where(left, here.near, here.far), np.where(left, here.far, here.near)
        there[:, 1] = back[:, 1] = here.door
        via = np.where(self.detour(states, there)[:, None], back, there)
        return np.where(self.detour(states, goals)[:, None], via, goals)

    def steer(self, states: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Straight at full speed, without overshooting."""
        move = (targets - states)[:, :2] / self._gain(states)
        return move / np.maximum(1.0, np.abs(move).max(1, keepdims=True) / self.high)

    def draw(self, states: np.ndarray) -> np.ndarray:
        """Background plus one antialiased disc per row, blended into a small patch around its centre."""
        size, scale = self.image_shape[0], self.image_shape[0] / WORLD
        centre, radius = np.asarray(states[:, :2], np.float32) * scale, self._geometry(states).radius * scale
        colour = self.factors.of(states)["agent_color"].astype(np.float32)
        side = min(size, math.ceil(2 * radius.max()) + 2)
        corner = np.clip(np.floor(centre - side / 2 + 0.5), 0, size - side).astype(np.intp)
        rows_cols = corner[:, :, None] + np.arange(side)  # (B, xy, side)
        offsets = (rows_cols + 0.5 - centre[:, :, None]) ** 2
        distance = np.sqrt(offsets[:, 1, :, None] + offsets[:, 0, None, :])
        alpha = np.clip((radius + 0.5)[:, None, None] - distance, 0, 1)[..., None]
        images = np.empty((len(states), size, size, 3), np.uint8)
        images[:] = self._backgrounds(states)
        pixels, first = images.reshape(-1, 3), size * size * np.arange(len(states))[:, None, None]
        place = first + rows_cols[:, 1, :, None] * size + rows_cols[:, 0, None, :]
        patch = pixels[place].astype(np.float32)
        patch += alpha * (colour[:, None, None] - patch)
        pixels[place] = (patch + 0.5).astype(np.uint8)
        return images

    def _check(self, values: dict[str, float | Sequence[int]]) -> None:
        """Settings that mean nothing are an error, each in its own words."""
        colours = [value for value in values.values() if np.size(value) > 1]
        numbers = {name: value for name, value in values.items() if np.size(value) == 1}
        numbers |= {"border": self.border, "tolerance": self.tolerance}
        positive = [numbers[name] > 0 for name in ("wall", "radius", "speed", "tolerance")]
        if not (np.isfinite(list(numbers.values())).all() and all(positive) and self.border >= 0):
            raise InputError(
                f"{type(self).__name__} needs finite numbers, wall, radius, speed, tolerance above 0, border at "
                f"least 0; got {numbers}"
            )
        if self.rows < 1 or self.image_shape[0] < 16:
            raise InputError(
                f"rows must be at least 1 and image_size 16, got {self.rows} and {self.image_shape[0]}"
            )
        check_colours(*colours)

    def _geometry(self, states: np.ndarray) -> Geometry:
        return Geometry.of(self.factors.of(states), self.border) if self.factors.size else self._usual

    def _gain(self, states: np.ndarray) -> np.ndarray:
        """Of actions, (B or 1, 1)."""
        return self.factors.of(states)["speed"] / self.speed

    def _place(self, rng: np.random.Generator, state: np.ndarray, left: bool) -> np.ndarray:
        """`state` with its centre anywhere in one of the rooms."""
        here = self._geometry(state[None])
        low, high = here.low.item(), here.high.item()
        x_range = (low, here.near.item()) if left else (here.far.item(), high)
        return np.array([rng.uniform(*x_range), rng.uniform(low, high), *state[2:]])

    def _is_world(self, states: np.ndarray) -> np.ndarray:
        """Whether what varies fits together (B,)."""
        here = self._geometry(states)
        return here.has_door & here.has_rooms & self.factors.fits(states)

    def _backgrounds(self, states: np.ndarray) -> np.ndarray:
        """Walls and floor (B or 1, size, size, 3), kept from the last call where the worlds are the same."""
        worlds = states[:, 2:] if self.factors.size else states[:1, 2:]
        if self._drawn is None or not np.array_equal(self._drawn[0], worlds):
            self._drawn = worlds.copy(), self._draw_backgrounds(states[: len(worlds)])
        return self._drawn[1]

    def _draw_backgrounds(self, states: np.ndarray) -> np.ndarray:
        """Every pixel takes the colour of its centre."""
        size, values = self.image_shape[0], self.factors.of(states)
        centre = (np.arange(size) + 0.5) * WORLD / size
        middle, wall, door, door_size = (values[name] for name in ("wall_x", "wall", "door", "door_size"))
        edge = (centre < self.border) | (centre > WORLD - self.border)
        columns, rows = np.abs(centre - middle) < wall / 2, np.abs(centre - door) > door_size / 2
        walls = (columns[:, None, :] & rows[:, :, None]) | edge | edge[:, None]
        colours = (values[name].astype(np.uint8)[:, None, None] for name in ("wall_color", "floor_color"))
        return np.where(walls[..., None], *colours)
