"""The Push-T expert: its model of a push against the simulator, and what it brings about."""

import numpy as np
import pytest

from envs import PushT, TwoRoom, rollout
from envs.push_t import AGENT_RADIUS, CENTRE, centre_of, clearance
from envs.push_t_expert import NORMALS, POINTS, SPIN, PushTExpert
from lewm.registry import build
from lewm.types import InputError


def episodes(policy, ids, steps, **settings):
    """Episodes of a policy, by its name or given, at a size that draws fast."""
    policy = build("policy", policy) if isinstance(policy, dict) else policy
    return rollout(PushT(len(ids), image_size=16, **settings), policy, ids, seed=7, steps=steps)


def travelled(episode):
    """How far the block went in all, as the sum over the steps."""
    return np.linalg.norm(np.diff(centre_of(episode.columns["state"]), axis=0), axis=1).sum()


# What it knows about the block


def test_points_of_contact_lie_on_the_outline_and_normals_point_inwards():
    home = np.zeros((len(POINTS), 7))
    assert clearance(home, POINTS + CENTRE) == pytest.approx(0, abs=1e-4)
    assert np.linalg.norm(NORMALS, axis=1) == pytest.approx(1)
    assert clearance(home, POINTS + CENTRE + 4 * NORMALS) == pytest.approx(-4, abs=1e-4)
    assert clearance(home, POINTS + CENTRE - 4 * NORMALS) == pytest.approx(4, abs=1e-4)
    assert clearance(home, POINTS + CENTRE - 20 * NORMALS).min() > 19  # there is room for the agent
    apart = np.linalg.norm(POINTS[:, None] - POINTS, axis=-1)
    assert apart[np.triu_indices(len(POINTS), 1)].min() > 7 and len(POINTS) > 30


def test_a_push_turns_the_block_as_the_expert_expects():
    """From where it would stand, along the normal: radians per unit that the centre of gravity moves."""
    chosen = np.arange(0, len(POINTS), 3)
    points, normals = POINTS[chosen], NORMALS[chosen]
    states = np.zeros((len(chosen), 7))
    states[:, 2:4] = 256 - CENTRE
    states[:, :2] = 256 + points - normals * (AGENT_RADIUS + 0.05)
    task, start = PushT(len(chosen)), states
    for _ in range(3):
        states = task.advance(states, 0.01 * normals)
    along = ((centre_of(states) - centre_of(start)) * normals).sum(1)
    turned = np.remainder(states[:, 4] + np.pi, 2 * np.pi) - np.pi
    assert along.min() > 0.3
    assert turned / along == pytest.approx(SPIN[chosen], rel=0.05, abs=2e-4)
    assert np.abs(SPIN).max() > 0.02  # some turn it well, and both ways
    assert SPIN.min() == pytest.approx(-SPIN.max())


# What it brings about


def test_it_takes_the_block_to_goals():
    done = episodes(PushTExpert(noise=0.0, speed=0.8), range(8), 150)
    assert sum(one.facts["goals_reached"] for one in done) >= 8
    assert sum(one.facts["goals_reached"] > 0 for one in done) >= 4
    floor = episodes({"name": "uniform_hold"}, range(8), 150)
    assert np.mean([travelled(one) for one in done]) > 3 * np.mean([travelled(one) for one in floor])


@pytest.mark.parametrize(("steps", "expected"), [(10, 0), (11, 1), (21, 1), (22, 2), (60, 5)])
def test_a_goal_where_the_block_already_is_counts_every_eleven_steps(steps, expected):
    """Goals are left after ten steps at the soonest; until then the agent goes to a place drawn with the goal."""
    task = PushT(6, image_size=16)
    task.reset(seeds=range(6))
    states = task.get_state()  # and there they stay, or the agent might push the block away from its goal
    rngs = [np.random.default_rng(seed) for seed in range(6)]
    actor = PushTExpert(noise=0.0, shifts=0.0, turns=0.0).begin(task, rngs, steps)
    actions = np.stack([actor(t, states) for t in range(steps)])
    assert [facts["goals_reached"] for facts in actor.facts] == [expected] * 6
    changes = (np.abs(np.diff(actions, axis=0)).max(-1) > 1e-9).any(1)  # of where they go
    assert np.flatnonzero(changes).tolist() == [t for t in range(steps - 1) if t % 11 in (9, 10)]


class Away(PushTExpert):
    """Its goals are always out of reach."""

    def _goals(self, states, drawn):
        assert len(drawn) == len(states)
        return np.column_stack([centre_of(states) + 300, states[:, 4] + 3])


@pytest.mark.parametrize("patience", [1, 3, 10, 80])
def test_goals_out_of_reach_are_given_up_and_not_counted(patience):
    (one,) = episodes(Away(patience=patience), [0], 60)
    assert one.facts["goals_reached"] == 0


def test_an_episode_is_the_same_whatever_its_batch():
    policy = {"name": "push_t_expert"}
    together = episodes(policy, [5, 2, 9, 0], 60)
    for one in together:
        (alone,) = episodes(policy, [one.id], 60)
        assert alone.facts == one.facts
        assert all(np.array_equal(alone.columns[name], one.columns[name]) for name in one.columns)
    first, second = (one.columns["action"] for one in together[:2])
    assert not np.array_equal(first, second)


def test_it_copes_with_varied_worlds():
    done = episodes({"name": "expert"}, range(4), 60, vary=["agent_size", "friction", "block_color"])
    assert {one.facts["policy"] for one in done} == {"push_t_expert"}
    assert np.mean([travelled(one) for one in done]) > 30


@pytest.mark.parametrize("speed", [0.1, 0.5])
def test_it_is_as_fast_as_told(speed):
    """Drawn for each episode, from half of `speed` to all of it; noise comes on top."""
    done = episodes(PushTExpert(noise=0.0, speed=speed), range(6), 60)
    fastest = [np.linalg.norm(one.columns["action"], axis=1).max() for one in done]
    assert 0.5 * speed <= min(fastest) < max(fastest) <= speed + 1e-6
    noisy = episodes(PushTExpert(noise=0.3, speed=speed), range(6), 60)
    actions = np.stack([one.columns["action"] for one in noisy])
    assert np.abs(actions).max() <= 1 and np.linalg.norm(actions, axis=-1).max() > speed + 0.2


def test_another_task_is_an_error():
    with pytest.raises(InputError, match="push_t only, not TwoRoom"):
        PushTExpert().begin(TwoRoom(1), [np.random.default_rng(0)], 10)


@pytest.mark.parametrize(
    "bad", [{"speed": 0.0}, {"patience": 0}, {"turns": -1.0}, {"shifts": -1.0}, {"noise": -0.1}]
)
def test_settings_that_mean_nothing_are_an_error(bad):
    with pytest.raises(InputError, match=next(iter(bad)).replace("noise", "scale")):
        PushTExpert(**bad)
