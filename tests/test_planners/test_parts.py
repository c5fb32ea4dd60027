"""Planners, costs and proposals by name."""

import pytest
import torch

from planners import (
    CEM,
    COSTS,
    ICEM,
    KINDS,
    LBFGS,
    PLANNERS,
    PROPOSALS,
    Categorical,
    CategoricalCEM,
    Chain,
    Effort,
    GoalDistance,
    InputError,
    Limits,
    Spline,
    Sum,
    White,
)
from planners.parts import recommended

EVERY = [(kind, name) for kind, table in KINDS.items() for name in table]


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_everything_is_made_from_its_name_alone(kind, name):
    assert isinstance(recommended(kind, {"name": name}), KINDS[kind][name])


@pytest.mark.parametrize("name", PLANNERS)
def test_planners_plan_with_their_defaults(name):
    """Shortened, but otherwise as they come."""
    planner = PLANNERS[name]()
    limits = Limits(low=[0.0, 0.0], high=[1.0, 1.0])
    target = torch.tensor([1.0, 0.0])

    def cost(actions):
        return (actions - target).square().mean((-1, -2))

    plan, state = planner.plan(cost, planner.init(2, limits, [0, 1]))
    assert plan.actions.shape == (2, planner.horizon, 2)
    idle = cost(torch.zeros(1, 1, planner.horizon, 2))
    assert (plan.cost < 0.9 * idle).all()
    again, _ = planner.plan(cost, state.shift(1, planner.warm_std))
    assert not again.failed.any()


def test_settings_reach_the_part():
    planner = recommended("planner", {"name": "icem", "horizon": 6, "samples": 16, "elites": 3, "decay": 1.5})
    assert type(planner) is ICEM
    assert (planner.horizon, planner.samples, planner.elites, planner.decay) == (6, 16, 3, 1.5)
    assert recommended("cost", {"name": "goal_distance", "terminal": 2.0}).terminal == 2.0


def test_parts_may_hold_parts():
    chain = recommended(
        "planner",
        {
            "name": "chain",
            "share": 0.5,
            "first": {"name": "cem", "horizon": 6, "proposal": {"name": "spline", "knots": 3, "order": 1}},
            "then": {"name": "lbfgs", "horizon": 6, "iterations": 7},
        },
    )
    assert type(chain) is Chain
    assert type(chain.first) is CEM
    assert type(chain.first.proposal) is Spline
    assert (chain.first.proposal.knots, chain.first.proposal.order) == (3, 1)
    assert type(chain.then) is LBFGS
    assert (chain.then.iterations, chain.share) == (7, 0.5)
    cost = recommended(
        "cost",
        {
            "name": "sum",
            "terms": [{"name": "goal_distance", "running": 0.0, "softmin": 1.0}, {"name": "effort"}],
            "weights": [1.0, 0.1],
            "mix": "z_score",
        },
    )
    assert type(cost) is Sum
    assert [type(term) for term in cost.terms] == [GoalDistance, Effort]
    assert cost.terms[0].softmin == 1.0


def test_the_specification_is_left_as_it_was():
    spec = {"name": "cem", "proposal": {"name": "white"}, "schedule": [64, 32]}
    recommended("planner", spec)
    assert spec == {"name": "cem", "proposal": {"name": "white"}, "schedule": [64, 32]}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["oracle", "", None, "__class__"])
def test_unknown_names_are_errors_that_list_the_known(kind, name):
    with pytest.raises(InputError, match=f"recommends {kind} '{name}', known: {next(iter(KINDS[kind]))}"):
        recommended(kind, {"name": name})


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("planner", {"name": "cem", "magic": 1}),
        ("planner", {"name": "cem", "proposal": {"name": "white", "knots": 3}}),
        ("planner", {"name": "chain", "first": {"name": "cem"}, "then": {"name": "oracle"}}),
        ("planner", {"name": "chain", "first": {"name": "effort"}}),
        ("planner", {"name": "mppi", "elites": 3}),
        ("planner", {"name": "cem", "samples": "many"}),
        ("planner", {"name": "cem", "samples": 1}),
        ("planner", {"horizon": 5}),
        ("cost", {"name": "effort", "weight": 2}),
        ("cost", {"name": "sum", "terms": [{"name": "cem"}]}),
        ("cost", {"name": "goal_distance", "temperature": -1.0}),
        ("proposal", {"name": "spline", "order": 7}),
    ],
    ids=str,
)
def test_settings_that_do_not_exist_are_errors(kind, spec):
    with pytest.raises(InputError):
        recommended(kind, spec)


def test_tables_are_what_the_package_shows():
    assert KINDS == {"planner": PLANNERS, "cost": COSTS, "proposal": PROPOSALS}


def test_categorical_cem_stays_categorical_when_settings_are_given_in_full():
    planner = CategoricalCEM(proposal=None, samples=16)  # as a configuration gives them
    assert isinstance(planner.proposal, Categorical)
    with pytest.raises(InputError, match="CEM"):
        CategoricalCEM(proposal=White())
