"""A wide search, then a descent from what it found."""

import pytest
import torch

from planners import CEM, LBFGS, MPPI, Adam, Chain, InputError, Limits

SPEC = Limits(low=[-2.0], high=[2.0])


def valleys(actions):
    """Many valleys; the deepest is the global minimum, near u = -0.5 in every step."""
    return ((5 * actions).sin() * 2 + (actions + 0.3).square()).sum((-1, -2))


def parts():
    return CEM(horizon=4, samples=64, iterations=4, elites=8), LBFGS(horizon=4, samples=1, iterations=12)


def test_it_is_the_first_then_the_second_from_its_plan(recorder):
    first, then = parts()
    chain, cost = Chain(first=first, then=then), recorder(valleys)
    plan, _ = chain.plan(cost, chain.init(3, SPEC, [0, 1, 2]))
    wide, _ = first.plan(valleys, first.init(3, SPEC, [0, 1, 2]))
    assert plan.iterations == 4 + 12
    assert plan.evaluations == wide.evaluations + 12
    torch.testing.assert_close(cost.candidates[4][:, 0], wide.actions)
    assert (plan.cost <= wide.cost).all()
    grid = torch.linspace(-2, 2, 400_001, dtype=torch.float64)
    exact = 4 * valleys(grid.view(-1, 1, 1, 1)).min()
    assert (plan.cost.double() - exact).abs().max() < 1e-4 < (wide.cost.double() - exact).abs().max()


def test_the_next_plan_starts_around_what_the_second_made_of_it(recorder):
    chain = Chain(first=parts()[0], then=parts()[1])
    plan, state = chain.plan(valleys, chain.init(2, SPEC, [0, 1]))
    assert torch.equal(state.mean, plan.actions)
    cost = recorder(valleys)
    chain.plan(cost, state.shift(1, chain.warm_std))
    assert torch.equal(cost.candidates[0][:, 0, :3], plan.actions[:, 1:])


@pytest.mark.parametrize("then", [Adam, LBFGS, MPPI, CEM])
def test_never_worse_than_the_first_alone(then):
    options = {"elites": 4} if then is CEM else {}
    first = CEM(horizon=4, samples=16, iterations=2, elites=4)
    chain = Chain(first=first, then=then(horizon=4, samples=8, iterations=3, **options))
    wide, _ = first.plan(valleys, first.init(8, SPEC, range(8)))
    plan, _ = chain.plan(valleys, chain.init(8, SPEC, range(8)))
    assert (plan.cost <= wide.cost + 1e-5).all()
    torch.testing.assert_close(plan.cost, valleys(plan.actions[:, None])[:, 0])


def test_rows_where_the_second_finds_nothing_keep_the_plan_of_the_first():
    calls = []

    def cost(actions):
        calls.append(None)
        good = valleys(actions)
        sick = torch.tensor([[True], [False]]) & torch.tensor(len(calls) > 4)
        return torch.where(sick, torch.nan, good)

    first, then = parts()
    chain = Chain(first=first, then=then)
    wide, _ = first.plan(valleys, first.init(2, SPEC, [0, 1]))
    plan, state = chain.plan(cost, chain.init(2, SPEC, [0, 1]))
    assert not plan.failed.any()
    assert torch.equal(plan.actions[0], wide.actions[0])
    assert torch.equal(plan.cost[0], wide.cost[0])
    assert plan.cost[1] < wide.cost[1]
    assert state.mean.isfinite().all()


def test_defaults_fit_together():
    chain = Chain()
    assert chain.first.horizon == chain.then.horizon == chain.horizon


@pytest.mark.parametrize(
    "options",
    [{"first": CEM(horizon=4), "then": LBFGS(horizon=5)}, {"share": 0.0}, {"share": 1.0}],
    ids=["horizons", "nothing for the first", "nothing for the second"],
)
def test_impossible_options_are_errors(options):
    with pytest.raises(InputError, match="chain"):
        Chain(**options)
