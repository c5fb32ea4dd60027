"""Two-Room: a disc moves between two rooms joined by a door, seen from above. Batched numpy, no simulator.

The world is 64 units wide whatever the image size. The disc cannot overlap a wall, so its *centre* lives in two
rectangles (the rooms) joined by a corridor, all drawn inwards by the radius:

        low        near  far       high          near = wall's left face  - radius
      low +-----------+  +-----------+           far  = wall's right face + radius
          |  left     |  |     right |           door -/+ gap: the corridor for the centre
          |           +--+           |
          |             corridor     |
          |           +--+           |
     high +-----------+  +-----------+

Motion is swept along x, then along y, so nothing passes through a wall at any speed and the disc slides along
walls. The task is the one of PLDM and LeWM (arXiv 2502.14819, 2603.19312) with honest collisions: the published
environment checks only the end point of a move.
"""

from __future__ import annotations

import math

import numpy as np

from envs.task import GoalTask
from lewm.registry import register
from lewm.types import InputError

WORLD = 64.0
FLOOR, WALL, AGENT = (np.array(c, np.float32) for c in ((236, 233, 226), (54, 62, 82), (214, 69, 52)))


@register("env", "two_room")
class TwoRoom(GoalTask):
    """`rows` Two-Room worlds. State: the centre (x, y) in world units; action: displacement (dx, dy) per step.

    Args:
        rows: number of independent worlds B.
        image_size: side of the square image in pixels.
        door: height of the door's centre; door_size: its full width.
        wall: thickness of the dividing wall; border: of the outer one; radius: of the disc.
        speed: largest displacement per step and axis.
        tolerance: success is a distance of at most this to the goal (7 % of the width).
    """

    state_dim = 2

    def __init__(
        self,
        rows: int,
        *,
        image_size: int = 64,
        door: float = 22.0,
        door_size: float = 12.0,
        wall: float = 3.0,
        border: float = 2.0,
        radius: float = 2.5,
        speed: float = 2.0,
        tolerance: float = 4.48,
    ) -> None:
        self.rows, self.radius, self.tolerance = rows, radius, tolerance
        self.low = np.full(2, -speed, np.float32)
        self.high = np.full(2, speed, np.float32)
        self.image_shape = (image_size, image_size, 3)
        self._bounds = (border + radius, WORLD - border - radius)
        self._near, self._far = WORLD / 2 - wall / 2 - radius, WORLD / 2 + wall / 2 + radius
        gap = door_size / 2 - radius
        self._door, self._lower, self._upper = door, door - gap, door + gap  # the corridor, for the centre
        numbers = (door, door_size, wall, border, radius, speed, tolerance)
        if not (np.isfinite(numbers).all() and min(wall, radius, speed, tolerance) > 0 and border >= 0):
            raise InputError(
                "two_room needs finite numbers, wall, radius, speed, tolerance above 0, border at least 0; got "
                f"wall={wall}, radius={radius}, speed={speed}, border={border}, tolerance={tolerance}"
            )
        if rows < 1 or image_size < 16:
            raise InputError(f"two_room needs rows >= 1 and image_size >= 16, got {rows} and {image_size}")
        if gap <= 0 or not self._bounds[0] < self._lower < self._upper < self._bounds[1]:
            raise InputError(f"the door (centre {door}, size {door_size}) must fit the wall and the disc")
        if self._near <= self._bounds[0]:
            raise InputError(f"a wall of {wall} and a disc of radius {radius} leave no room")
        self._background = self._draw_background(image_size, wall, border, door, door_size)

    def sample_state(self, rng: np.random.Generator) -> np.ndarray:
        """Uniform over the two rooms."""
        low, high = self._bounds
        x_range = (low, self._near) if rng.random() < 0.5 else (self._far, high)
        return np.array([rng.uniform(*x_range), rng.uniform(low, high)])

    def possible(self, states: np.ndarray) -> np.ndarray:
        """A centre inside a wall is not."""
        return self._is_free(states)

    def advance(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Swept motion along x, then along y."""
        (x, y), (dx, dy) = states.T, actions.T
        low, high = self._bounds
        blocked = ~self._at_door(y)
        x_low = np.where(blocked & (x >= self._far), self._far, low)
        x_high = np.where(blocked & (x <= self._near), self._near, high)
        x = np.clip(x + dx, x_low, x_high)
        inside = (x > self._near) & (x < self._far)
        y_low = np.where(inside, self._lower, low)
        y_high = np.where(inside, self._upper, high)
        return np.stack([x, np.clip(y + dy, y_low, y_high)], axis=1)

    def distance(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """Between centres, in units of `tolerance`."""
        return np.linalg.norm(states - goals, axis=1) / self.tolerance

    def detour(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """Whether the dividing wall cuts the segment from state to goal."""
        (x0, y0), (x1, y1) = np.asarray(states, float).T, np.asarray(goals, float).T
        run = np.where(x1 == x0, 1.0, x1 - x0)
        enter, leave = (np.clip(x, self._near, self._far) for x in (x0, x1))
        heights = [y0 + (x - x0) / run * (y1 - y0) for x in (enter, leave)]
        through = self._at_door(heights[0]) & self._at_door(heights[1])
        return (enter != leave) & ~through

    def waypoint(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """The goal where the way is free, else the door's mouth in the goal's room, else its other mouth."""
        left = goals[:, :1] < WORLD / 2
        door = np.full((len(goals), 1), self._door)
        there = np.concatenate([np.where(left, self._near, self._far), door], axis=1)
        here = np.concatenate([np.where(left, self._far, self._near), door], axis=1)
        via = np.where(self.detour(states, there)[:, None], here, there)
        return np.where(self.detour(states, goals)[:, None], via, goals)

    def steer(self, states: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Straight at full speed, without overshooting."""
        move = targets - states
        return move / np.maximum(1.0, np.abs(move).max(1, keepdims=True) / self.high)

    def draw(self, states: np.ndarray) -> np.ndarray:
        """Background plus one antialiased disc per row, blended into a small patch around its centre."""
        size, scale = self.image_shape[0], self.image_shape[0] / WORLD
        radius, centre = self.radius * scale, np.asarray(states, np.float32) * scale
        side = min(size, math.ceil(2 * radius) + 2)
        corner = np.clip(np.floor(centre - side / 2 + 0.5), 0, size - side).astype(np.intp)
        rows_cols = corner[:, :, None] + np.arange(side)  # (B, xy, side)
        offsets = (rows_cols + 0.5 - centre[:, :, None]) ** 2
        distance = np.sqrt(offsets[:, 1, :, None] + offsets[:, 0, None, :])
        alpha = np.clip(radius + 0.5 - distance, 0, 1)[..., None]
        pixel = (rows_cols[:, 1, :, None] * size + rows_cols[:, 0, None, :]).reshape(len(centre), -1)
        patch = self._background.reshape(-1, 3)[pixel].reshape(*alpha.shape[:3], 3).astype(np.float32)
        patch += alpha * (AGENT - patch)
        images = np.empty((len(centre), size * size, 3), np.uint8)
        images[:] = self._background.reshape(-1, 3)
        images[np.arange(len(centre))[:, None], pixel] = (patch + 0.5).astype(np.uint8).reshape(*pixel.shape, 3)
        return images.reshape(len(centre), size, size, 3)

    def _at_door(self, y: np.ndarray) -> np.ndarray:
        return (y >= self._lower) & (y <= self._upper)

    def _is_free(self, points: np.ndarray) -> np.ndarray:
        low, high = self._bounds
        x, y = points.T
        room = (x <= self._near) | (x >= self._far) | self._at_door(y)
        return room & ((points >= low) & (points <= high)).all(1)

    @staticmethod
    def _draw_background(size: int, wall: float, border: float, door: float, door_size: float) -> np.ndarray:
        """(size, size, 3) uint8; every pixel takes the colour of its centre."""
        centre = (np.arange(size) + 0.5) * WORLD / size
        x, y = np.meshgrid(centre, centre)
        outer = (np.minimum(x, y) < border) | (np.maximum(x, y) > WORLD - border)
        divider = (np.abs(x - WORLD / 2) < wall / 2) & (np.abs(y - door) > door_size / 2)
        return np.where((outer | divider)[..., None], WALL, FLOOR).astype(np.uint8)
