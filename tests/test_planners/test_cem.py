"""The cross-entropy method against exact optima."""

import pytest
import torch

from planners import CEM

HORIZON = 10
STEP = torch.tensor([[1.0, 0.2], [0.0, 1.0]])  # double integrator: position, velocity
PUSH = torch.tensor([[0.02], [0.2]])
STARTS = torch.tensor([[1.0, 0.0], [-0.5, 1.0], [0.3, -0.8]])


def lqr_cost(actions, starts=STARTS):
    """Sum of |x|^2 + 0.1 u^2 over the horizon: (B, S, H, 1) -> (B, S)."""
    state = starts[:, None].expand(-1, actions.shape[1], -1).to(actions)
    total = 0
    for t in range(actions.shape[2]):
        action = actions[:, :, t]
        state = state @ STEP.T.to(actions) + action @ PUSH.T.to(actions)
        total = total + state.square().sum(-1) + 0.1 * action.square().sum(-1)
    return total


def lqr_optimum(starts=STARTS):
    """The unconstrained optimum of the same quadratic, by Newton's step from zero, which is exact."""
    best = []
    for start in starts:

        def total(u, start=start):
            return lqr_cost(u.view(1, 1, HORIZON, 1), start[None]).sum()

        zero = torch.zeros(HORIZON, dtype=torch.float64)
        hessian = torch.autograd.functional.hessian(total, zero)
        gradient = torch.autograd.functional.jacobian(total, zero)
        best.append(torch.linalg.solve(hessian, -gradient))
    return torch.stack(best)[:, :, None]


@pytest.mark.parametrize("correlation", [0.0, 0.7])
@pytest.mark.parametrize("momentum", [0.0, 0.2])
def test_linear_quadratic_optimum_within_two_percent(make_spec, correlation, momentum):
    optimum = lqr_optimum()
    assert optimum.abs().max() < 4  # inside the bounds, so it is the optimum of the bounded problem too
    planner = CEM(
        horizon=HORIZON,
        samples=512,
        iterations=60,
        elites=50,
        momentum=momentum,
        correlation=correlation,
        min_std=0.001,
    )
    plan, _ = planner.plan(lqr_cost, planner.init(3, make_spec([-5.0], [5.0], std=[2.0]), [0, 1, 2]))
    exact = lqr_cost(optimum[:, None].float())[:, 0]
    assert (plan.cost >= exact * (1 - 1e-5)).all()
    assert (plan.cost <= exact * 1.02).all()


def obstacle_cost(actions):
    """A point walks from (0, 0) towards (4, 0); a disc of radius 1 at (2, 0) is in the way."""
    path = actions.cumsum(2)
    goal, centre = path.new_tensor([4.0, 0.0]), path.new_tensor([2.0, 0.0])
    hit = (path - centre).norm(dim=-1) < 1.0
    return (path[:, :, -1] - goal).norm(dim=-1) + 10.0 * hit.float().sum(-1)


def test_plan_goes_round_an_obstacle_not_through_the_mean_of_both_ways(make_spec):
    planner = CEM(horizon=8, samples=256, iterations=12, elites=16)
    seeds = range(10)
    plan, _ = planner.plan(obstacle_cost, planner.init(10, make_spec([-1, -1], [1, 1]), seeds))
    mirrored = plan.actions * torch.tensor([1.0, -1.0])
    both_ways = torch.stack([plan.actions, mirrored, (plan.actions + mirrored) / 2], dim=1)
    up, down, mean = obstacle_cost(both_ways).unbind(1)
    assert (up < 0.5).all()
    assert torch.equal(up, down)
    assert (mean > 10).all()  # the average of two good plans hits the disc
    sides = plan.actions.cumsum(1)[:, :, 1].mean(1).sign()
    assert set(sides.tolist()) == {-1.0, 1.0}  # seeds differ in the way they choose


def test_update_is_mean_and_std_of_the_elites():
    planner = CEM(horizon=3, samples=20, elites=4, momentum=0.25)
    generator = torch.Generator().manual_seed(0)
    candidates = torch.randn(2, 20, 3, 2, generator=generator)
    costs = torch.rand(2, 20, generator=generator)
    old_mean, old_std = torch.full((2, 3, 2), 0.5), torch.full((2, 3, 2), 2.0)
    mean, std = planner.update(old_mean, old_std, candidates, costs)
    for row in range(2):
        elites = candidates[row][costs[row].argsort()[:4]]
        torch.testing.assert_close(mean[row], 0.75 * elites.mean(0) + 0.25 * 0.5)
        torch.testing.assert_close(std[row], 0.75 * elites.std(0, unbiased=False) + 0.25 * 2.0)


def test_elites_without_a_finite_cost_have_no_weight():
    planner = CEM(horizon=3, samples=20, elites=6)
    candidates = torch.randn(1, 20, 3, 2, generator=torch.Generator().manual_seed(0))
    costs = torch.full((1, 20), torch.inf)
    costs[0, [3, 11]] = torch.tensor([1.0, 5.0])
    mean, std = planner.update(torch.zeros(1, 3, 2), torch.ones(1, 3, 2), candidates, costs)
    torch.testing.assert_close(mean[0], candidates[0, [3, 11]].mean(0))
    torch.testing.assert_close(std[0], candidates[0, [3, 11]].std(0, unbiased=False))


def test_std_never_falls_below_its_floor(make_spec):
    planner = CEM(horizon=3, samples=64, iterations=40, elites=4, min_std=0.05)
    plan, _ = planner.plan(
        lambda a: (a - 0.2).square().sum((-1, -2)), planner.init(1, make_spec([-1, 0], [3, 1]), [0])
    )
    torch.testing.assert_close(plan.std, torch.tensor([0.2, 0.05]).expand(1, 3, 2))
