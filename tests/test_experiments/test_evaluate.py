"""Evaluation: the same lines whatever the batch, resume, floors, and agents whose score is known."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from envs import Actor, GoalTask, TwoRoom
from envs.policies import GoalDirected, Greedy
from experiments import records
from experiments.evaluate import evaluate, verb
from experiments.evaluate.agents import Scripted
from experiments.evaluate.episodes import run_pairs
from experiments.evaluate.summary import summarise
from experiments.pairs import draw_pairs
from experiments.records import read
from lewm import registry
from lewm.types import InputError

ENV = {"name": "two_room"}


def fresh(tiny_run: Path, folder: Path) -> Path:
    """A copy of the tiny run that was not evaluated yet."""
    folder.mkdir()
    shutil.copytree(tiny_run / "checkpoint", folder / "checkpoint")
    return folder


@pytest.mark.parametrize("rows", [1, 5, 6])
def test_batch_size_changes_no_outcome(compose, tiny_run, tmp_path, rows):
    run = fresh(tiny_run, tmp_path / "run")
    evaluate(compose("evaluate", f"run={run}", f"rows={rows}"))
    assert (run / "episodes.jsonl").read_bytes() == (tiny_run / "episodes.jsonl").read_bytes()


def test_a_killed_evaluation_continues_to_the_same_file(compose, tiny_run, tmp_path, monkeypatch):
    run = fresh(tiny_run, tmp_path / "run")
    real, calls = records.append, []

    def cut(path, records):
        calls.append(1)
        real(path, records)
        if len(calls) == 2:
            with path.open("a") as file:
                file.write('{"policy": "mod')  # a line torn by the kill
            raise KeyboardInterrupt

    monkeypatch.setattr(records, "append", cut)
    config = compose("evaluate", f"run={run}")
    with pytest.raises(KeyboardInterrupt):
        evaluate(config)
    monkeypatch.setattr(records, "append", real)
    evaluate(config)
    assert (run / "episodes.jsonl").read_bytes() == (tiny_run / "episodes.jsonl").read_bytes()


def test_the_summary_follows_from_the_lines(tiny_run):
    summary = json.loads((tiny_run / "summary.json").read_text())
    lines = read(tiny_run / "episodes.jsonl")
    assert {(line.policy, line.pair) for line in lines} == {
        (policy, pair) for policy in ("model", "random", "greedy") for pair in range(6)
    }
    assert summary | summarise(lines) == summary
    for line in lines:
        assert len(line.states) == 16 and line.states[0] == line.start
        distance = np.linalg.norm(np.subtract(line.states, line.goal), axis=1)
        assert line.success_final == (distance[-1] <= 4.48)
        assert line.success_ever == (distance[1:] <= 4.48).any()
    assert summary["decisions_timed"] == 2 * 3 and summary["plan_ms_p95"] >= summary["plan_ms_p50"] > 0
    assert summary["model_evaluations_per_decision"] == 8 * (4 + 1 + 1) / 3


def test_the_planner_seed_matters_and_only_to_the_model(compose, tiny_run, tmp_path):
    run = fresh(tiny_run, tmp_path / "run")
    evaluate(compose("evaluate", f"run={run}", "seeds=[5]"))
    mine, reference = read(run / "episodes.jsonl"), read(tiny_run / "episodes.jsonl")
    assert [m.states for m in mine if m.policy == "model"] != [r.states for r in reference if r.policy == "model"]
    assert [m.states for m in mine if m.policy == "greedy"] == [r.states for r in reference if r.policy == "greedy"]


class ToTheGoal(GoalDirected):
    """A perfect scripted agent: along the waypoints, without noise."""

    def begin(self, task, rngs, steps):
        return Actor(lambda t, states: task.steer(states, task.waypoint(states, task.get_goal())), [""] * len(rngs))


class Still:
    def begin(self, task, rngs, steps):
        return Actor(lambda t, states: np.zeros((len(states), 2)), [""] * len(rngs))


@pytest.mark.parametrize(("policy", "expected"), [(ToTheGoal(), 1.0), (Still(), 0.0)])
def test_perfect_and_idle_agents_score_one_and_zero(policy, expected):
    pairs = draw_pairs(TwoRoom(1), 40, seed=0)
    lines = run_pairs(ENV, pairs, range(40), "model", Scripted(policy), seed=0, budget=100)
    summary = summarise(lines)
    assert summary["success_final"] == summary["success_ever"] == summary["detour_final"] == expected


def test_greedy_solves_what_needs_no_detour():
    pairs = draw_pairs(TwoRoom(1), 40, seed=0)
    lines = run_pairs(ENV, pairs, range(40), "model", Scripted(Greedy()), seed=0, budget=100)
    assert all(line.success_final for line in lines if not line.detour)
    assert summarise(lines)["detour_final"] < 0.7


def test_broken_row_independence_is_noticed(compose, tiny_run, tmp_path, monkeypatch):
    run = fresh(tiny_run, tmp_path / "run")
    shutil.copy(tiny_run / "episodes.jsonl", run)
    shutil.copy(tiny_run / "evaluate.json", run)
    lines = (run / "episodes.jsonl").read_text().splitlines()
    lines[0] = lines[0].replace('"states": [[', '"states": [[1')
    (run / "episodes.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(RuntimeError, match="row independence"):
        evaluate(compose("evaluate", f"run={run}"))


# Seeds, agents and workers


def test_seeds_and_agents_can_be_added_and_the_file_is_as_if_made_at_once(compose, tiny_run, tmp_path):
    grown, at_once = fresh(tiny_run, tmp_path / "grown"), fresh(tiny_run, tmp_path / "at_once")
    evaluate(compose("evaluate", f"run={grown}", "agents=[model]"))
    evaluate(compose("evaluate", f"run={grown}", "agents=[random]", "seeds=[3]"))
    summary = evaluate(compose("evaluate", f"run={at_once}", "agents=[model,random]", "seeds=[0,3]"))
    assert (grown / "episodes.jsonl").read_bytes() == (at_once / "episodes.jsonl").read_bytes()
    assert summary["planner_seeds"] == [0, 3] and summary["n"] == summary["random_n"] == 6
    lines = read(grown / "episodes.jsonl")
    assert [line.key for line in lines] == [
        *(("model", seed, pair) for seed in (0, 3) for pair in range(6)),
        *(("random", 0, pair) for pair in range(6)),  # a floor's seed is no matter: it runs once
    ]
    one = sum(line.success_final for line in lines if line.policy == "model") / 12
    assert summary["success_final"] == round(one, 4)


def test_an_agent_cannot_be_changed_afterwards(compose, tiny_run, tmp_path):
    run = fresh(tiny_run, tmp_path / "run")
    evaluate(compose("evaluate", f"run={run}", "agents=[random]"))
    with pytest.raises(InputError, match="'random' is named twice"):
        evaluate(compose("evaluate", f"run={run}", "agents=[{name:random,hold:2}]"))


def test_settings_left_to_their_defaults_are_those_settings(compose, tiny_run, tmp_path):
    """So that a folder grows by agents however they are written, also twice in one command."""
    run = fresh(tiny_run, tmp_path / "run")
    first = evaluate(compose("evaluate", f"run={run}", "agents=[random,{name:greedy}]"))
    agents = "agents=[{name:random,hold:5},greedy,random]"
    assert evaluate(compose("evaluate", f"run={run}", agents)) == first
    assert first["protocol"]["agents"] == {"random": {"name": "random"}, "greedy": {"name": "greedy"}}


@pytest.mark.parametrize("seeds", ["0", "[]", "[0,0]", "[-1]"])
def test_seeds_are_a_list_of_whole_numbers(compose, tiny_run, tmp_path, seeds):
    with pytest.raises(InputError, match="seeds"):
        evaluate(compose("evaluate", f"run={tiny_run}", f"out={tmp_path}/out", f"seeds={seeds}"))


def test_an_evaluation_without_a_model_has_no_plan_times(compose, tiny_run, tmp_path):
    summary = evaluate(compose("evaluate", f"run={tiny_run}", f"out={tmp_path}/out", "agents=[greedy]"))
    assert summary["greedy_n"] == 6 and "plan_ms_p50" not in summary and "success_final" not in summary


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:lance is not fork-safe", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of Ray, which forks
@pytest.mark.parametrize("executor", ["local", "ray"])
def test_workers_write_the_same_file(compose, tiny_run, tmp_path, executor):
    if executor == "ray":
        pytest.importorskip("ray")
    run = fresh(tiny_run, tmp_path / "run")
    evaluate(compose("evaluate", f"run={run}", "workers=2", "rows=2", f"executor={executor}"))
    assert (run / "episodes.jsonl").read_bytes() == (tiny_run / "episodes.jsonl").read_bytes()
    assert not list(run.glob("episodes-*"))


MORTAL = """
import os
from pathlib import Path

from experiments.evaluate.agents import Planning, Trained
from lewm import register


@register("agent", "mortal")
class Mortal(Planning):
    def begin(self, task, seeds, steps):
        died = Path("{folder}") / "died"
        if len(list(Path("{folder}").glob("died*"))) < {deaths}:
            Path("{folder}", f"died-{{os.getpid()}}").touch()
            os._exit(9)
        return super().begin(task, seeds, steps)
"""


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_and_too_many_are_an_error(compose, tiny_run, tmp_path, plugin):
    plugin(MORTAL.format(folder=tmp_path, deaths=2))
    given = ["plugins=[outside]", "agents=[model,mortal]", "workers=2", "rows=3"]
    run = fresh(tiny_run, tmp_path / "run")
    evaluate(compose("evaluate", f"run={run}", *given))
    lines = read(run / "episodes.jsonl")
    assert len(list(tmp_path.glob("died*"))) == 2
    model, mortal = ([line.states for line in lines if line.policy == name] for name in ("model", "mortal"))
    assert model == mortal
    plugin(MORTAL.format(folder=tmp_path, deaths=99))
    run = fresh(tiny_run, tmp_path / "other")
    with pytest.raises(InputError, match="processes in a row died"):
        evaluate(compose("evaluate", f"run={run}", *given))
    assert {line.policy for line in records.read_all(run)} == {"model"}


# Floors


class Unsteered(TwoRoom):
    """A task that knows no way to its goals, and another rule of success: the height alone."""

    steer = GoalTask.steer

    def measures(self, states, goals):
        return {"height": np.abs(states - goals)[:, 1] / 10}


@pytest.fixture
def unsteered(monkeypatch):
    """The tiny run's environment has become `Unsteered`."""
    monkeypatch.setitem(registry._PARTS["env"], "two_room", Unsteered)


def test_greedy_is_a_floor_only_where_the_task_can_steer(compose, tiny_run, tmp_path, unsteered):
    summary = evaluate(compose("evaluate", f"run={tiny_run}", f"out={tmp_path}/out"))
    assert list(summary["protocol"]["agents"]) == ["model", "random"]
    assert {line.policy for line in read(tmp_path / "out/episodes.jsonl")} == {"model", "random"}


def test_a_floor_that_cannot_act_is_refused_before_anything_is_run(compose, tiny_run, tmp_path, unsteered):
    with pytest.raises(InputError, match=r"no `steer`.*agents=\[model,random\]"):
        evaluate(compose("evaluate", f"run={tiny_run}", f"out={tmp_path}/out", "agents=[model,greedy]"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("agents", "message"),
    [
        ("random", "a list of .*greedy, .*random.*; got random"),
        ("[random,best]", "unknown agent 'best'"),
        ("[{name:random,hold:2},{name:random,hold:3}]", "'random' is named twice"),
        ("[{name:random,held:2}]", "held"),
    ],
)
def test_agents_are_a_list_of_what_there_is(compose, tiny_run, tmp_path, agents, message):
    with pytest.raises(InputError, match=message):
        evaluate(compose("evaluate", f"run={tiny_run}", f"out={tmp_path}/out", f"agents={agents}"))
    assert not (tmp_path / "out").exists()


def test_success_by_another_rule_is_that_of_the_lines(compose, tiny_run, tmp_path, unsteered):
    summary = evaluate(
        compose("evaluate", f"run={tiny_run}", f"out={tmp_path}/out", "pairs=12", "agents=[model,random]")
    )
    lines = read(tmp_path / "out/episodes.jsonl")
    for policy, key in (("model", "height_final"), ("random", "random_height_final")):
        near = [abs(line.states[-1][1] - line.goal[1]) <= 10 for line in lines if line.policy == policy]
        assert summary[key] == round(sum(near) / 12, 4)
    assert summary["measures"] == ["height"] and 0 < summary["random_height_final"] < 1


# What the task looked like in training


@pytest.mark.parametrize(
    ("version", "rendering", "message"),
    [
        (99, {"backend": "numpy"}, "with version 99, here it is .*: collect and train anew"),
        (None, {"backend": "egl"}, "with backend egl, here it is numpy: set MUJOCO_GL=egl"),
        (None, {"backend": "numpy", "image_size": 96}, "choose env=two_room env.image_size=96"),
        (None, {"backend": "numpy", "mujoco": "3.0"}, "with mujoco 3.0, here it is None: install mujoco 3.0"),
    ],
)
def test_another_version_or_rendering_than_in_training_is_refused(
    compose, tiny_run, tmp_path, monkeypatch, version, rendering, message
):
    facts = verb.checkpoint.provenance(tiny_run)
    recorded = facts["data"]["source"]["task"]
    assert recorded == {"version": TwoRoom.version, "rendering": {"backend": "numpy"}}
    recorded |= {"version": recorded["version"] if version is None else version, "rendering": rendering}
    monkeypatch.setattr(verb.checkpoint, "provenance", lambda run: facts)
    given = [f"run={tiny_run}", f"out={tmp_path}/out", "pairs=2", "budget=2", "latency_pairs=1"]
    with pytest.raises(InputError, match=message):
        evaluate(compose("evaluate", *given))
    assert not (tmp_path / "out").exists()
    summary = evaluate(compose("evaluate", *given, "rendering=any"))
    assert summary["protocol"]["task"] == {"version": TwoRoom.version, "rendering": {"backend": "numpy"}}


def test_rendering_is_same_or_any(compose, tiny_run, tmp_path):
    with pytest.raises(InputError, match=r"rendering is same .* or any, got 'some'"):
        evaluate(compose("evaluate", f"run={tiny_run}", f"out={tmp_path}/out", "rendering=some"))
