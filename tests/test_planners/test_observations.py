"""Several observations by name: plans as for one array of the same content; what does not fit is refused."""

import numpy as np
import pytest
import torch

from planners import CEM, MPC, InputError
from planners.observations import blind

SMALL = {"horizon": 4, "samples": 16, "iterations": 2, "elites": 4}


def split(positions):
    """Positions (..., 2) -> the same by name, with a camera that nobody looks at."""
    camera = np.zeros((*positions.shape[:-1], 4, 4, 3), np.uint8)
    return {"camera": camera, "x": positions[..., :1], "y": positions[..., 1:]}


def joined(observations):
    return torch.cat([observations["x"], observations["y"]], dim=-1)


@pytest.fixture
def by_name(point_dynamics):
    """`PointDynamics` whose observations come by name."""
    plain = point_dynamics(history=3, action_block=2)

    class ByName(type(plain)):
        def encode(self, observations):
            return super().encode(joined(observations))

        def context(self, observations, actions):
            return super().context(joined(observations), actions)

    return plain, ByName(history=3, action_block=2)


@pytest.mark.parametrize("rows", [None, 3])
def test_plans_as_for_one_array(by_name, rows):
    plain, named = by_name
    shape = (2,) if rows is None else (rows, 2)
    positions = np.random.default_rng(0).normal(size=(9, *shape)).astype(np.float32)
    one, several = (MPC(model, rows=rows, planner=CEM(**SMALL), replan_every=1) for model in (plain, named))
    one.reset(positions[-1])
    several.reset(split(positions[-1]))
    for t in range(8):
        if t == 5 and rows:
            one.reset(rows=[1])
            several.reset(rows=[1])
        action = several.act(split(positions[t]) | {"more": "whatever"})
        assert type(action) is np.ndarray
        np.testing.assert_array_equal(action, one.act(positions[t]))
    for (seen, done), (frames, actions) in zip(plain.contexts, named.contexts, strict=True):
        assert torch.equal(seen, frames)
        assert torch.equal(done, actions)


def test_a_row_is_blind_where_any_part_is_not_finite(by_name):
    _, named = by_name
    where = np.zeros((3, 2), np.float32)
    agent = MPC(
        named, split(where), rows=3, planner=CEM(**SMALL), fallback=lambda seen: -joined(seen).nan_to_num(9)
    )
    broken = where.copy()
    broken[1, 1] = np.nan
    action = agent.act(split(broken))
    assert blind({name: torch.from_numpy(x) for name, x in split(broken).items()}).tolist() == [False, True, False]
    np.testing.assert_array_equal(action[1], [0, -1])  # the fallback's, within bounds


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros(2, np.float32), r"expected \['camera', 'x', 'y'\] like the goal, got one array"),
        ({"x": np.zeros(1, np.float32)}, r"expected \['camera', 'x', 'y'\] like the goal, got \['x'\]"),
        (split(np.zeros(2)) | {"x": np.zeros(3)}, "expected torch.float32 of shape"),
        (split(np.zeros(2)) | {"camera": np.zeros((4, 4, 3))}, "expected torch.uint8 of shape"),
    ],
)
def test_other_observations_are_refused(by_name, wrong, message):
    agent = MPC(by_name[1], split(np.zeros(2, np.float32)), planner=CEM(**SMALL))
    with pytest.raises(InputError, match=message):
        agent.act(wrong)


def test_a_goal_of_nothing_is_refused(by_name):
    with pytest.raises(InputError, match="goal: an empty mapping"):
        MPC(by_name[1], {}, planner=CEM(**SMALL))
