"""Manifests: drawn again they are the same, they mean what they say, and hold nothing a model was trained on."""

import gzip
import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from envs import TwoRoom, rollout
from experiments.build import build_task
from experiments.collect.worker import build_policy
from experiments.config import compose
from experiments.frozen import ROOT, Manifest, shipped
from experiments.manifest import APART, manifest
from experiments.pairs import choose_pairs, draw_pairs
from lewm.data import EpisodeReader, split_episodes
from lewm.types import InputError

ENV = {"name": "two_room"}
CHOICE = {"track": "heldout", "offset": 25, "pairs": 20, "pairs_seed": 0, "detours": 0.5, "data": None}


@pytest.fixture(scope="module")
def settings():
    """What `lewm manifest env=two_room` would do."""
    return compose("manifest", ["env=two_room", "out=-"])


@pytest.fixture
def make(settings, tmp_path):
    """make("a.json", offset=5, ...): a few pairs of short episodes, unless told."""
    few = {"policy": {"name": "mixed"}, "steps": 30, "pairs": 8}

    def run(out="pairs.json.gz", **given):
        return manifest({**settings, **few, **given, "out": str(tmp_path / out)})

    return run


def choose(trained=None, env=ENV, **config):
    """(pairs, protocol) of an evaluation in Two-Room."""
    with closing(build_task(env, 1)) as task:
        return choose_pairs(task, env, CHOICE | config, trained or {})


def same(one, other):
    return np.array_equal(one.starts, other.starts) and np.array_equal(one.goals, other.goals)


# Drawing


@pytest.mark.parametrize("track", ["free", "heldout", "paper"])
def test_the_same_settings_give_the_same_bytes(make, track):
    first, again, other = (
        make(f"{name}.json.gz", track=track, seed=seed) for name, seed in zip("abc", (3, 3, 4), strict=True)
    )
    assert first.read_bytes() == again.read_bytes()
    assert not same(Manifest.read(first), Manifest.read(other))


def test_pairs_lie_offset_steps_apart_in_episodes_that_can_be_made_again(make):
    made = Manifest.read(make(offset=7))
    assert len(set(made.episodes[:, 0])) == len(made)  # one pair from each
    ids, steps = made.episodes[::3].T
    with closing(build_task(made.env, len(ids))) as task:
        work = made.source
        recorded = rollout(task, build_policy(work), ids.tolist(), seed=work["seed"], steps=work["steps"])
    for episode, step, start, goal in zip(recorded, steps, made.starts[::3], made.goals[::3], strict=True):
        states = episode.columns["state"]
        assert np.array_equal(states[step], start) and np.array_equal(states[step + 7], goal)
    assert made.source["seed"] >= APART


def test_a_longer_manifest_begins_with_the_shorter(make):
    short, long = (Manifest.read(make(f"{count}.json", pairs=count)) for count in (5, 60))
    assert same(short, replace(long, starts=long.starts[: len(short)], goals=long.goals[: len(short)]))


@pytest.mark.parametrize(
    ("env", "offset", "policy", "steps"),
    [("two_room", 60, "mixed", 120), ("wall", 25, "expert", 100)],
)
def test_policy_and_length_are_those_of_the_preset_else_the_tasks_expert(make, env, offset, policy, steps):
    path = make(env={"name": env}, offset=offset, policy=None, steps=None, pairs=1)
    source = Manifest.read(path).source
    assert (source["policy"]["name"], source["steps"]) == (policy, steps)


# The file


@pytest.mark.parametrize("out", ["pairs.json", "pairs.json.gz"])
def test_numbers_come_back_bit_by_bit(tmp_path, make, out):
    made = Manifest.read(make(out))
    odd = made.starts.copy()
    odd[0] = [np.nextafter(1 / 3, 1), 5e-324]
    replace(made, starts=odd).write(tmp_path / f"odd-{out}")
    back = Manifest.read(tmp_path / f"odd-{out}")
    assert back.starts.tobytes() == odd.tobytes() and back.goals.tobytes() == made.goals.tobytes()
    assert back.fingerprint != made.fingerprint


@pytest.mark.parametrize(
    "edit",
    [
        lambda content: content["starts"][1].__setitem__(0, 20.0),
        lambda content: content["env"].__setitem__("door", 30.0),
        lambda content: content["source"].__setitem__("seed", 1),
        lambda content: content.pop("goals"),
        lambda content: content.__setitem__("fingerprint", "0" * 16),
    ],
)
def test_an_edited_file_is_an_error(make, edit):
    path = make("pairs.json")
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"pairs\.json is no manifest .*fingerprint"):
        Manifest.read(path)


def test_a_damaged_or_missing_file_is_an_error(make, tmp_path):
    path = make()
    whole = path.read_bytes()
    for data in (whole[:-40], b"", gzip.compress(b"[]"), b"nothing packed", gzip.compress(b"{\xff}")):
        path.write_bytes(data)
        with pytest.raises(InputError, match="is no manifest"):
            Manifest.read(path)
    with pytest.raises(InputError, match="there is no manifest"):
        Manifest.read(tmp_path / "none.json")


def test_another_manifest_is_not_overwritten(make):
    before = make().read_bytes()
    assert make().read_bytes() == before
    with pytest.raises(InputError, match="holds another manifest"):
        make(seed=1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"track": "hidden"}, "tracks are"),
        ({"out": "pairs.npz"}, r"\.json or \.json\.gz"),
        ({"steps": 20, "offset": 21}, "offset=21"),
        ({"track": "free", "data": "x"}, "takes no data"),
        ({"track": "free", "detours": 2.0}, "share"),
        ({"env": None}, "env=... must be given"),
    ],
)
def test_mistakes_are_named(make, given, message):
    with pytest.raises(InputError, match=message):
        make(**given)


def test_the_verb_and_its_help(lewm, tmp_path):
    code, out, _ = lewm(
        "manifest", "env=two_room", "policy=ou", "pairs=3", "steps=26", f"out={tmp_path}/pairs.json"
    )
    assert code == 0 and "3 pairs" in out and len(Manifest.read(tmp_path / "pairs.json")) >= 3
    assert "env=" in lewm("manifest", "--help")[1]


# In an evaluation


def test_a_free_draw_equals_the_shipped_file_and_goes_on_after_it():
    frozen = shipped("two_room", "free", 25, 0)
    for count in (10, 200, 230):
        pairs, protocol = choose(track="free", pairs=count)
        assert protocol["manifest"] == "two_room/free-0" and protocol["pairs_from"] == frozen.fingerprint
        assert pairs.fingerprint == draw_pairs(TwoRoom(1), count, seed=0).fingerprint
    assert choose(track="free", pairs_seed=9)[1]["manifest"] is None
    assert choose(track="free", env=ENV | {"door": 40.0})[1]["manifest"] is None


def test_paper_keeps_and_flags_what_heldout_leaves_out():
    paper, _ = choose(track="paper", pairs=100)
    heldout, protocol = choose(track="heldout", pairs=int((~paper.solved).sum()))
    assert 0 < paper.solved.sum() == heldout.presolved and paper.presolved == 0 and not heldout.solved.any()
    assert np.array_equal(paper.starts[~paper.solved], heldout.starts)
    assert np.array_equal(TwoRoom(1).distance(paper.starts, paper.goals) <= 1, paper.solved)
    assert (protocol["offset"], protocol["manifest"]) == (25, "two_room/heldout-25-0")


def test_any_tolerance_and_colour_may_use_it_and_it_decides_what_is_solved():
    usual, strict, loose = (
        choose(env=ENV | {"tolerance": tolerance, "floor_color": [9, 9, 9]}, pairs=120)[0]
        for tolerance in (4.48, 1.0, 6.0)
    )
    assert usual.fingerprint == choose(pairs=120)[0].fingerprint
    assert strict.presolved < usual.presolved < loose.presolved
    distance = TwoRoom(1, tolerance=1.0).distance
    assert (distance(loose.starts, loose.goals) > 6).all() and (distance(strict.starts, strict.goals) > 1).all()


def test_another_world_is_an_error_that_names_what_differs(make):
    path = make()
    with pytest.raises(InputError, match=r"gz .* env\.door is 22\.0, here it is 40\.0; .*`lewm manifest env="):
        choose(manifest=path, env=ENV | {"door": 40.0}, pairs=3)
    with pytest.raises(InputError, match=r"two_room/heldout-25-0 .* env\.door is"):
        choose(env=ENV | {"door": 40.0})
    with pytest.raises(InputError, match=r"env\.name is two_room, here it is wall"):
        choose(manifest=path, env={"name": "wall"})


def test_another_version_or_rule_of_the_task_is_an_error(make, tmp_path, monkeypatch):
    path = make()
    with monkeypatch.context() as patch:
        patch.setattr(TwoRoom, "version", 7)
        with pytest.raises(InputError, match=r"version 0 .* here it is version 7"):
            choose(manifest=path, pairs=3)
    with monkeypatch.context() as patch:
        patch.setattr(TwoRoom, "distance", lambda self, states, goals: np.zeros(len(states)))
        with pytest.raises(InputError, match="disagree about which pairs are solved"):
            choose(manifest=path, pairs=3)


def test_a_given_file_must_be_of_the_track_and_offset_and_long_enough(make):
    path = make(offset=6)
    assert choose(manifest=path, offset=6, pairs=8)[1]["manifest"] == "pairs.json.gz"
    assert choose(manifest=path, offset=6, pairs=8, track="paper")[1]["track"] == "paper"
    for wrong, message in (({"offset": 25}, "say offset=6"), ({"track": "free"}, "say track=heldout")):
        with pytest.raises(InputError, match=message):
            choose(**{"manifest": path, "offset": 6, "pairs": 8} | wrong)
    with pytest.raises(InputError, match=r"found only 8 unsolved pairs in pairs\.json"):
        choose(manifest=path, offset=6, pairs=9)
    with pytest.raises(InputError, match=r"no manifest is shipped for two_room with offset=26 .*offset=26 seed=0"):
        choose(offset=26)


# What a model was trained on


def test_a_manifest_of_the_work_a_model_was_trained_on_is_an_error(make):
    path = make(pairs=12)
    made = Manifest.read(path)
    facts = {"fingerprint": "of a data set", "source": made.source, "validation": 0.1}
    with pytest.raises(InputError, match=r"states of .* episodes that the model was trained on"):
        choose(facts, manifest=path, pairs=12)
    choose(facts | {"source": {**made.source, "seed": 0}}, manifest=path, pairs=12)
    choose(facts | {"validation": 0.999}, manifest=path, pairs=12)  # all of these were held out
    with pytest.raises(InputError, match="validation"):
        choose({"source": made.source}, manifest=path, pairs=12)


def test_a_manifest_of_a_data_set_may_hold_held_out_episodes_alone(make, tiny_run):
    reader = EpisodeReader(tiny_run / "data")
    facts = {"fingerprint": reader.fingerprint, "source": reader.info.source, "validation": 0.3}
    held = make(data=tiny_run / "data", validation=0.3, offset=4, env=None)
    assert set(Manifest.read(held).episodes[:, 0]) <= set(reader.ids[split_episodes(reader, 0.3)[1]])
    pairs, protocol = choose(facts, manifest=held, offset=4, pairs=8)
    assert protocol["pairs_from"] == Manifest.read(held).fingerprint and len(pairs) == 8
    whole = make("whole.json", data=tiny_run / "data", offset=4, env=None)
    assert Manifest.read(whole).data == reader.fingerprint
    for known in (facts, facts | {"fingerprint": "more of the same work"}):
        with pytest.raises(InputError, match=r"whole\.json holds states of"):
            choose(known, manifest=whole, offset=4, pairs=8)


def test_data_serve_the_paper_track_too(tiny_run):
    facts = {"source": {}, "fingerprint": "another"}
    pairs, protocol = choose(facts, track="paper", data=tiny_run / "data", offset=2, pairs=30)
    assert protocol["pairs_from"] == EpisodeReader(tiny_run / "data").fingerprint and protocol["track"] == "paper"
    assert 0 < pairs.solved.sum() < 30


# What is shipped

SHIPPED = {
    f"{path.parent.name}/{path.name.removesuffix('.json.gz')}": path for path in Path(str(ROOT)).glob("*/*.gz")
}
AGAIN = [
    "two_room/free-0",
    "two_room/heldout-25-0",
]  # of each task, drawn anew; the others are made by the same code
AGAIN += [pytest.param(f"{task}/heldout-25-0", marks=pytest.mark.slow) for task in ("wall", "reacher", "push_t")]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n.startswith("cube") else n for n in sorted(SHIPPED)]
)
def test_shipped_manifests_serve_all_their_tracks(name):
    made = Manifest.read(SHIPPED[name])
    for track in ("free",) if made.track == "free" else ("heldout", "paper"):
        pairs, protocol = choose(env=made.env, track=track, offset=made.offset or 25, pairs=200)
        assert protocol["pairs_from"] == made.fingerprint and len(pairs) == 200


@pytest.mark.parametrize("name", AGAIN)
def test_shipped_manifests_are_what_the_command_makes(settings, tmp_path, name):
    made = Manifest.read(SHIPPED[name])
    given = {"env": {**made.env}, "track": made.track, "offset": made.offset or 25, "out": f"{tmp_path}/again.json"}
    assert Manifest.read(manifest({**settings, **given})).fingerprint == made.fingerprint
