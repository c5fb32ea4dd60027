"""Comparisons of evaluations written by hand: the numbers, what may be compared, and what is said."""

import json
from pathlib import Path

import numpy as np
import pytest

from experiments import records, statistics
from experiments.compare import compare, verdict
from experiments.records import EpisodeRecord
from experiments.runs import write_json
from lewm.types import InputError

PROTOCOL = {
    "track": "free",
    "env": {"name": "two_room"},
    "task": {"version": 1},
    "budget": 100,
    "planner": {"name": "cem", "samples": 64},
}


def line(pair: int, success: bool, policy: str = "model", seed: int = 0, **other) -> EpisodeRecord:
    given = {"detour": pair % 2 == 1, "start": [float(pair)], "goal": [1.0], "success_ever": success or pair == 0}
    rest = {"first_success": None, "states": [[float(pair)], [1.0]], "seed": seed}
    return EpisodeRecord(policy=policy, pair=pair, success_final=success, **given | rest | other)


@pytest.fixture
def write(tmp_path):
    """(name, success of each pair, other lines, **protocol) -> the folder of such an evaluation."""

    def write(name: str, success: str, *more: EpisodeRecord, **protocol) -> str:
        folder = tmp_path / name
        folder.mkdir()
        mine = [line(pair, mark == "1") for pair, mark in enumerate(success)]
        records.append(folder / "episodes.jsonl", [*mine, *more])
        protocol = {**PROTOCOL, "checkpoint": f"of {name}", "pairs_fingerprint": f"of {len(success)}", **protocol}
        write_json(folder / "summary.json", {"protocol": protocol, "measures": ["block"]})
        return str(folder)

    return write


def test_the_numbers_are_those_of_the_lines(write):
    found = compare(write("a", "1111100010"), write("b", "1101000000"))
    assert [(c.rule, c.detour, c.n) for c in found.contrasts] == [
        ("final", False, 10),
        ("final", True, 5),
        ("ever", False, 10),
        ("ever", True, 5),
    ]
    final, around, *_ = found.contrasts
    assert (final.a, final.b, final.difference) == (0.6, 0.3, 0.3)
    assert (final.only_a, final.only_b) == (3, 0)
    assert final.p == 0.25 and not final.decided
    assert final.a_interval == statistics.wilson(6, 10)
    a, b = (np.array([*map(int, text)]) for text in ("1111100010", "1101000000"))
    interval, bound = statistics.paired_bootstrap(a, b)
    assert (final.difference_interval, final.bound) == (interval, bound)
    assert final.needed == statistics.pairs_needed(a, b)
    assert (around.a, around.b, around.only_a) == (0.4, 0.4, 0)


def test_an_agent_is_compared_on_the_pairs_it_has_run(write):
    folder = write("a", "11001100", *(line(pair, True, "oracle_latent") for pair in range(4)))
    found = compare(folder, f"{folder}:oracle_latent", rule="final")
    assert (found.a.agent, found.b.agent, found.same_runs) == ("model", "oracle_latent", True)
    assert (found.contrasts[0].n, found.contrasts[0].a, found.contrasts[0].b) == (4, 0.5, 1.0)


def test_a_shorter_list_of_the_same_pairs_will_do(write):
    assert compare(write("a", "1100"), write("b", "11")).contrasts[0].n == 2


def test_two_ways_to_plan_with_one_model_are_compared_on_what_both_have_run(write):
    planner = {"name": "cem", "samples": 999}
    found = compare(write("a", "110011", checkpoint="x"), write("b", "10", checkpoint="x", planner=planner))
    final = found.contrasts[0]
    assert found.same_runs and (final.n, final.a, final.b) == (2, 1.0, 0.5)


def test_planner_seeds_are_averaged_whatever_they_are_called(write):
    a = write("a", "11", line(0, False, seed=77), line(1, True, seed=78))  # old logs: seeds of rows
    found = compare(a, write("b", "10", line(0, False, seed=1), line(1, False, seed=1)))
    final = found.contrasts[0]
    assert found.a.repeats == 2 and len(found.a.checkpoints) == 1
    assert (final.a, final.b, final.only_a, final.only_b) == (0.75, 0.25, 1, 0)
    assert final.p is None
    assert final.a_interval == statistics.bootstrap(np.array([[0.5, 1]]))


def test_folders_of_other_checkpoints_are_training_runs(write, tmp_path):
    for name, success in (("a-0", "1111"), ("a-1", "0111"), ("b-0", "0110"), ("b-1", "0011")):
        write(name, success)
    found = compare(f"{tmp_path}/a-*", f"{tmp_path}/b-1,{tmp_path}/b-0", rule="final")
    assert found.a.checkpoints == ("of a-0", "of a-1") and not found.same_runs
    a_RP, b_RP = np.array([[1, 1, 1, 1], [0, 1, 1, 1]]), np.array([[0, 0, 1, 1], [0, 1, 1, 0]])
    final = found.contrasts[0]
    assert (final.difference_interval, final.bound) == statistics.paired_bootstrap(a_RP, b_RP)
    assert final.a_interval == statistics.bootstrap(a_RP) and final.p is None


def test_folders_of_the_same_checkpoint_are_repeats_of_one_run(write):
    sides = (write("a-0", "11", checkpoint="x"), write("a-1", "01", checkpoint="x"))
    found = compare(",".join(sides), write("b", "11"))
    assert (found.a.checkpoints, found.a.repeats, found.contrasts[0].a) == (("x",), 2, 0.75)


def test_the_same_models_on_both_sides_share_their_training_noise(write, tmp_path):
    """In whichever order they are named."""
    for k, success in enumerate(("1110", "0000")):
        write(f"few-{k}", success, checkpoint=f"run {k}")
        write(f"many-{k}", success, checkpoint=f"run {k}", planner={"name": "cem", "samples": 999})
    found = compare(f"{tmp_path}/few-*", f"{tmp_path}/many-1,{tmp_path}/many-0", rule="final")
    rows = np.array([[1, 1, 1, 0], [0, 0, 0, 0]])
    assert found.same_runs
    assert found.contrasts[0].difference_interval == statistics.paired_bootstrap(rows, rows, same_runs=True)[0]


def test_pairs_solved_at_the_start_do_not_count_and_papers_headline_is_ever(write):
    a = write("a", "11", line(2, True, presolved=True), track="paper", offset=25)
    b = write("b", "10", line(2, False, presolved=True), track="paper", offset=25)
    assert [(c.rule, c.n) for c in compare(a, b).contrasts if not c.detour] == [("ever", 2), ("final", 2)]


@pytest.mark.parametrize(
    ("summary", "said"),
    [
        ([1], "'protocol.env.name'"),
        ({"accuracy": 0.9}, "'protocol.env.name'"),
        ({"protocol": 3}, "'protocol.env.name'"),
        ({"protocol": {**PROTOCOL, "env": "two_room"}}, "'protocol.env.name'"),
        ({"protocol": PROTOCOL}, "'protocol.pairs_fingerprint'"),
    ],
)
def test_a_summary_of_something_else_is_refused(write, summary, said):
    a, b = write("a", "11"), write("b", "11")
    write_json(Path(b) / "summary.json", summary)
    with pytest.raises(InputError, match=rf"b/summary.json does not say {said}.*lewm evaluate"):
        compare(a, b)


def test_a_comma_in_a_name_is_not_one_between_names(write):
    whole = write("a,b", "11", line(0, False, "random"))
    found = compare(whole, f"{whole}:random")
    assert found.a.folders == found.b.folders == (whole,) and found.b.agent == "random"
    found = compare(write("a", "11"), ",".join([write("b", "01"), write("c", "10")]))
    assert len(found.b.folders) == 2


def test_a_rule_of_the_task(write):
    goal = [200.0, 200.0, 300.0, 300.0, 0.0]  # agent, block, its angle; the rule does not ask for the agent
    near, far = [[99.0, 99.0, 300.0, 310.0, 0.0]], [[200.0, 200.0, 300.0, 330.0, 0.0]]  # tolerance 20
    sides = [
        write(name, "", line(0, False, start=[0.0], goal=goal, states=states), env={"name": "push_t"})
        for name, states in (("a", near), ("b", far))
    ]
    (found,) = compare(*sides, rule="block").contrasts
    assert (found.rule, found.a, found.b) == ("block", 1.0, 0.0)
    with pytest.raises(InputError, match=r"unknown rule 'blok'.*did you mean 'block'"):
        compare(*sides, rule="blok")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"budget": 50}, "budget is 100 and 50"),
        ({"track": "heldout", "offset": 25}, "track is free and heldout"),
        ({"env": {"name": "two_room", "door_width": 20}}, "env.door_width"),
        ({"env": {"name": "two_room", "tolerance": 9.0}}, "env.tolerance"),
        ({"task": {"version": 2}}, "task.version is 1 and 2"),
    ],
)
def test_what_was_evaluated_otherwise_is_not_compared(write, change, said):
    with pytest.raises(InputError, match=said):
        compare(write("a", "11"), write("b", "11", **change))


def test_other_pictures_of_the_same_world_are_compared(write):
    assert compare(write("a", "11"), write("b", "11", env={"name": "two_room", "image_size": 96}))


def test_other_pairs_are_not_compared(write):
    b = write("b", "", line(0, True, start=[7.0]), pairs_fingerprint="other")
    with pytest.raises(InputError, match=r"not evaluated on the same pairs .fingerprints of 2 and other; pair 0"):
        compare(write("a", "11"), b)
    with pytest.raises(InputError, match="no pair that all"):
        compare(write("c", "11"), write("d", "", line(5, True)))


def test_what_is_asked_for_has_to_be_there(write, tmp_path):
    a = write("a", "101")
    b = write("b", "111", planner={"name": "mppi"})
    with pytest.raises(InputError, match=r"no episodes of an agent 'modle'.*did you mean 'model'"):
        compare(a, f"{b}:modle")
    with pytest.raises(InputError, match="there is no folder"):
        compare(a, f"{tmp_path}/c-*")
    with pytest.raises(InputError, match="given as one side, but differ in planner"):
        compare(f"{a},{b}", b)
    with pytest.raises(InputError, match="names several agents, model, random"):
        compare(f"{a}:model,{b}:random", b)
    with pytest.raises(InputError, match="margin"):
        compare(a, b, margin=-3)
    with pytest.raises(InputError, match=r"none of the 1 pairs.*detour"):
        compare(a, write("c", "1"), detour=True)


@pytest.mark.parametrize(
    ("a", "b", "said", "unsaid"),
    [
        ("1" * 30, "0" * 8 + "1" * 22, ["A is better than B, +26.7 points"], "Not shown"),
        ("0" * 8 + "1" * 22, "1" * 30, ["B is better than A", "Not shown", "difference seen is not"], "noise"),
        ("011" * 7, "100" * 7, ["within noise", "About 69 pairs would", "Not shown", "about 44 pairs"], "better"),
        ("011", "100", ["few pairs (n = 3), +33.3 points", "nor show them alike"], "would"),
        ("1" * 19, "1" * 19, ["few pairs (n = 19), +0.0 points [-17.4, +17.4]"], "No difference"),
        ("1" * 20, "1" * 20, ["within noise, +0.0 points [-16.7, +16.7]. No difference was seen"], "few"),
        ("1" * 6, "0" * 6, ["A is better than B, +100.0 points", "but of few pairs (n = 6)."], "noise"),
        ("0" * 19, "0" * 13 + "1" * 6, ["B is better than A", "but of few pairs (n = 19)."], "no less"),
        ("1" * 200, "1" * 200, ["No difference was seen", "A has no less success than B"], "Not shown"),
    ],
)
def test_verdicts(write, a, b, said, unsaid):
    found = compare(write("a", a), write("b", b), rule="final")
    text = verdict(found, found.contrasts[0])
    assert all(part in text for part in said) and unsaid not in text, text


def test_many_folders_joined_by_commas(write, tmp_path, monkeypatch):
    """Together their names are longer than a name may be."""
    monkeypatch.chdir(tmp_path)
    names = [f"{'long' * 15}-{k}" for k in range(6)]
    for k, name in enumerate(names):
        write(name, "11", checkpoint=f"run {k}")
    assert compare(",".join(names), names[0], rule="final").contrasts[0].n == 2


def test_training_runs_that_differ_ask_for_seeds(write, tmp_path):
    for side, successes in (("a", ("1" * 20, "0" * 20)), ("b", ("1" * 16 + "0" * 4, "1" * 4 + "0" * 16))):
        for k, success in enumerate(successes):
            write(f"{side}-{k}", success)
    found = compare(f"{tmp_path}/a-*", f"{tmp_path}/b-*", rule="ever")
    assert "train more seeds" in verdict(found, found.contrasts[0])


def test_the_verb_prints_a_table_and_writes_json(write, tiny_run, tmp_path, lewm):
    code, out, _ = lewm("compare", str(tiny_run), f"{tiny_run}:random", "--json", f"{tmp_path}/c.json")
    assert code == 0 and max(map(len, out.splitlines()[2:])) <= 100
    summary = json.loads((tiny_run / "summary.json").read_text())
    written = json.loads((tmp_path / "c.json").read_text())["contrasts"]
    assert [c["a"] for c in written if not c["detour"]] == [summary["success_final"], summary["success_ever"]]
    assert [c["b"] for c in written if c["detour"]] == [
        summary["random_detour_final"],
        summary["random_detour_ever"],
    ]
    for c in written:
        assert f"{100 * c['a']:.1f} [{100 * c['a_interval'][0]:.1f}, {100 * c['a_interval'][1]:.1f}]" in out


def test_the_command_line_explains_itself(write, lewm):
    code, out, _ = lewm("compare", "--help")
    assert code == 0 and "lewm compare 'runs/new-*' 'runs/old-*'" in out
    assert max(map(len, out.splitlines())) <= 105
    code, _, error = lewm("compare", "a", "b", "c")
    assert code == 2 and "put a glob in quotes" in error
    folder = Path(write("a", "11"))
    assert lewm("compare", str(folder), str(folder), "--detour", "--rule", "final")[1].count("final, detour") == 2
