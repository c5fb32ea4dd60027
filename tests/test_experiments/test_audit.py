"""Where it is known what is broken, the audit says so: the imagination, the cost, the search, or none of them."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from envs import TwoRoom
from experiments.audit import audit, page
from experiments.audit.blame import BEYOND, EXCHANGES, blame, count, exchanges, larger, verdict
from experiments.audit.measures import Truth, judge, median, spearman, summarise
from experiments.audit.watch import Watched
from experiments.audit.world import by_distance, choose_axes, distances, landscape
from experiments.config import compose
from experiments.evaluate.agents import Planning, Trained
from experiments.evaluate.episodes import run_pairs
from experiments.pairs import Pairs
from experiments.simulator import SimulatorDynamics
from lewm import registry
from planners import Sum

ENV = {"name": "two_room", "speed": 4.0}
START, GOAL = np.array([12.0, 40.0]), np.array([12.0, 16.0])  # 24 apart, the way is free
PAIRS = Pairs(START[None], GOAL[None], np.zeros(1, bool), 0)
SEARCH = {"horizon": 8, "samples": 64, "iterations": 4, "elites": 6, "warm_iterations": 4, "correlation": 0.9}
END = {"name": "goal_distance", "running": 0.0, "terminal": 1.0}  # of the last latent alone
BUDGET = 12


class Perfect(SimulatorDynamics):
    """A world model whose imagination is the world: a latent is the state."""

    columns = ("state",)

    def encode(self, observations):
        return (observations["state"] if isinstance(observations, dict) else observations).double()

    def context(self, observations, actions):
        return self.encode(observations)[:, -1]


class Mirrored(Perfect):
    """Imagines that every action does the opposite."""

    def rollout(self, context, actions_BSHA):
        return super().rollout(context, -actions_BSHA)


def leftwards(imagined):
    """A cost that ignores the goal."""
    return imagined.z_BSLD[..., 0].mean(-1)


@pytest.fixture
def task():
    return TwoRoom(1, speed=4.0)


@pytest.fixture
def make(task, monkeypatch):
    """(dynamics, cost, settings of the search) -> an agent; by default it knows all and asks for the goal."""
    monkeypatch.setitem(registry._PARTS["cost"], "leftwards", lambda: leftwards)
    monkeypatch.setitem(registry._PARTS["cost"], "mixed", lambda: Sum(mix="z_score"))

    def make(dynamics=Perfect, cost=None, **search):
        model = dynamics(task, block=2)
        planner = {"name": "cem", **SEARCH, **search}
        return Trained(model, Path(), {}, Path(), None, ENV, planner, cost or END, 4)

    return make


def play(agent, seed=0, budget=BUDGET):
    (line,) = run_pairs(ENV, PAIRS, [0], "audit", agent, seed=seed, budget=budget)
    return line


def judged(task, trained):
    watched = Watched(trained, {0})
    play(watched)
    (decision,) = watched.decisions
    return judge(decision, Truth(task, trained))


def blamed(trained, budget=BUDGET):
    agents = exchanges(trained)
    return blame(lambda name: play(agents[name], int(name == "chance"), budget).success_final)


def test_a_perfect_agent_has_nothing_to_be_blamed_for(task, make):
    """The imagined cost is the true one to the bit, its ranks are the task's, and the plan is the best there is."""
    assert play(Planning(make())).success_final
    found = judged(task, make())
    for stage in (found.first, found.last):
        assert stage.predictor == pytest.approx(1)
        assert stage.cost > 0.999 and stage.both > 0.999  # float32 beside float64
        assert stage.best_percentile == 0
    assert found.regret == pytest.approx(0, abs=1e-6)
    curve = np.array(found.curve)
    assert len(curve) == 4 and np.array_equal(curve[:, 0], curve[:, 1])
    assert curve[:, 2] == pytest.approx(np.sqrt(curve[:, 1]) / task.tolerance, rel=1e-5)


def test_a_mirrored_imagination_is_the_predictors_fault(task, make):
    found = judged(task, make(Mirrored))
    assert found.first.predictor < -0.5 and found.first.cost > 0.999 and found.first.best_percentile > 0.5
    assert found.regret > 1
    expected = {"chance": False, "search": False, "predictor": True}
    assert blamed(make(Mirrored)) == {"blame": "predictor", "tried": expected}


def test_a_cost_without_the_goal_is_the_costs_fault(task, make):
    found = judged(task, make(cost={"name": "leftwards"}))
    assert found.first.predictor == pytest.approx(1) and abs(found.first.cost) < 0.9 and found.regret > 1
    assert blamed(make(cost={"name": "leftwards"}))["blame"] == "cost"


def test_a_narrow_search_is_the_searchs_fault(make):
    assert blamed(make(samples=2, elites=1, iterations=1, init_std=0.5))["blame"] == "search"


def test_what_no_exchange_repairs_is_beyond_the_planner(make):
    assert blamed(make(), budget=2) == {"blame": BEYOND, "tried": dict.fromkeys(EXCHANGES, False)}


@pytest.mark.parametrize("name", EXCHANGES)
def test_the_first_exchange_that_helps_names_the_part_and_no_other_is_tried(name):
    asked = []
    found = blame(lambda exchange: asked.append(exchange) or exchange == name)
    assert found["blame"] == name and asked == list(found["tried"]) == list(EXCHANGES)[: len(asked)]


@pytest.mark.parametrize("options", [{}, {"cost": {"name": "mixed"}, "returns": "mean"}])
def test_watching_changes_nothing_and_hears_every_population(make, options):
    """Also of a cost in parts, and of a planner whose final mean is scored alone: that is no population."""
    watched = Watched(make(**options), {0, 8})
    seen = play(watched)
    assert seen == play(Planning(make(**options)))
    fresh, warm = watched.decisions
    assert (fresh.step, warm.step) == (0, 8)
    assert [p.costs.shape for p in fresh.populations] == [(1, 64)] * 4 == [p.costs.shape for p in warm.populations]
    assert warm.state.tolist() == seen.states[8] and warm.goal.tolist() == seen.goal
    assert seen.states[1] == pytest.approx(START + fresh.actions[0, 0, 0].numpy())


def test_the_truth_is_what_executing_the_candidate_gives(task, make):
    watched = Watched(make(), {0})
    play(watched)
    (decision,) = watched.decisions
    actions = decision.populations[0].candidates[:, :5]
    latent, distance = Truth(task, make())(decision, actions)
    for k in range(5):
        state = START[None]
        for action in actions[0, k].double().numpy():
            state = task.advance(state, action[None])
        assert distance[k].item() == pytest.approx(task.distance(state, GOAL[None])[0])
        assert latent[k].item() == pytest.approx(((state - GOAL) ** 2).sum(), rel=1e-5)


def test_rank_correlation_is_scipys():
    rng = np.random.default_rng(0)
    one, two = rng.integers(5, size=(2, 40)).astype(float)  # with ties
    assert spearman(one, two) == pytest.approx(spearmanr(one, two).statistic)
    assert spearman(np.array([1.0, 2, np.inf]), np.array([1.0, 2, 3])) == pytest.approx(1)
    assert spearman(np.ones(5), np.arange(5.0)) is None and spearman(np.arange(2.0), np.arange(2.0)) is None


def test_intervals_are_over_episodes():
    """Repeating each decision of an episode tells nothing new."""
    once = median([1.0, 2, 3, 4], "abcd")
    assert median([1.0, 2, 3, 4] * 50, "abcd" * 50) == once
    assert once[0] == 2.5 and once[1] < 2.5 < once[2]
    draws = np.random.default_rng(0).integers(4, size=(1000, 4))  # one value per episode: the plain bootstrap
    assert once[1:] == np.quantile(np.median(draws + 1, axis=1), [0.025, 0.975]).round(4).tolist()
    assert median([None, 7.0], "ab") == [7, 7, 7] and median([None], "a") is None


def test_a_search_exploits_the_model_where_it_finds_worse_by_imagining_better(task, make):
    found = judged(task, make())
    lines = [
        {"pair": pair, "decisions": [{**asdict(found), "curve": curve}]}
        for pair, curve in enumerate(
            (
                [[4, 4, 2], [3, 5, 3], [1, 8, 4]],
                [[4, 4, 2], [3, 2, 1]],  # stopped early
                [[2, 2, 8], [1, 1, 6], [1, 1, 4]],
                [[2, None, 8], [1, 1, 6], [None, 1, 9]],  # what it imagined was not finite
            )
        )
    ]
    seen = summarise(lines)
    assert (seen["decisions"], seen["searches"], seen["exploits_model"]) == (4, 3, 0.3333)
    assert seen["curve"] == [[1, 1, 1], [0.625, 0.875, 1.125], [0.375, 1.25, 1.25]]
    assert seen["last"]["predictor"] == pytest.approx([1, 1, 1]) and summarise([]) is None


def test_a_larger_search_is_larger_all_through():
    grown = larger({"name": "cem", "samples": 100, "schedule": [10, 5], "warm_iterations": None})
    assert (grown["samples"], grown["elites"], grown["schedule"]) == (400, 48, [40, 20])
    assert (grown["iterations"], grown["warm_iterations"], grown["horizon"]) == (8, None, 40)
    chain = larger({"name": "chain", "first": {"name": "cem"}, "then": {"name": "lbfgs", "iterations": 3}})
    assert chain["first"]["samples"] == 512 and chain["then"]["iterations"] == 6


def test_the_verdict_names_what_most_failures_need():
    lines = [{"blame": name} for name in ("cost", "predictor", "cost", "chance")]
    part, sentence = verdict(count(lines), failed=9, total=20)
    assert part == "cost" and "2 of 4" in sentence and "predictor 1, chance 1" in sentence and "few" in sentence
    assert verdict(count([]), 0, 20)[0] is None and "failures=" in verdict(count([]), 3, 20)[1]


def test_the_landscape_of_a_true_cost_is_the_distance(task, make):
    line = play(Planning(make()))
    assert choose_axes(TwoRoom(1, vary=["door"]), np.array([[50.0, 50, 22]]), np.array([[10.0, 10, 22]])) == [0, 1]
    found = landscape(task, make(), line, [0, 1], np.array([[0.0, 64], [0, 64]]), 9)
    cost, distance = (np.array(found[key], float) for key in ("cost", "distance"))
    x, y = np.meshgrid(*found["ticks"], indexing="ij")
    states = np.stack([x.ravel(), y.ravel()], axis=1)
    assert np.array_equal(np.isfinite(cost).ravel(), task.possible(states)) and np.isnan(cost).any()
    assert np.nanmax(np.abs(np.sqrt(cost) / task.tolerance - distance)[:4]) < 1e-3 and found["spearman"] > 0.98
    assert found["path"][0] == START.tolist() and found["goal"] == GOAL.tolist()


def test_success_by_distance_counts_every_pair_once(task, make):
    starts = np.array([[10.0, y] for y in (12, 14, 40, 50)])
    goals = np.full((4, 2), 10.0)
    found = distances(task, make().model, starts, goals)
    assert found["true"] == pytest.approx(np.array([2, 4, 30, 40]) / task.tolerance)
    assert found["latent"] == pytest.approx([2, 4, 30, 40])
    near, far = by_distance(found["latent"], np.array([True, True, False, True]), bins=2)
    assert (near["from"], near["to"], near["n"], near["success"]) == (2, 4, 2, 1)
    assert (far["success"], far["n"]) == (0.5, 2) and far["interval"][0] < 0.5 < far["interval"][1]


def test_an_audit_is_made_once_and_grows(tiny_run, tmp_path, capsys, monkeypatch):
    """Cut off or asked again, it is the same file; more of it adds lines; its numbers are those of its lines."""
    log = tmp_path / "audit.jsonl"
    small = [f"run={tiny_run}", f"out={tmp_path}", "decisions=2", "landscapes=1", "grid=4", "threads=1"]
    with monkeypatch.context() as patch:
        patch.setattr(page, "picture", lambda *_: Figure())  # drawn once is enough
        audit(compose("audit", [*small, "pairs=1", "failures=0"]))
        first = log.read_text()
        found = audit(compose("audit", [*small, "pairs=2", "failures=1"]))
        grown = log.read_text()
    assert grown.startswith(first) and len(grown) > len(first)
    assert found["replays_as_recorded"] == found["replays"] == 2
    assert sum(found["blame"].values()) == min(1, found["failed"])
    log.write_text(grown[:-10])
    assert audit(compose("audit", [*small, "pairs=2", "failures=1"])) == found
    assert log.read_text() == grown
    assert json.loads((tmp_path / "audit.json").read_text())["verdict"] == found["verdict"]
    assert found["verdict"] in capsys.readouterr().out
    assert (tmp_path / "audit.png").read_bytes().startswith(b"\x89PNG")
