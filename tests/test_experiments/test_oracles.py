"""Oracles: they plan as the model does, but in the true simulator; with the true way they get everywhere."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import lewm
from envs import TwoRoom
from experiments.evaluate.agents import Trained
from experiments.evaluate.oracles import LatentOracle, StateOracle
from lewm import checkpoint
from planners import CEM

PLANNER = {"name": "cem", "horizon": 20, "samples": 32, "elites": 6, "iterations": 2, "warm_iterations": 1}


@pytest.fixture(scope="module")
def trained(tiny_run, tmp_path_factory):
    facts, env = (
        checkpoint.provenance(tiny_run),
        json.loads((tiny_run / "data/dataset.json").read_text())["source"]["env"],
    )
    plan = {"planner": PLANNER, "cost": {"name": "goal_distance"}, "replan_every": 5}
    folder = tmp_path_factory.mktemp("oracles")
    return Trained(lewm.load(tiny_run), tiny_run, facts, folder, tiny_run / "data", env, **plan)


def opposite(rows):
    """Rows whose way leads through the door."""
    rng = np.random.default_rng(0)
    starts = np.column_stack([rng.uniform(14, 24, rows), rng.uniform(28, 40, rows)])
    return starts, np.column_stack([rng.uniform(40, 50, rows), rng.uniform(28, 40, rows)])


def test_with_the_true_way_it_gets_through_the_door(trained):
    starts, goals = opposite(4)
    task = TwoRoom(4)
    task.reset(starts, goals)
    assert task.detour(starts, goals).all()
    act = StateOracle(trained).begin(task, range(4), 50)
    for t in range(50):
        task.step(act(t))
    assert task.success().all()


@torch.no_grad()
def test_what_it_minimises_is_the_latent_cost_of_what_truly_happens(trained):
    """Its plans' costs against the task stepped by hand, drawn at the ends of blocks, encoded and compared."""
    (starts, goals), model = opposite(3), trained.model
    task = TwoRoom(3)
    task.reset(starts, goals)
    agent = LatentOracle(trained).controller(task, range(3))
    agent.reset(goals)
    agent.act(starts)
    assert np.array_equal(agent.model.action_spec.std, model.action_spec.std)
    assert isinstance(agent.planner, CEM) and agent.planner.horizon == 20 and agent.replan_every == 5
    z_goal, far = model.encode(torch.from_numpy(task.render_goal())), []
    for t in range(20):
        task.step(agent.last_plan.actions[:, t].numpy())
        if (t + 1) % model.action_block == 0:
            far.append((model.encode(torch.from_numpy(task.render())) - z_goal).square().sum(1))
    torch.testing.assert_close(agent.last_plan.cost, torch.stack(far).mean(0), rtol=1e-3, atol=1e-5)


def test_the_true_way_is_weighed_as_the_model_weighs_its_own(trained):
    """A cost of the end alone; what its learned metric would be does not matter."""
    starts, goals = opposite(3)
    task, end = TwoRoom(3), {"name": "goal_distance", "running": 0.0, "terminal": 2.0, "metric": None}
    task.reset(starts, goals)
    agent = StateOracle(replace(trained, cost=end)).controller(task, range(3))
    agent.reset(goals)
    agent.act(starts)
    for t in range(20):
        task.step(agent.last_plan.actions[:, t].numpy())
    assert np.allclose(agent.last_plan.cost, 2 * task.travel(task.get_state(), goals), rtol=1e-4)


@pytest.mark.parametrize("oracle", [LatentOracle, StateOracle])
def test_a_row_acts_the_same_alone_and_in_any_batch(trained, oracle):
    starts, goals = opposite(3)

    def walk(rows):
        task = TwoRoom(len(rows))
        task.reset(starts[rows], goals[rows])
        act = oracle(trained).begin(task, rows, 6)
        for t in range(6):
            task.step(act(t))
        return task.get_state()

    assert np.array_equal(walk([0, 1, 2]), np.concatenate([walk([k]) for k in range(3)]))


def test_it_is_run_on_some_pairs():
    assert LatentOracle(None).pairs == 30 and StateOracle(None, pairs=None).pairs is None
