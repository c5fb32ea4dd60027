"""Wall: Two-Room with a thick wall and a narrow door, both elsewhere in every episode; goals are in the other room.

The Wall of DINO-WM (arXiv 2411.04983) where wall and door are drawn anew; `vary=[]` is their fixed one. Their world
is 65 units wide and they stop the *centre* of a dot at walls it is drawn into. Ours stops a disc, and the door is
wider by its diameter: the corridor of 8 units for the centre, the wall's places from 20 to 44 and the tolerance are
theirs. Unlike theirs and like Two-Room, collisions are swept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from envs.two_room import TwoRoom
from lewm.registry import register


@register("env", "wall")
class Wall(TwoRoom):
    """`rows` Walls; state, action and settings are those of `TwoRoom`, with other defaults."""

    def __init__(
        self,
        rows: int,
        *,
        door: float = 30.0,
        door_size: float = 12.0,
        wall: float = 6.0,
        border: float = 5.0,
        radius: float = 2.0,
        speed: float = 1.8,
        tolerance: float = 4.5,
        agent_color: Sequence[int] = (240, 240, 240),
        wall_color: Sequence[int] = (150, 60, 50),
        floor_color: Sequence[int] = (20, 20, 24),
        vary: Sequence[str] = ("wall_x", "door"),
        **options: Any,
    ) -> None:
        super().__init__(
            rows,
            door=door,
            door_size=door_size,
            wall=wall,
            border=border,
            radius=radius,
            speed=speed,
            tolerance=tolerance,
            agent_color=agent_color,
            wall_color=wall_color,
            floor_color=floor_color,
            vary=vary,
            **options,
        )

    def sample_goal(self, rng: np.random.Generator, start: np.ndarray) -> np.ndarray:
        """In the room that `start` is not in, so that every way leads through the door."""
        middle = self._geometry(start[None]).middle.item()
        return self._place(rng, start, left=bool(start[0] >= middle))
