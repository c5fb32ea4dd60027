"""Evaluation: the same lines whatever the batch, resume, floors, and agents whose score is known."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from envs import Actor, TwoRoom
from envs.policies import GoalDirected, Greedy
from experiments import evaluate as module
from experiments.evaluate import evaluate, run_pairs
from experiments.pairs import draw_pairs
from experiments.records import read, summarise

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
