"""Recording: which row belongs to which step, and that an episode depends on (seed, id) alone."""

import numpy as np
import pytest

from envs import TwoRoom, rollout
from lewm.registry import build

RECORDERS = (
    "uniform_hold",
    "ou",
    "momentum",
    "straight",
    "goal_directed",
    "mixed",
)  # greedy needs a goal, rollout has none


def record(ids, policy="mixed", *, seed=0, steps=23, stride=1, size=16):
    task = TwoRoom(len(ids), image_size=size)
    return rollout(task, build("policy", {"name": policy}), ids, seed=seed, steps=steps, frame_stride=stride)


def same(a, b):
    return a.id == b.id and all(np.array_equal(a.columns[k], b.columns[k]) for k in ("pixels", "state", "action"))


@pytest.mark.parametrize("policy", RECORDERS)
def test_each_state_is_reached_from_the_one_before_by_its_action(policy):
    for episode in record([4, 7, 9], policy, steps=60):
        states, actions = episode.columns["state"], episode.columns["action"]
        task = TwoRoom(60)  # an independent task: all transitions at once
        task.reset(states[:-1], states[:-1])
        task.step(actions)
        assert np.array_equal(task.get_state(), states[1:])
        assert np.abs(np.diff(states, axis=0)).max() > 0


@pytest.mark.parametrize("stride", [1, 2, 5, 23, 40])
def test_frames_show_every_stride_th_state(stride):
    for episode in record([1, 2], stride=stride, size=32):
        shown = episode.columns["state"][::stride]
        assert np.array_equal(episode.columns["pixels"], TwoRoom(1, image_size=32).draw(shown))


def test_stride_leaves_states_and_actions_alone():
    for every, few in zip(record(range(4)), record(range(4), stride=5), strict=True):
        assert np.array_equal(every.columns["state"], few.columns["state"])
        assert np.array_equal(every.columns["action"], few.columns["action"])
        assert np.array_equal(every.columns["pixels"][::5], few.columns["pixels"])


def test_without_pictures_nothing_is_drawn_and_all_else_is_the_same(monkeypatch):
    seen = record(range(3))
    monkeypatch.setattr(TwoRoom, "draw", None)
    for one, blind in zip(seen, record(range(3), stride=None), strict=True):
        assert one.columns.keys() - blind.columns.keys() == {"pixels"} and one.facts == blind.facts
        assert all(np.array_equal(one.columns[name], rows) for name, rows in blind.columns.items())


def test_columns_are_raw_and_typed():
    (episode,) = record([3], steps=7, stride=2)
    columns = {k: (v.dtype, v.shape) for k, v in episode.columns.items()}
    assert columns == {
        "pixels": (np.uint8, (4, 16, 16, 3)),
        "state": (np.float64, (8, 2)),
        "action": (np.float32, (7, 2)),
    }
    assert (episode.id, episode.steps) == (3, 7)
    assert episode.facts["seed"] == [0, 3]


@pytest.mark.parametrize("policy", RECORDERS)
def test_facts_say_who_acted(policy):
    allowed = {"mixed": {"ou", "goal_directed", "straight"}}.get(policy, {policy})
    episodes = record(range(12), policy, steps=2)
    assert {episode.facts["policy"] for episode in episodes} == allowed
    assert all(set(episode.facts) == {"seed", "policy"} for episode in episodes)
    for episode in episodes:  # the same however it is batched
        assert record([episode.id], policy, steps=2)[0].facts == episode.facts


def test_sensors_and_what_varies_are_recorded():
    task = TwoRoom(3, image_size=16, vary=["floor_color", "door"])
    episodes = rollout(task, build("policy", {"name": "ou"}), [5, 6, 7], seed=0, steps=9)
    for episode in episodes:
        states = episode.columns["state"]
        assert np.array_equal(episode.columns["pose"], states[:, :2])
        assert (states[:, 2:] == states[0, 2:]).all()
        colour, door = states[0, 2:5].tolist(), states[0, 5:].tolist()
        assert episode.facts["variation"] == {"floor_color": colour, "door": door}
        assert episode.facts["policy"] == "ou"
    assert len({episode.facts["variation"]["door"][0] for episode in episodes}) == 3


@pytest.mark.parametrize("policy", RECORDERS)
def test_an_episode_of_a_varied_world_depends_on_seed_and_id_not_on_its_batch(policy):
    def varied(ids):
        task = TwoRoom(len(ids), image_size=16, vary=["wall_x", "door", "speed", "agent_color"])
        return rollout(task, build("policy", {"name": policy}), ids, seed=0, steps=23)

    together = varied(range(6))
    assert all(same(varied([i])[0], together[i]) for i in range(6))
    assert all(same(a, b) for a, b in zip(varied(range(5, -1, -1)), together[::-1], strict=True))


@pytest.mark.parametrize("policy", RECORDERS)
def test_an_episode_depends_on_seed_and_id_not_on_its_batch(policy):
    together = record(range(8), policy)
    assert all(same(record([i], policy)[0], together[i]) for i in range(8))
    assert all(same(a, b) for a, b in zip(record(range(7, -1, -1), policy), together[::-1], strict=True))
    assert all(
        same(a, b) for a, b in zip(record([2, 100, 5], policy)[::2], (together[2], together[5]), strict=True)
    )


@pytest.mark.parametrize("policy", RECORDERS)
def test_episodes_of_other_ids_or_seeds_differ(policy):
    episodes = [*record(range(6), policy), *record(range(6), policy, seed=1)]
    starts = {tuple(e.columns["state"][0]) for e in episodes}
    actions = {e.columns["action"].tobytes() for e in episodes}
    assert len(starts) == 12
    assert len(actions) >= 11  # two episodes may both stand still throughout
