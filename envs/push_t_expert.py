"""A scripted Push-T expert: choose where to push, walk around the block to get there, push, look again.

The block has no momentum, so a push with impulse j at a point p of its outline, along the inward normal n,
moves it by j n and turns it by j (r x n) / I, with r from the centre of gravity to p. Of all points of the outline
the expert takes the one whose push brings the block closest to its goal, less what the walk there costs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.policies import Actor, OrnsteinUhlenbeck, Rngs
from envs.push_t import AGENT_RADIUS, ARENA, CENTRE, MOMENT, REACH_PER_ACTION, PushT, centre_of, clearance, turn
from lewm.registry import register
from lewm.types import InputError

SPACING = 10.0  # between candidate points of contact
LEVER = 60.0  # arena units that a radian counts as
OUTSIDE = 22.0  # how far from the outline the way around the block runs


def _outline() -> tuple[np.ndarray, np.ndarray]:
    """Points (P, 2) relative to the centre of gravity and inward normals, in the T's own frame."""
    corners = np.array([(-60, 0), (60, 0), (60, 30), (15, 30), (15, 120), (-15, 120), (-15, 30), (-60, 30)], float)
    points, normals = [], []
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        length = np.linalg.norm(b - a)
        along = (b - a) / length
        shares = (np.arange(round(length / SPACING)) + 0.5) / round(length / SPACING)
        points.append(a + shares[:, None] * (b - a) - CENTRE)
        normals.append(np.tile([-along[1], along[0]], (len(shares), 1)))
    points, normals = np.concatenate(points), np.concatenate(normals)
    around = points - OUTSIDE * normals + CENTRE
    clear = clearance(np.zeros((len(around), 7)), around) > OUTSIDE - 2  # not so in the two inner corners
    return points[clear], normals[clear]


POINTS, NORMALS = _outline()
SPIN = (POINTS[:, 0] * NORMALS[:, 1] - POINTS[:, 1] * NORMALS[:, 0]) / MOMENT  # radians per unit of impulse


@register("policy", "push_t_expert")
class PushTExpert:
    """Pushes the block to one drawn pose after another; there early, the agent leaves it for a drawn place.

    Args:
        noise, correlation: of the autocorrelated noise on top, as in `ou`, in half action ranges.
        speed: of the agent, in action units, drawn per episode from half of this to all of it.
        turns, shifts: goals lie up to this many radians and arena units from where the block is.
        patience: steps after which a goal is given up; none is left before ten, or `patience` if that is less.
    """

    def __init__(
        self,
        *,
        noise: float = 0.1,
        correlation: float = 0.7,
        speed: float = 0.4,
        turns: float = 1.0,
        shifts: float = 150.0,
        patience: int = 80,
    ) -> None:
        if not (speed > 0 and patience >= 1 and turns >= 0 and shifts >= 0):
            raise InputError(
                "push_t_expert needs speed > 0, patience >= 1, turns and shifts >= 0; "
                f"got {speed}, {patience}, {turns}, {shifts}"
            )
        self.wander = OrnsteinUhlenbeck(correlation=correlation, scale=noise)
        self.speed, self.turns, self.shifts, self.patience = speed, turns, shifts, patience

    def begin(self, task: PushT, rngs: Rngs, steps: int) -> Actor:
        """See `Policy`."""
        if not isinstance(task, PushT):
            raise InputError(f"push_t_expert plays push_t only, not {type(task).__name__}")
        noise = self.wander.begin(task, rngs, steps)
        count = steps // min(10, self.patience) + 2  # no goal is left sooner
        drawn = np.stack([rng.random((count, 5)) for rng in rngs])
        speed = self.speed * np.array([rng.uniform(0.5, 1) for rng in rngs])
        rows = np.arange(len(rngs))
        goals: np.ndarray | None = None
        index, since, contact = (np.zeros(len(rngs), int) for _ in range(3))
        facts: list[dict[str, Any]] = [{"goals_reached": 0} for _ in rngs]

        def act(t: int, states: np.ndarray) -> np.ndarray:
            nonlocal goals
            if goals is None:
                goals = self._goals(states, drawn[:, 0])
            shift, turned = _missing(states, goals)
            close = (np.linalg.norm(shift, axis=1) < 8) & (np.abs(turned) < 0.12)
            leave = (close & (since >= 10)) | (since >= self.patience)
            for row in np.flatnonzero(leave & close):
                facts[row]["goals_reached"] += 1
            index[leave] += 1
            since[:] = np.where(leave, 0, since + 1)
            contact[leave] = -1
            goals[leave] = self._goals(states, drawn[rows, index])[leave]
            shift, turned = _missing(states, goals)
            target, pushes, contact[:] = _approach(states, shift, turned, contact)
            resting = close & ~leave  # too soon to leave the goal
            target = np.where(resting[:, None], 40 + (ARENA - 80) * drawn[rows, index, 3:], target)
            way = np.where(pushes[:, None] & ~resting[:, None], target, _around(states, target, contact))
            pull = way - states[:, :2]
            length = np.linalg.norm(pull, axis=1, keepdims=True)
            action = pull / np.maximum(length, 1e-9) * np.minimum(length / REACH_PER_ACTION * 2, speed[:, None])
            return np.clip(action + noise(t, states), task.low, task.high)

        return Actor(act, ["push_t_expert"] * len(rngs), facts)

    def _goals(self, states: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """Centres of gravity and angles (B, 3) not far from where the blocks are."""
        centre = centre_of(states) + (2 * drawn[:, :2] - 1) * self.shifts
        return np.column_stack([np.clip(centre, 95, ARENA - 95), states[:, 4] + (2 * drawn[:, 2] - 1) * self.turns])


def _missing(states: np.ndarray, goals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the block's centre (B, 2) and angle (B,) still have to move."""
    angle = np.remainder(goals[:, 2] - states[:, 4] + np.pi, 2 * np.pi) - np.pi
    return goals[:, :2] - centre_of(states), angle


def _approach(
    states: np.ndarray, shift: np.ndarray, turned: np.ndarray, contact: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each agent should go (B, 2), whether it pushes already (B,), and its point of contact (B,)."""
    angle, centre = states[:, 4, None], centre_of(states)[:, None]
    points, normals = turn(POINTS[None], angle) + centre, turn(NORMALS[None], angle)
    impulse = (shift[:, None] * normals).sum(-1) + LEVER**2 * turned[:, None] * SPIN
    gain = np.maximum(impulse, 0) / np.sqrt(1 + LEVER**2 * SPIN**2)  # how much closer the best push would bring it
    stand = points - normals * (AGENT_RADIUS + 3)  # where the agent begins to push
    walk = np.linalg.norm(stand - states[:, None, :2], axis=-1)
    outside = ((stand < AGENT_RADIUS) | (stand > ARENA - AGENT_RADIUS)).any(-1)
    held = np.arange(len(POINTS)) == contact[:, None]
    value = gain - 0.04 * walk + 8 * (held & (gain > 2)) - 1e3 * outside
    choice = value.argmax(1)
    rows = np.arange(len(states))
    spin = SPIN[choice]
    best = np.maximum(impulse[rows, choice], 0) / (1 + LEVER**2 * spin**2)
    needed = best * (1 + MOMENT * spin**2) + 3  # how far the point of contact has to move
    pushes = walk[rows, choice] < 12
    depth = np.where(pushes, needed, 0.0)[:, None]  # once there, aim through the block
    return stand[rows, choice] + depth * normals[rows, choice], pushes, choice


def _around(states: np.ndarray, target: np.ndarray, choice: np.ndarray) -> np.ndarray:
    """The next point on the way to `target`: along the outline, outside, where the block is in between."""
    agent, rows = states[:, :2], np.arange(len(states))
    shares = np.linspace(0.1, 1, 8)
    way = agent + shares[:, None, None] * (target - agent)  # (8, B, 2)
    room = np.stack([clearance(states, points) for points in way]).min(0)
    loop = turn((POINTS - OUTSIDE * NORMALS)[None], states[:, 4, None]) + centre_of(states)[:, None]
    here = np.linalg.norm(loop - agent[:, None], axis=-1).argmin(1)
    ahead = (choice - here + len(POINTS) // 2) % len(POINTS) - len(POINTS) // 2
    onward = loop[rows, (here + np.sign(ahead) * np.minimum(np.abs(ahead), 3)) % len(POINTS)]
    blocked = (room < AGENT_RADIUS) & (np.abs(ahead) > 1)
    return np.where(blocked[:, None], np.clip(onward, AGENT_RADIUS, ARENA - AGENT_RADIUS), target)
