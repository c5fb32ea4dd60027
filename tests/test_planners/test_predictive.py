"""Predictive sampling."""

import pytest
import torch

from planners import InputError, Limits, Population, PredictiveSampling, Search, Spline

LIMITS = Limits(low=[-2.0, -1.0], high=[2.0, 1.0])


def test_mean_becomes_the_best_candidate_and_std_stays(sphere, recorder):
    planner, cost = PredictiveSampling(horizon=6, samples=20, iterations=3, init_std=0.5), recorder(sphere(0.4))
    plan, state = planner.plan(cost, planner.init(2, LIMITS, [0, 1]))
    torch.testing.assert_close(plan.std, torch.tensor([0.5, 0.25]).expand(2, 6, 2))
    assert torch.equal(state.mean, plan.actions)
    for step in (0, 1):
        index = cost.costs[step].argmin(1)
        assert torch.equal(cost.candidates[step + 1][:, 0], cost.candidates[step][torch.arange(2), index])


@pytest.mark.parametrize(("knots", "order"), [(3, 0), (4, 1), (5, 3)])
def test_noise_is_a_spline(knots, order, recorder, sphere):
    planner, cost = PredictiveSampling(horizon=20, samples=30, knots=knots, order=order), recorder(sphere(0.0))
    wide = Limits(low=[-1e3], high=[1e3], std=[1.0])  # nothing is cut off
    planner.plan(cost, planner.init(1, wide, [0]))
    drawn = cost.candidates[0][0, 2:, :, 0]
    basis = Spline(knots=knots, order=order).basis(20)
    inside = basis @ torch.linalg.pinv(basis)  # projection on what splines can be
    torch.testing.assert_close(drawn @ inside, drawn, rtol=0, atol=1e-4)
    assert torch.linalg.matrix_rank(drawn, rtol=1e-4) == knots


def test_tie_goes_to_the_first():
    search = Search(torch.zeros(1, 2, 1), torch.ones(1, 2, 1), torch.ones(1), None)
    candidates = torch.arange(6.0).view(1, 3, 2, 1)
    after = PredictiveSampling().update(search, Population(candidates, torch.tensor([[2.0, 1.0, 1.0]])))
    assert torch.equal(after.mean, candidates[:, 1])


def test_impossible_spline_is_an_error():
    with pytest.raises(InputError, match="knots"):
        PredictiveSampling(knots=1)
