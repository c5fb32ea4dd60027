"""Where the disc of Two-Room can be and what is in its way, in world units.

The world is 64 units wide whatever the image size. The disc cannot overlap a wall, so its *centre* lives in two
rectangles (the rooms) joined by a corridor, all drawn inwards by the radius:

        low        near  far       high          near = wall's left face  - radius
      low +-----------+  +-----------+           far  = wall's right face + radius
          |  left     |  |     right |           lower, upper = door -/+ gap: the corridor for the centre
          |           +--+           |
          |             corridor     |
          |           +--+           |
     high +-----------+  +-----------+
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

WORLD = 64.0


@dataclass(frozen=True)
class Geometry:
    """Bounds of the centre, each an array (B,); B is 1 if all rows are alike. Points are (B, 2 or more)."""

    low: np.ndarray
    high: np.ndarray
    middle: np.ndarray
    near: np.ndarray
    far: np.ndarray
    door: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    radius: np.ndarray

    @classmethod
    def of(cls, values: dict[str, np.ndarray], border: float) -> Geometry:
        """Of doors, walls and discs with these values (B, 1), by name."""
        door, middle, radius = (values[name][:, 0] for name in ("door", "wall_x", "radius"))
        half, gap = values["wall"][:, 0] / 2, values["door_size"][:, 0] / 2 - radius
        return cls(
            low=border + radius,
            high=WORLD - border - radius,
            middle=middle,
            near=middle - half - radius,
            far=middle + half + radius,
            door=door,
            lower=door - gap,
            upper=door + gap,
            radius=radius,
        )

    @property
    def has_door(self) -> np.ndarray:
        """Whether the door is in the wall and the disc fits through."""
        return (self.low < self.lower) & (self.lower < self.upper) & (self.upper < self.high)

    @property
    def has_rooms(self) -> np.ndarray:
        """Whether there is a wall, and room on either side of it."""
        return (self.low < self.near) & (self.far < self.high) & (self.far - self.near > 2 * self.radius)

    def at_door(self, y: np.ndarray) -> np.ndarray:
        """Whether a centre at height `y` fits through the door."""
        return (y >= self.lower) & (y <= self.upper)

    def has(self, points: np.ndarray) -> np.ndarray:
        """Whether a centre can be at these points."""
        x, y = points[:, 0], points[:, 1]
        room = (x <= self.near) | (x >= self.far) | self.at_door(y)
        return room & (np.minimum(x, y) >= self.low) & (np.maximum(x, y) <= self.high)

    def sweep(self, points: np.ndarray, moves: np.ndarray) -> np.ndarray:
        """Where moves (B, 2) lead, first along x, then along y; what else a point has is kept."""
        after, x, y = np.array(points, np.float64), points[:, 0], points[:, 1]
        blocked = ~self.at_door(y)
        x_low = np.where(blocked & (x >= self.far), self.far, self.low)
        x_high = np.where(blocked & (x <= self.near), self.near, self.high)
        after[:, 0] = x = np.clip(x + moves[:, 0], x_low, x_high)
        inside = (x > self.near) & (x < self.far)
        y_low = np.where(inside, self.lower, self.low)
        y_high = np.where(inside, self.upper, self.high)
        after[:, 1] = np.clip(y + moves[:, 1], y_low, y_high)
        return after

    def cuts(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Whether the dividing wall cuts the segment from start to end."""
        x0, y0, x1, y1 = starts[:, 0], starts[:, 1], ends[:, 0], ends[:, 1]
        run = np.where(x1 == x0, 1.0, x1 - x0)
        enter, leave = (np.clip(x, self.near, self.far) for x in (x0, x1))
        shares = [(x - x0) / run for x in (enter, leave)]
        heights = [(1 - share) * y0 + share * y1 for share in shares]  # exact at both ends: a corner is in the door
        return (enter != leave) & ~(self.at_door(heights[0]) & self.at_door(heights[1]))

    def way(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Length (B,) of the shortest way of a centre from start to end; both count as where they nearly are.

        It is straight, or bends around one corner of the corridor or two: the least of all such ways that no wall
        cuts. From a room to the corners of its own mouth, and from mouth to mouth, all straight lines are free.
        """
        starts, ends = self._settled(starts), self._settled(ends)
        swap = (starts[:, 0] > ends[:, 0])[:, None]
        left, right = np.where(swap, ends, starts), np.where(swap, starts, ends)
        near, far = (
            [np.stack(np.broadcast_arrays(x, y), axis=1) for y in (self.lower, self.upper)]
            for x in (self.near, self.far)
        )
        around = [_length(left, a) + _length(a, b) + _length(b, right) for a, b in product(near, far)]
        for corner in (np.broadcast_to(corner, left.shape) for corner in near + far):
            cut = self.cuts(left, corner) | self.cuts(corner, right)
            around.append(np.where(cut, np.inf, _length(left, corner) + _length(corner, right)))
        return np.where(self.cuts(left, right), np.minimum.reduce(around), _length(left, right))

    def _settled(self, points: np.ndarray) -> np.ndarray:
        """Centres (B, 2); what rounding put into the dividing wall is moved to its nearest face."""
        x, y = points[:, 0], points[:, 1]
        face, sill = np.where(x < self.middle, self.near, self.far), np.clip(y, self.lower, self.upper)
        within = (x > self.near) & (x < self.far)
        beside = np.abs(face - x) < np.abs(sill - y)
        return np.stack([np.where(within & beside, face, x), np.where(within & ~beside, sill, y)], axis=1)


def _length(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.hypot(a[:, 0] - b[:, 0], a[:, 1] - b[:, 1])
