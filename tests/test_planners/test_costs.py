"""Costs by hand, and against closed forms."""

import math

import pytest
import torch

from planners import (
    CEM,
    MPC,
    Consistency,
    Effort,
    GoalDistance,
    Imagined,
    InputError,
    LatentCost,
    Limits,
    RateExcess,
    Smoothness,
    Sum,
    from_step,
)

PATHS = torch.tensor([[[[0.0, 0.0], [1.0, 2.0]], [[3.0, 4.0], [3.0, 0.0]]], [[[1.0, 1.0], [1.0, 3.0]]] * 2])
GOALS = torch.tensor([[[3.0, 0.0]], [[1.0, 1.0]]])
SQUARED = torch.tensor([[[9.0, 8.0], [16.0, 0.0]], [[0.0, 4.0]] * 2])  # of each of the two latents to the goal
SPEC = Limits.of(Limits(low=[-4.0, -4.0], high=[4.0, 4.0], std=[0.5, 2.0]))
GENERATOR = torch.Generator().manual_seed(0)
ACTIONS = torch.randn(2, 2, 4, 2, generator=GENERATOR)


def imagined(z=PATHS, goals=GOALS, actions=ACTIONS, start=None):
    start = torch.zeros(len(z), z.shape[-1]) if start is None else start
    return Imagined(z, start, actions, goals, SPEC)


@pytest.mark.parametrize(("running", "terminal"), [(1.0, 0.0), (0.0, 1.0), (0.5, 2.0)])
def test_squared_distance_of_path_and_end(running, terminal):
    expected = running * SQUARED.mean(-1) + terminal * SQUARED[..., 1]
    assert torch.equal(GoalDistance(running=running, terminal=terminal)(imagined()), expected)


@pytest.mark.parametrize("discount", [0.5, 1.0, 3.0])
def test_discount_weighs_the_mean(discount):
    expected = (SQUARED[..., 0] + discount * SQUARED[..., 1]) / (1 + discount)
    torch.testing.assert_close(GoalDistance(discount=discount)(imagined()), expected)


def soft(temperature):
    return GoalDistance(running=0.0, softmin=2.0, temperature=temperature)(imagined())


def test_soft_minimum_goes_from_the_minimum_to_the_mean():
    torch.testing.assert_close(soft(1e-4), 2 * SQUARED.amin(-1), rtol=0, atol=1e-3)
    torch.testing.assert_close(soft(1e4), 2 * SQUARED.mean(-1), rtol=0, atol=0.05)
    a, b = SQUARED.double().unbind(-1)
    exact = -2 * 3.0 * torch.log((torch.exp(-a / 3) + torch.exp(-b / 3)) / 2)
    torch.testing.assert_close(soft(3.0).double(), exact, rtol=1e-5, atol=1e-5)


def test_any_goal_of_a_set_will_do():
    goals = torch.stack([GOALS[:, 0], torch.tensor([[1.0, 2.0], [1.0, 3.0]])], dim=1)
    second = torch.tensor([[[5.0, 0.0], [8.0, 8.0]], [[4.0, 0.0]] * 2])
    cost = GoalDistance(running=1.0, terminal=10.0)(imagined(goals=goals))
    nearest = SQUARED.minimum(second)
    assert torch.equal(cost, nearest.mean(-1) + 10 * nearest[..., 1])
    assert torch.equal(cost, GoalDistance(running=1.0, terminal=10.0)(imagined(goals=goals.flip(1))))


def test_a_learned_metric_is_asked():
    asked = []

    def metric(z, goals):
        asked.append((z, goals))
        return (z - goals[:, :1, None]).abs().sum(-1)

    cost = GoalDistance(running=0.0, terminal=1.0, metric=metric)(imagined())
    assert cost.tolist() == [[4.0, 0.0], [2.0, 2.0]]
    assert torch.equal(asked[0][0], PATHS)
    assert torch.equal(asked[0][1], GOALS)


def test_gradient_points_away_from_the_goal():
    path = PATHS.clone().requires_grad_()
    GoalDistance(running=0.0, terminal=1.0)(imagined(path)).sum().backward()
    assert torch.equal(path.grad[:, :, -1], 2 * (PATHS[:, :, -1] - GOALS))
    assert path.grad[:, :, 0].abs().sum() == 0


def test_distance_without_a_goal_is_an_error():
    with pytest.raises(InputError, match="goal"):
        GoalDistance()(imagined(goals=None))


SCALED = ACTIONS / torch.tensor([0.5, 2.0])


def test_effort_is_the_mean_square_in_units_of_std():
    expected = sum(SCALED[:, :, t, a] ** 2 for t in range(4) for a in range(2)) / 4
    torch.testing.assert_close(Effort()(imagined()), expected)


def test_smoothness_is_of_changes_or_of_changes_of_changes():
    first = [SCALED[:, :, t + 1] - SCALED[:, :, t] for t in range(3)]
    second = [first[t + 1] - first[t] for t in range(2)]
    torch.testing.assert_close(Smoothness()(imagined()), sum(c.square().sum(-1) for c in first) / 3)
    torch.testing.assert_close(Smoothness(order=2)(imagined()), sum(c.square().sum(-1) for c in second) / 2)
    line = torch.arange(4.0).view(1, 1, 4, 1).expand(1, 1, 4, 2)
    assert Smoothness(order=2)(imagined(actions=line)).abs().max() < 1e-10


def test_rate_excess_counts_what_is_above_the_rate():
    actions = torch.tensor([0.0, 1.0, 1.5, -1.0]).view(1, 1, 4, 1)
    torch.testing.assert_close(RateExcess(rate=0.75)(imagined(actions=actions)).item(), (0.25**2 + 1.75**2) / 3)
    assert RateExcess(rate=2.5)(imagined(actions=actions)).item() == 0


@pytest.mark.parametrize("block", [1, 2])
def test_consistency_with_an_inverse_model(block):
    """A point that adds each block's actions: the inverse is known when only one action of a block moves it."""
    actions = ACTIONS.clone()
    if block == 2:
        actions[:, :, 1::2] = 0.0
    start = torch.tensor([[1.0, -1.0], [0.5, 2.0]])
    blocks = actions.unflatten(2, (-1, block)).sum(3)
    z = start[:, None, None] + blocks.cumsum(2)

    def exact(before, after):
        idle = torch.zeros_like(after).repeat_interleave(block - 1, dim=-1) if block > 1 else after[..., :0]
        return torch.cat([after - before, idle], dim=-1)

    right = Consistency(exact)(imagined(z, actions=actions, start=start))
    torch.testing.assert_close(right, torch.zeros(2, 2), rtol=0, atol=1e-10)

    def wrong(before, after):  # reads 0.3 too much in the first number
        return exact(before, after) + 0.3 * (torch.arange(2 * block) == 0)

    expected = (0.3 / 0.5) ** 2 / block  # in units of std, in one action of each block
    got = Consistency(wrong)(imagined(z, actions=actions, start=start))
    torch.testing.assert_close(got, torch.full((2, 2), expected))


def test_consistency_tells_real_from_impossible_paths():
    z = ACTIONS.cumsum(2)
    inverse = Consistency(lambda before, after: after - before)
    assert inverse(imagined(z)).max() < 1e-8
    assert inverse(imagined(z.flip(1))).min() > 0.1


def test_sum_weighs_its_terms():
    cost = Sum(terms=(GoalDistance(), Effort(), Smoothness()), weights=(1.0, 0.5, 2.0))
    terms = cost(imagined())
    parts = [term(imagined()) for term in (GoalDistance(), Effort(), Smoothness())]
    assert torch.equal(terms.values, torch.stack(parts, dim=-1))
    valid = torch.ones(2, 2, dtype=torch.bool)
    torch.testing.assert_close(terms.mix(terms.values, valid), parts[0] + 0.5 * parts[1] + 2 * parts[2])
    assert terms.violation is None


def test_constraints_add_up_what_is_positive():
    cost = Sum(
        constraints=[lambda i: i.z_BSLD[..., 0] - 1, lambda i: i.actions_BSHA.sum((-1, -2)) * 0 - 5], penalty=7.0
    )
    terms = cost(imagined())
    assert terms.violation.tolist() == [[0.0, 4.0], [0.0, 0.0]]
    assert terms.penalty == 7.0
    assert torch.equal(terms.values[..., 0], GoalDistance()(imagined()))


def test_a_constraint_that_is_not_a_number_does_not_count_as_kept():
    terms = Sum(constraints=[lambda i: i.z_BSLD[..., 0] * torch.nan])(imagined())
    assert not (terms.violation <= 0).any()


def obstacle(imagined):
    """Positive inside a disc of radius 0.8 around (2, 0)."""
    return 0.8 - (imagined.z_BSLD - imagined.z_BSLD.new_tensor([2.0, 0.0])).norm(dim=-1)


def test_a_constraint_keeps_an_agent_out_of_an_obstacle():
    dynamics = from_step(lambda state, action: state + action, Limits(low=[-0.5] * 2, high=[0.5] * 2))
    cost = Sum(terms=[GoalDistance()], constraints=[obstacle])
    planner = CEM(horizon=12, samples=256, iterations=8, warm_iterations=4)
    agent = MPC(dynamics, torch.tensor([4.0, 0.0]), cost=cost, planner=planner)
    state, nearest = torch.tensor([0.0, 0.1]), math.inf
    for _ in range(16):
        state = state + agent.act(state)
        nearest = min(nearest, (state - torch.tensor([2.0, 0.0])).norm().item())
        assert agent.last_plan.feasible.all()
    assert nearest > 0.8 - 1e-5
    assert (state - torch.tensor([4.0, 0.0])).norm() < 0.5


@pytest.mark.parametrize("mix", ["sum", "z_score", "std_ratio"])
def test_terms_pass_through_a_latent_cost_row_by_row(mix):
    dynamics = from_step(lambda state, action: state + action, SPEC)
    term = Sum(terms=[GoalDistance(), Effort()], mix=mix, constraints=[obstacle])
    cost = LatentCost(dynamics, torch.zeros(2, 2), GOALS, term)
    apart = cost(ACTIONS)
    cost._at_once = 2  # as on an accelerator
    together = cost(ACTIONS)
    torch.testing.assert_close(together.values, apart.values)
    torch.testing.assert_close(together.violation, apart.violation)


@pytest.mark.parametrize(
    "make",
    [
        lambda: GoalDistance(temperature=0.0),
        lambda: GoalDistance(discount=0.0),
        lambda: Smoothness(order=3),
        lambda: Sum(terms=[Effort()], weights=[1.0, 2.0]),
        lambda: Sum(mix="product"),
    ],
)
def test_impossible_options_are_errors(make):
    with pytest.raises(InputError):
        make()
