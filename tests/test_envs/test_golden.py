"""Our tasks against recordings of the published ones; see the scripts in golden/, which made them."""

from pathlib import Path

import numpy as np
import pytest

from envs.push_t import PushT, centre_of, turn
from lewm.registry import build

GOLDEN = Path(__file__).parent / "golden"
CORNERS = np.array([(-60, 0), (60, 0), (60, 30), (-60, 30), (-15, 120), (15, 120)], float)  # of the T


@pytest.fixture(scope="module")
def push_t():
    """Recorded transitions with a target inside the arena, as ours always is; and ours from the same states."""
    with np.load(GOLDEN / "push_t.npz") as file:
        recorded = dict(file)
    target = recorded["state"][:, :2] + 100 * recorded["action"]
    inside = ((target >= 7) & (target <= 504)).all(1)
    rows = {name: recorded[name][inside] for name in ("state", "action", "next", "contacts")}
    return rows | {"ours": PushT(inside.sum()).advance(rows["state"], rows["action"])}


def to_wall(states):
    """How far the T's nearest corner is from a wall (B,); negative where it is pressed into it."""
    corners = states[:, None, 2:4] + turn(np.broadcast_to(CORNERS, (len(states), 6, 2)), states[:, 4:5])
    return np.minimum(corners - 7, 504 - corners).min((1, 2))


def off(rows, chosen):
    """Largest difference of the agent's numbers, and those of the block's centre of gravity and angle (n,)."""
    ours, theirs = rows["ours"][chosen], rows["next"][chosen]
    angle = np.remainder(ours[:, 4] - theirs[:, 4] + np.pi, 2 * np.pi) - np.pi
    agent = np.abs(ours - theirs)[:, [0, 1, 5, 6]].max()
    return agent, np.linalg.norm(centre_of(ours) - centre_of(theirs), axis=1), np.abs(angle)


def test_push_t_moves_and_pushes_as_published(push_t):
    """Free motion and pushing agree to the last digits: that no contact is remembered changes nothing there."""
    wall = np.minimum(to_wall(push_t["state"]), to_wall(push_t["next"])) < 5
    free, pushed = push_t["contacts"] == 0, (push_t["contacts"] > 0) & ~wall
    assert free.sum() > 150 and pushed.sum() > 150
    for chosen in (free, pushed):
        agent, block, angle = off(push_t, chosen)
        assert agent < 1e-9 and block.max() < 1e-9 and angle.max() < 1e-9
    moved = np.linalg.norm(centre_of(push_t["next"]) - centre_of(push_t["state"]), axis=1)
    assert np.median(moved[pushed]) > 15  # or there was nothing to agree about


def test_push_t_differs_little_between_agent_and_wall(push_t):
    """A block pressed against a wall remembers its contacts in theirs: up to 2 units of the tens it moves.

    Where their agent, which nothing stops, has pressed the block into the wall, a step depends on that memory.
    """
    gap = np.minimum(to_wall(push_t["state"]), to_wall(push_t["next"]))
    agent, block, angle = off(push_t, (push_t["contacts"] > 0) & (gap < 5) & (gap > -0.5))
    assert len(block) > 60 and agent < 1e-9
    assert np.median(block) < 0.1 and block.max() < 2 and np.degrees(angle).max() < 2


def test_push_t_looks_as_published():
    """Shapes and places, up to antialiased edges and shades."""
    with np.load(GOLDEN / "push_t.npz") as file:
        drawn, images = file["drawn"], file["images"].astype(int)
    ours = build("env", {"name": "push_t", "target": True, "image_size": 96}, rows=len(drawn)).draw(drawn)
    difference = np.abs(ours - images).max(-1)
    assert (difference < 40).mean() > 0.98
    shown = [(one.max(-1) - one.min(-1) > 20) for one in (ours.astype(int), images)]  # neither floor nor wall
    assert (shown[0] == shown[1]).mean() > 0.99


def test_reacher_moves_as_published():
    """Theirs holds an action for two control steps; equal to the last digits, at the wrist's limit, too."""
    with np.load(GOLDEN / "reacher.npz") as file:
        state, action, after = file["state"], file["action"], file["next"]
    task = build("env", {"name": "reacher"}, rows=len(state))
    np.testing.assert_allclose(task.advance(task.advance(state, action), action), after, rtol=0, atol=1e-9)
    wrist = np.abs(after[:, 1])
    assert (wrist > np.radians(159)).sum() > 10 and np.abs(after[:, 2:4]).max() > 3


def test_reacher_looks_as_published():
    """With the model's own quality, up to what another version of Mesa rasterises differently."""
    with np.load(GOLDEN / "reacher.npz") as file:
        drawn, images = file["drawn"], file["images"].astype(int)
    task = build("env", {"name": "reacher", "quality": "standard", "image_size": 64}, rows=len(drawn))
    ours = task.draw(np.stack([task.state(qpos) for qpos in drawn]))
    assert (np.abs(ours - images).max(-1) < 20).mean() > 0.97
