"""Path integral control: weights, temperature, spread."""

import pytest
import torch

from planners import MPPI, InputError, Limits, Population, Search

LIMITS = Limits(low=[-1.0], high=[1.0])
GENERATOR = torch.Generator().manual_seed(0)
CANDIDATES = torch.randn(2, 40, 3, 1, generator=GENERATOR)
COSTS = torch.rand(2, 40, generator=GENERATOR) * 3
SEARCH = Search(torch.full((2, 3, 1), 0.5), torch.full((2, 3, 1), 2.0), torch.ones(1), None)


def weights_of(planner, costs):
    """The weights, read off the mean of one-hot candidates."""
    rows, count = costs.shape
    one_hot = torch.eye(count).expand(rows, -1, -1)[..., None]  # (B, P, H = P, 1)
    start = Search(torch.zeros(rows, count, 1), torch.ones(rows, count, 1), torch.ones(1), None)
    return planner.update(start, Population(one_hot, costs)).mean[..., 0]


@pytest.mark.parametrize("temperature", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("momentum", [0.0, 0.25])
def test_update_at_a_fixed_temperature_in_closed_form(temperature, momentum):
    planner = MPPI(temperature=temperature, momentum=momentum)
    after = planner.update(SEARCH, Population(CANDIDATES, COSTS))
    weight = torch.exp(-COSTS.double() / temperature)
    weight = (weight / weight.sum(1, keepdim=True))[:, :, None, None]
    mean = (weight * CANDIDATES).sum(1)
    std = (weight * (CANDIDATES - mean[:, None]) ** 2).sum(1).sqrt()
    torch.testing.assert_close(after.mean.double(), (1 - momentum) * mean + momentum * 0.5, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(after.std.double(), (1 - momentum) * std + momentum * 2.0, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("constant", [-1e4, 0.0, 1e4])
def test_a_constant_in_the_cost_changes_nothing(constant):
    costs = (COSTS * 64).round() / 64  # exact in both
    for planner in (MPPI(temperature=0.5), MPPI()):
        torch.testing.assert_close(weights_of(planner, costs), weights_of(planner, costs + constant))


SHAPES = {
    "uniform": COSTS,
    "tiny": COSTS * 1e-12,
    "huge": COSTS * 1e12,
    "heavy tail": (6 * torch.randn(2, 40, generator=GENERATOR)).exp(),
    "one far away": torch.cat([COSTS, torch.full((2, 1), 1e9)], dim=1),
    "half infinite": torch.where(torch.arange(40) % 2 == 0, COSTS, torch.inf),
}


@pytest.mark.parametrize("costs", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("effective", [1.5, 6.0, 15.0])
def test_temperature_adapts_to_the_effective_sample_size(costs, effective):
    weight = weights_of(MPPI(effective=effective), costs).double()
    torch.testing.assert_close(weight.sum(1), torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-5)
    size = 1 / weight.square().sum(1)
    torch.testing.assert_close(size, torch.full((2,), effective, dtype=torch.float64), rtol=0.02, atol=0)
    order = costs.argsort(1)
    assert (weight.gather(1, order).diff(dim=1) <= 1e-7).all()  # cheaper never weighs less


@pytest.mark.parametrize("tied", [8, 40])
def test_ties_share_their_weight_equally(tied):
    """Eight candidates tie for the best: their effective number cannot fall to six."""
    costs = torch.where(torch.arange(40) < tied, 1.0, 5.0).expand(2, -1)
    weight = weights_of(MPPI(effective=6.0), costs)
    torch.testing.assert_close(weight[:, :tied], torch.full((2, tied), 1 / tied), rtol=1e-4, atol=0)


@pytest.mark.parametrize("options", [{"temperature": 0.7}, {}], ids=["fixed", "adaptive"])
def test_infinite_costs_have_no_weight(options):
    costs = COSTS.clone()
    costs[:, ::3] = torch.inf
    weight, kept = weights_of(MPPI(**options), costs), costs.isfinite()
    assert (weight[~kept] == 0).all()
    few = weights_of(MPPI(**options), costs[kept].view(2, -1))
    torch.testing.assert_close(weight[kept].view(2, -1), few, rtol=1e-4, atol=1e-6)


def test_std_can_stay_as_it_began(sphere):
    planner = MPPI(horizon=3, samples=32, iterations=4, adapt_std=False, init_std=0.3)
    plan, _ = planner.plan(sphere(0.2), planner.init(2, LIMITS, [0, 1]))
    torch.testing.assert_close(plan.std, torch.full((2, 3, 1), 0.3 * 0.5))
    planner = MPPI(horizon=3, samples=32, iterations=4, init_std=0.3)
    plan, _ = planner.plan(sphere(0.2), planner.init(2, LIMITS, [0, 1]))
    assert (plan.std < 0.1).all()


@pytest.mark.parametrize(
    "options", [{"temperature": 0.0}, {"temperature": -1.0}, {"effective": 0.5}, {"momentum": 1.0}], ids=str
)
def test_impossible_options_are_errors(options):
    with pytest.raises(InputError):
        MPPI(**options)
