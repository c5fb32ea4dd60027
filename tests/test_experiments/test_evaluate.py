"""Evaluation: the same lines whatever the batch, resume, floors, and agents whose score is known."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from envs import Actor, GoalTask, TwoRoom
from envs.policies import GoalDirected, Greedy
from experiments import evaluate as module
from experiments.evaluate import evaluate, run_pairs
from experiments.pairs import draw_pairs
from experiments.records import read, summarise
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
    real, calls = module.append, []

    def cut(path, records):
        calls.append(1)
        real(path, records)
        if len(calls) == 2:
            with path.open("a") as file:
                file.write('{"policy": "mod')  # a line torn by the kill
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "append", cut)
    config = compose("evaluate", f"run={run}")
    with pytest.raises(KeyboardInterrupt):
        evaluate(config)
    monkeypatch.setattr(module, "append", real)
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
    evaluate(compose("evaluate", f"run={run}", "seed=5"))
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
    config = {"seed": 0, "budget": 100}
    lines = run_pairs(ENV, pairs, range(40), "model", module._scripted(policy, 100), config)
    summary = summarise(lines)
    assert summary["success_final"] == summary["success_ever"] == summary["detour_final"] == expected


def test_greedy_solves_what_needs_no_detour():
    pairs = draw_pairs(TwoRoom(1), 40, seed=0)
    lines = run_pairs(ENV, pairs, range(40), "model", module._scripted(Greedy(), 100), {"seed": 0, "budget": 100})
    assert all(line.success_final for line in lines if not line.detour)
    assert summarise(lines)["detour_final"] < 0.7


def test_broken_row_independence_is_noticed(compose, tiny_run, tmp_path, monkeypatch):
    run = fresh(tiny_run, tmp_path / "run")
    shutil.copy(tiny_run / "episodes.jsonl", run)
    shutil.copy(tiny_run / "evaluate.json", run)
    lines = (run / "episodes.jsonl").read_text().splitlines()
    lines[0] = lines[0].replace('"seed": ', '"seed": 1')
    (run / "episodes.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(RuntimeError, match="row independence"):
        evaluate(compose("evaluate", f"run={run}"))


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
    assert summary["protocol"]["floors"] == ["random"]
    assert {line.policy for line in read(tmp_path / "out/episodes.jsonl")} == {"model", "random"}


def test_a_floor_that_cannot_act_is_refused_before_anything_is_run(compose, tiny_run, tmp_path, unsteered):
    with pytest.raises(InputError, match=r"no `steer`.*floors=\[random\]"):
        evaluate(compose("evaluate", f"run={tiny_run}", f"out={tmp_path}/out", "floors=[random,greedy]"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("floors", ["random", "[random,best]", "3"])
def test_floors_are_a_list_of_what_there_is(compose, tiny_run, tmp_path, floors):
    with pytest.raises(InputError, match="a list of random, greedy; got"):
        evaluate(compose("evaluate", f"run={tiny_run}", f"out={tmp_path}/out", f"floors={floors}"))
    assert not (tmp_path / "out").exists()


def test_success_by_another_rule_is_that_of_the_lines(compose, tiny_run, tmp_path, unsteered):
    summary = evaluate(compose("evaluate", f"run={tiny_run}", f"out={tmp_path}/out", "pairs=12", "floors=[random]"))
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
    facts = module.checkpoint.provenance(tiny_run)
    recorded = facts["data"]["source"]["task"]
    assert recorded == {"version": TwoRoom.version, "rendering": {"backend": "numpy"}}
    recorded |= {"version": recorded["version"] if version is None else version, "rendering": rendering}
    monkeypatch.setattr(module.checkpoint, "provenance", lambda run: facts)
    given = [f"run={tiny_run}", f"out={tmp_path}/out", "pairs=2", "budget=2", "latency_pairs=1"]
    with pytest.raises(InputError, match=message):
        evaluate(compose("evaluate", *given))
    assert not (tmp_path / "out").exists()
    summary = evaluate(compose("evaluate", *given, "rendering=any"))
    assert summary["protocol"]["task"] == {"version": TwoRoom.version, "rendering": {"backend": "numpy"}}


def test_rendering_is_same_or_any(compose, tiny_run, tmp_path):
    with pytest.raises(InputError, match=r"rendering is same .* or any, got 'some'"):
        evaluate(compose("evaluate", f"run={tiny_run}", f"out={tmp_path}/out", "rendering=some"))
