"""Held-out pairs: from recorded episodes, a known number of steps apart, never from what was trained on."""

import json

import numpy as np
import pytest

from envs import GoalTask, TwoRoom
from experiments import pairs as pairs_module
from experiments.evaluate import evaluate
from experiments.evaluate import verb as module
from experiments.evaluate.agents import Scripted
from experiments.evaluate.episodes import run_pairs
from experiments.evaluate.summary import summarise
from experiments.origins import unseen
from experiments.pairs import heldout_pairs
from experiments.records import read
from lewm.data import Column, DatasetInfo, EpisodeReader, EpisodeWriter, split_episodes
from lewm.types import Episode, InputError


class Book(GoalTask):
    """Its states say where they were recorded: (episode, step, whether nothing happens there)."""

    state_dim, image_shape, rows = 3, (1, 1, 3), 1
    low, high = np.array([-1], np.float32), np.array([1], np.float32)

    def sample_state(self, rng):
        return np.zeros(3)

    def advance(self, states, actions):
        return states

    def draw(self, states):
        return np.zeros((len(states), 1, 1, 3), np.uint8)

    def distance(self, states, goals):
        return np.where(states[:, 2] == 1, 0.5, 1 + np.abs(states - goals).sum(1))

    def detour(self, states, goals):
        return states[:, 1] % 2 == 1


@pytest.fixture
def write(tmp_path):
    """write(lengths, still=[...], **state column) makes a set of `Book` episodes with ids 10, 11, ..."""

    def make(lengths, still=(), **column):
        state = Column("float64", (3,), **column)
        columns = {"state": state, "action": Column("float32", (1,), transition=True)}
        with EpisodeWriter(tmp_path / "book", DatasetInfo(columns, (-1.0,), (1.0,), {})) as writer:
            for id, steps in enumerate(lengths, 10):
                step = np.arange(state.rows(steps)) * state.stride
                states = np.stack([np.full(len(step), id), step, np.full(len(step), id in still)], 1).astype(float)
                writer.commit([Episode(id, {"state": states, "action": np.zeros((steps, 1), np.float32)}, {})])
        return EpisodeReader(tmp_path / "book")

    return make


def test_pairs_lie_offset_steps_apart_in_the_episodes_asked_for(write):
    reader = write([20, 20, 20, 9, 10, 14])
    pairs = heldout_pairs(Book(), reader, np.array([1, 3, 4, 5]), 16, 10, seed=0)
    assert len(pairs) == len(pairs.starts) == len(pairs.goals) == 16
    assert (pairs.goals - pairs.starts == [0, 10, 0]).all()
    assert set(pairs.starts[:, 0]) <= {11, 14, 15}  # 13 is shorter than the offset
    assert np.array_equal(pairs.detour, pairs.starts[:, 1] % 2 == 1)
    assert pairs.presolved == 0


def test_every_place_is_drawn_and_none_twice(write):
    """Three episodes have 11, 1 and 5 places to start from; to ask for all of them is to get each once."""
    pairs = heldout_pairs(Book(), write([20, 20, 20, 9, 10, 14]), np.array([1, 3, 4, 5]), 17, 10, seed=0)
    places = {(start[0], start[1]) for start in pairs.starts}
    assert places == {(11, t) for t in range(11)} | {(14, 0)} | {(15, t) for t in range(5)}


def test_more_pairs_than_there_are_is_an_error(write):
    with pytest.raises(InputError, match="found only 17 unsolved pairs 10 steps apart"):
        heldout_pairs(Book(), write([20, 20, 20, 9, 10, 14]), np.array([1, 3, 4, 5]), 18, 10, seed=0)


def test_pairs_are_a_function_of_seed_and_offset(write):
    reader = write([30] * 4)
    first, again, other = (heldout_pairs(Book(), reader, np.arange(4), 20, 5, seed=seed) for seed in (3, 3, 4))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    further = heldout_pairs(Book(), reader, np.arange(4), 20, 6, seed=3)
    assert not np.array_equal(further.starts, first.starts)


def test_a_longer_list_of_pairs_begins_with_the_shorter(write):
    reader = write([30] * 4)
    short, long = (heldout_pairs(Book(), reader, np.arange(4), count, 5, seed=0) for count in (7, 20))
    assert np.array_equal(long.starts[:7], short.starts) and np.array_equal(long.goals[:7], short.goals)


def test_solved_pairs_are_left_out_and_counted(write):
    """Of two in three episodes, all of one length, nothing happens: so are two in three of the pairs drawn."""
    pairs = heldout_pairs(Book(), write([40] * 6, still=(10, 12, 13, 15)), np.arange(6), 50, 5, seed=0)
    assert set(pairs.starts[:, 0]) == {11, 14}
    assert len(pairs) == 50 and 60 < pairs.presolved < 160


def test_nothing_but_solved_pairs_is_an_error(write, monkeypatch):
    monkeypatch.setattr(pairs_module, "MAX_DRAWS", 50)
    with pytest.raises(InputError, match="found only 0 unsolved pairs"):
        heldout_pairs(Book(), write([20, 20], still=(10, 11)), np.arange(2), 3, 5, seed=0)


def test_episodes_that_are_all_too_short_are_an_error(write):
    with pytest.raises(InputError, match=r"no held-out episode of 10 steps; choose a smaller offset"):
        heldout_pairs(Book(), write([9, 20, 5]), np.array([0, 2]), 3, 10, seed=0)


def test_a_set_without_these_states_is_an_error(write, tmp_path):
    reader = write([20])
    with pytest.raises(InputError, match=r"does not hold the states of TwoRoom .*columns \['action', 'state'\]"):
        heldout_pairs(TwoRoom(1), reader, np.arange(1), 3, 5, seed=0)
    columns = {"action": Column("float32", (1,), transition=True)}
    with EpisodeWriter(tmp_path / "blind", DatasetInfo(columns, (-1.0,), (1.0,), {})) as writer:
        writer.commit([Episode(0, {"action": np.zeros((20, 1), np.float32)}, {})])
    with pytest.raises(InputError, match="does not hold the states of Book"):
        heldout_pairs(Book(), EpisodeReader(tmp_path / "blind"), np.arange(1), 3, 5, seed=0)


def test_states_kept_now_and_then_are_an_error(write):
    with pytest.raises(InputError, match="at every step"):
        heldout_pairs(Book(), write([20], stride=5), np.arange(1), 3, 5, seed=0)


# `lewm evaluate track=heldout`


@pytest.fixture(scope="module")
def recorded(tiny_run):
    """Of the tiny run's data: the reader, and positions of episodes trained on and held out."""
    reader = EpisodeReader(tiny_run / "data")
    return reader, *split_episodes(reader, 0.1)


@pytest.fixture
def heldout(compose, tiny_run, tmp_path):
    """heldout(*overrides) runs an evaluation of the tiny run into `tmp_path/out` and returns (summary, lines)."""

    def run(*overrides):
        out = tmp_path / "out"
        given = [f"run={tiny_run}", f"out={out}", "track=heldout", "offset=4", "latency_pairs=1", *overrides]
        summary = evaluate(compose("evaluate", *given, without="budget"))
        return summary, read(out / "episodes.jsonl")

    return run


def among(state, reader, episodes):
    """Where a state was recorded: (episode, step) pairs."""
    columns = [(int(k), reader.column("state", int(k))) for k in episodes]
    return [(k, int(t)) for k, states in columns for t in np.flatnonzero((states == state).all(1))]


def test_evaluation_takes_its_pairs_from_episodes_that_were_not_trained_on(heldout, tiny_run, recorded):
    reader, training, held = recorded
    assert len(held) and len(training)
    summary, lines = heldout(f"data={tiny_run}/data")
    assert len(lines) == 3 * 6
    for line in lines:
        assert not among(line.start, reader, training)
        ((episode, t),) = among(line.start, reader, held)
        assert (episode, t + 4) in among(line.goal, reader, held)
        assert len(line.states) == 1 + 8  # the budget is twice the offset
    protocol = summary["protocol"]
    assert (protocol["track"], protocol["offset"], protocol["budget"]) == ("heldout", 4, 8)
    assert protocol["pairs_from"] == reader.fingerprint
    again, _ = heldout(f"data={tiny_run}/data")
    assert again == summary


def test_a_budget_that_is_given_counts(heldout, tiny_run):
    _, lines = heldout(f"data={tiny_run}/data", "budget=5")
    assert {len(line.states) for line in lines} == {6}


def test_another_set_is_held_out_as_a_whole(heldout, compose, tmp_path, recorded):
    from experiments.collect import collect

    collect(compose("collect", "episodes=2", "seed=77", "steps=9", f"out={tmp_path}/other", without="steps"))
    other = EpisodeReader(tmp_path / "other")
    summary, lines = heldout(f"data={tmp_path}/other")
    assert summary["protocol"]["pairs_from"] == other.fingerprint != recorded[0].fingerprint
    assert {among(line.start, other, [0, 1])[0][0] for line in lines} == {0, 1}


def test_more_or_fewer_of_the_same_episodes_are_held_out_alike(heldout, tiny_run, tmp_path, recorded):
    """The same work, collected anew or continued, is another set by its fingerprint and holds the same episodes."""
    reader, training, _ = recorded
    with EpisodeWriter(tmp_path / "more", reader.info) as writer:
        episodes = [reader.episode(k) for k in range(len(reader))]
        extra = Episode(1000, episodes[0].columns, episodes[0].facts)
        writer.commit([*episodes, extra])
    assert EpisodeReader(tmp_path / "more").fingerprint != reader.fingerprint
    _, lines = heldout(f"data={tmp_path}/more")
    assert not any(among(line.start, reader, training[training != 0]) for line in lines)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "no manifest is shipped for two_room with offset=4 .* `lewm manifest .*offset=4 .* or .* data=FOLDER"),
        (["track=hidden", "data={data}"], "tracks are free, heldout, paper, got 'hidden'"),
        (["data={data}", "offset=31"], "no held-out episode of 31 steps"),
        (["data={data}", "offset=0"], "offset"),
        (["data={data}", "env=wall"], "states of wall .* env.name is two_room, here it is wall"),
    ],
)
def test_mistakes_are_named(heldout, tiny_run, overrides, message):
    with pytest.raises(InputError, match=message):
        heldout(*(one.format(data=tiny_run / "data") for one in overrides))


def test_states_of_another_world_are_an_error(heldout, compose, tmp_path):
    """One varied number in either: of one length, and not the same thing."""
    from experiments.collect import collect

    given = ["episodes=2", "steps=9", f"out={tmp_path}/other", "env.vary=[speed]"]
    collect(compose("collect", *given, without="steps"))
    heldout(f"data={tmp_path}/other", "env=two_room", "env.vary=[speed]")
    with pytest.raises(InputError, match=r"states of two_room .* env.vary is \['speed'\], here it is \['rad"):
        heldout(f"data={tmp_path}/other", "env=two_room", "env.vary=[radius]")
    with pytest.raises(InputError, match=r"env\.door_size is "):
        heldout(f"data={tmp_path}/other", "env=two_room", "env.vary=[speed]", "env.door_size=20")


def test_pairs_with_impossible_states_are_left_out(write):
    class Narrow(Book):
        def possible(self, states):
            return states[:, 1] <= 12

    pairs = heldout_pairs(Narrow(), write([20]), np.arange(1), 3, 10, seed=0)
    assert sorted(pairs.starts[:, 1]) == [0, 1, 2] and (pairs.goals[:, 1] <= 12).all()
    assert pairs.presolved == 0 and pairs.impossible <= 8


# What a model has not seen

WORK = {"env": {"name": "two_room", "image_size": 64}, "policy": {"name": "ou"}, "seed": 0, "steps": 100}


@pytest.fixture
def stored(tmp_path):
    """stored(source, ids) makes a set of empty episodes that says so of itself."""

    def make(source, ids=range(40)):
        columns = {"action": Column("float32", (1,), transition=True)}
        folder = tmp_path / f"set-{len(list(tmp_path.iterdir()))}"
        with EpisodeWriter(folder, DatasetInfo(columns, (-1.0,), (1.0,), source)) as writer:
            writer.commit([Episode(id, {"action": np.zeros((5, 1), np.float32)}, {}) for id in ids])
        return EpisodeReader(folder)

    return make


@pytest.mark.parametrize(
    "other",
    [
        {"preset": "standard", "plugins": ["mine"]},
        {"env": {"name": "two_room", "image_size": 96}, "frame_stride": 5, "steps": 50},
        {"task": {"version": 2, "rendering": {"backend": "egl"}}},
        {"action_bounds": "given"},
    ],
)
def test_the_same_work_is_split_by_id_whatever_its_pictures(stored, other):
    trained, reader = stored(WORK), stored(WORK | other, range(60))
    facts = {"fingerprint": trained.fingerprint, "source": WORK, "validation": 0.3}
    held = set(trained.ids[split_episodes(trained, 0.3)[1]])
    found = set(reader.ids[unseen(reader, facts)])
    assert found & set(trained.ids) == held and found - held


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"policy": {"name": "straight"}}, {"env": {"name": "two_room", "door_size": 9.0}}]
)
def test_other_work_is_unseen_as_a_whole(stored, other):
    facts = {"fingerprint": "of another set", "source": WORK, "validation": 0.3}
    assert np.array_equal(unseen(stored(WORK | other), facts), np.arange(40))


def test_work_that_was_numbered_anew_is_an_error(stored):
    """Merged or exported with the training data inside: their ids say nothing of the split any more."""
    facts = {"fingerprint": "of another set", "source": WORK, "validation": 0.3}
    for source in ({"merged": [{"of": "x", **WORK, "seed": 1}, {"of": "y", **WORK}]}, {"source": WORK}):
        with pytest.raises(InputError, match="under other ids"):
            unseen(stored(source), facts)
        with pytest.raises(InputError, match="under other ids"):
            unseen(stored(WORK), facts | {"source": source})
    other = {"merged": [{"of": "x", **WORK, "seed": 1}, {"of": "y", **WORK, "seed": 2}]}
    assert len(unseen(stored(other), facts)) == 40


def test_a_checkpoint_that_does_not_say_what_was_held_out_is_an_error(stored):
    reader = stored(WORK)
    for facts in ({"fingerprint": reader.fingerprint}, {"source": WORK}):
        with pytest.raises(InputError, match=r"does not record .* \(`validation`\)"):
            unseen(reader, facts)


def test_one_episode_that_is_held_out_only_here_is_not_enough(stored):
    """A small part of the set: the split holds its lowest hash out, the training did not."""
    trained = stored(WORK)
    training, _ = split_episodes(trained, 0.1)
    facts = {"fingerprint": trained.fingerprint, "source": WORK, "validation": 0.1}
    with pytest.raises(InputError, match="too few episodes that were held out"):
        unseen(stored(WORK, trained.ids[training[:3]].tolist()), facts)


def test_a_model_that_was_trained_on_everything_has_nothing_held_out(heldout, tiny_run, monkeypatch):
    real = module.checkpoint.provenance

    def trained_on_all(run):
        facts = json.loads(json.dumps(real(run)))
        return facts | {"data": facts["data"] | {"validation": 0.0}}

    monkeypatch.setattr(module.checkpoint, "provenance", trained_on_all)
    with pytest.raises(InputError, match=r"trained on all of .* it has not seen"):
        heldout(f"data={tiny_run}/data")


# Policies whose score is known


class Replay:
    """What was recorded between start and goal, then nothing."""

    def __init__(self, reader, episodes):
        self.reader, self.episodes = reader, episodes

    def begin(self, task, rngs, steps):
        found = [among(start, self.reader, self.episodes)[0] for start in task.get_state()]
        taken = [self.reader.column("action", episode)[t:] for episode, t in found]

        def act(t, states):
            return np.stack([actions[t] for actions in taken]) if t < 4 else np.zeros((len(states), 2))

        return act


class Idle:
    def begin(self, task, rngs, steps):
        return lambda t, states: np.zeros((len(states), 2))


def test_the_recorded_actions_end_exactly_at_the_goal_and_idling_never(recorded):
    reader, _, held = recorded
    pairs = heldout_pairs(TwoRoom(1), reader, held, 10, 4, seed=0)
    env = {"name": "two_room"}
    replayed = run_pairs(env, pairs, range(10), "model", Scripted(Replay(reader, held)), seed=0, budget=8)
    assert all(line.states[4] == line.goal for line in replayed)  # to the last bit
    assert summarise(replayed)["success_final"] == 1.0
    assert all(line.first_success <= 4 for line in replayed)
    idle = run_pairs(env, pairs, range(10), "model", Scripted(Idle()), seed=0, budget=8)
    assert summarise(idle)["success_ever"] == 0.0
