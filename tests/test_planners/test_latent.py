"""A cost from a world model."""

import pytest
import torch

from planners import CEM, GoalDistance, LatentCost


def images(rows, frames, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (rows, frames, 16, 16, 3), dtype=torch.uint8, generator=generator)


ALL = slice(0, 5)
ALONE = [slice(row, row + 1) for row in range(5)]


def problem(model, rows):
    """Context and goal latents of some of five problems."""
    observations, goals = images(5, model.history, 0)[rows], images(5, 1, 1)[rows, 0]
    between = torch.randn(
        5, (model.history - 1) * model.action_block, 2, generator=torch.Generator().manual_seed(2)
    )
    with torch.no_grad():
        return model.context(observations, between[rows]), model.encode(goals)


def test_cost_is_the_distance_of_imagined_points(point_dynamics):
    dynamics = point_dynamics(action_block=2)
    actions = torch.tensor([[[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 2.0]], [[0.0, 0.0]] * 4]])
    goal = torch.tensor([[2.0, 3.0]])
    cost = LatentCost(dynamics, torch.zeros(1, 2), goal, GoalDistance(running=1.0, terminal=10.0))
    # the first candidate visits (2, 0) and (2, 3), the second stays at the origin
    assert cost(actions).tolist() == [[4.5, 143.0]]


@pytest.mark.parametrize("predictor", ["residual_mlp", "adaln_transformer"])
@pytest.mark.parametrize("samples", [1, 2, 13, 33, 50])
def test_costs_of_a_real_model_are_the_same_bits_in_one_and_five_rows(make_model, predictor, samples):
    model = make_model(predictor)
    actions = torch.randn(5, samples, 6, 2, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        together = LatentCost(model, *problem(model, ALL), GoalDistance())(actions)
        for row in ALONE:
            alone = LatentCost(model, *problem(model, row), GoalDistance())(actions[row])
            assert torch.equal(together[row], alone)
    assert len(together.unique()) == 5 * samples  # actions and rows matter


@pytest.mark.parametrize("predictor", ["residual_mlp", "adaln_transformer"])
def test_plans_of_a_real_model_are_the_same_bits_in_one_and_five_rows(make_model, predictor):
    model, planner = make_model(predictor), CEM(horizon=6, samples=33, iterations=3)

    def plan(rows):
        cost = LatentCost(model, *problem(model, rows), GoalDistance())
        seeds = range(5)[rows]
        return planner.plan(cost, planner.init(len(seeds), model.action_spec, seeds))[0]

    together = plan(ALL)
    for row in ALONE:
        alone = plan(row)
        assert torch.equal(together.actions[row], alone.actions)
        assert torch.equal(together.cost[row], alone.cost)


@pytest.mark.parametrize("rows_per_call", [1, 2, 3, 5])
def test_rows_per_call_changes_rounding_at_most(make_model, rows_per_call):
    model = make_model()
    actions = torch.randn(5, 16, 4, 2, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        context, goal = problem(model, ALL)
        expected = GoalDistance()(model.rollout(context, actions), goal)
        cost = LatentCost(model, context, goal, GoalDistance(), rows_per_call=rows_per_call)
        torch.testing.assert_close(cost(actions), expected)
