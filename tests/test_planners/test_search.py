"""The search loop, with every planner: optima, limits, costs that are not finite, rows, seeds, warm starts."""

from dataclasses import fields, replace

import pytest
import torch

from planners import (
    CEM,
    ICEM,
    LBFGS,
    MPPI,
    PROPOSALS,
    Adam,
    Chain,
    InputError,
    Limits,
    Plan,
    PowerLaw,
    PredictiveSampling,
    Spline,
    Terms,
    mixing,
)

SPEC = Limits(low=[-1.0], high=[1.0])
HORIZON = 10
STEP = torch.tensor([[1.0, 0.2], [0.0, 1.0]])  # double integrator: position, velocity
PUSH = torch.tensor([[0.02], [0.2]])
STARTS = torch.tensor([[1.0, 0.0], [-0.5, 1.0], [0.3, -0.8]])


def lqr_cost(actions, starts=STARTS):
    """Sum of |x|^2 + 0.1 u^2 over the horizon: (B, S, H, 1) -> (B, S)."""
    state = starts[:, None].expand(-1, actions.shape[1], -1).to(actions)
    total = 0
    for action in actions.unbind(2):
        state = state @ STEP.T.to(actions) + action @ PUSH.T.to(actions)
        total = total + state.square().sum(-1) + 0.1 * action.square().sum(-1)
    return total


def lqr_optimum():
    """The unconstrained optimum of the same quadratic, by Newton's step from zero, which is exact."""
    best = []
    for start in STARTS:

        def total(u, start=start):
            return lqr_cost(u.view(1, 1, HORIZON, 1), start[None]).sum()

        zero = torch.zeros(HORIZON, dtype=torch.float64)
        hessian = torch.autograd.functional.hessian(total, zero)
        gradient = torch.autograd.functional.jacobian(total, zero)
        best.append(torch.linalg.solve(hessian, -gradient))
    return torch.stack(best)[:, :, None]


PRECISE = {
    "cem": (CEM(horizon=HORIZON, samples=200, iterations=25, elites=20), 0.02),
    "cem white": (CEM(horizon=HORIZON, samples=300, iterations=30, elites=30, correlation=0.0), 0.02),
    "cem mean": (CEM(horizon=HORIZON, samples=200, iterations=25, elites=20, returns="mean"), 0.02),
    "cem spline": (CEM(horizon=HORIZON, samples=200, iterations=25, elites=20, proposal=Spline()), 0.02),
    "icem": (ICEM(horizon=HORIZON, samples=128, iterations=30, elites=12, decay=1.02, beta=1.0), 0.02),
    "mppi": (MPPI(horizon=HORIZON, samples=200, iterations=25, effective=15), 0.02),
    "predictive sampling": (
        PredictiveSampling(horizon=HORIZON, samples=256, iterations=60, init_std=0.1, knots=10, order=1),
        0.02,
    ),
    "adam": (Adam(horizon=HORIZON, samples=2, iterations=150, half_life=30), 0.001),
    "lbfgs": (LBFGS(horizon=HORIZON, samples=2, iterations=15), 0.001),
    "chain": (
        Chain(
            first=CEM(horizon=HORIZON, samples=64, iterations=4),
            then=LBFGS(horizon=HORIZON, samples=1, iterations=16),
        ),
        0.001,
    ),
}


@pytest.mark.parametrize(("planner", "tolerance"), PRECISE.values(), ids=PRECISE.keys())
def test_linear_quadratic_optimum(planner, tolerance):
    optimum = lqr_optimum()
    assert optimum.abs().max() < 4  # inside the bounds, so it is the optimum of the bounded problem too
    exact = lqr_cost(optimum[:, None])[:, 0]
    plan, _ = planner.plan(lqr_cost, planner.init(3, Limits(low=[-5.0], high=[5.0], std=[2.0]), [0, 1, 2]))
    assert (plan.cost >= exact * (1 - 1e-5)).all()
    assert (plan.cost <= exact * (1 + tolerance)).all()
    torch.testing.assert_close(plan.cost, lqr_cost(plan.actions[:, None])[:, 0])


def obstacle_cost(actions):
    """A point walks from (0, 0) to (4, 0); a disc of radius 1.2 at (2, 0) is in the way. It has a gradient."""
    path = actions.cumsum(2)
    goal, centre = path.new_tensor([4.0, 0.0]), path.new_tensor([2.0, 0.0])
    inside = (1.2 - (path - centre).square().sum(-1).clamp(min=1e-8).sqrt()).clamp(min=0)
    return (path[:, :, -1] - goal).square().sum(-1) + 10.0 * inside.sum(-1)


OBSTACLE = Limits(low=[-1.0, -1.0], high=[1.0, 1.0], std=[0.7, 0.7])
STRONG = {
    "samples": 128,
    "iterations": 30,
    "horizon": 8,
}


@pytest.mark.parametrize("returns", ["best", "mean"])
def test_plan_goes_round_an_obstacle_not_through_the_mean_of_both_ways(make_planner, returns):
    planner = make_planner(**STRONG, returns=returns)
    plan, _ = planner.plan(obstacle_cost, planner.init(10, OBSTACLE, range(10)))
    mirrored = plan.actions * torch.tensor([1.0, -1.0])
    both_ways = torch.stack([plan.actions, mirrored, (plan.actions + mirrored) / 2], dim=1)
    here, mirror, mean = obstacle_cost(both_ways).unbind(1)
    torch.testing.assert_close(plan.cost, here)
    assert (here < 0.5).float().mean() >= 0.9
    assert (here < 2).all()
    torch.testing.assert_close(here, mirror)
    assert (mean > 5).all()  # the average of two good plans hits the disc
    sides = plan.actions.cumsum(1)[:, :, 1].mean(1).sign()
    assert set(sides.tolist()) == {-1.0, 1.0}  # seeds differ in the way they choose


def test_the_mean_of_a_wide_search_is_returned_with_its_own_cost_unless_it_is_impossible(make_sampling_planner):
    """The elites of one iteration go both ways, so their mean runs into the disc: it must say so, or not be it."""

    def solid(actions):
        return torch.where(obstacle_cost(actions) > 5, torch.inf, obstacle_cost(actions))

    options = {"samples": 2000, "iterations": 1, "horizon": 8, "returns": "mean"}
    planner = make_sampling_planner(**options)
    dearer = 0
    for cost in (obstacle_cost, solid):
        plan, state = planner.plan(cost, planner.init(4, OBSTACLE, range(4)))
        assert torch.equal(plan.cost, cost(plan.actions[:, None])[:, 0])
        assert not plan.failed.any()
        dearer += (obstacle_cost(state.mean[:, None])[:, 0] > 5).sum().item()
        if cost is obstacle_cost:
            torch.testing.assert_close(plan.actions, state.mean.clamp(-1, 1))
    if isinstance(planner, CEM | MPPI):
        assert dearer > 0  # else this test shows nothing


@pytest.mark.parametrize("returns", ["best", "mean"])
def test_reported_cost_is_that_of_the_returned_actions(make_planner, returns):
    def rugged(actions):
        return (3 * actions).sin().sum((-1, -2)) + actions.square().sum((-1, -2))

    planner = make_planner(returns=returns)
    state = planner.init(5, SPEC, range(5))
    for _ in range(3):
        plan, state = planner.plan(rugged, state)
        torch.testing.assert_close(plan.cost, rugged(plan.actions[:, None])[:, 0])
        state = state.shift(2)


def test_best_candidate_of_all_is_returned(make_planner, recorder, sphere):
    planner, cost = make_planner(), recorder(sphere(0.3))
    plan, _ = planner.plan(cost, planner.init(3, SPEC, [1, 2, 3]))
    candidates, costs = torch.cat(cost.candidates, 1), torch.cat(cost.costs, 1)
    assert plan.evaluations == candidates.shape[1]
    assert torch.equal(plan.cost, costs.amin(1))
    for row in range(3):
        seen = (candidates[row] == plan.actions[row]).all(-1).all(-1)
        assert costs[row][seen].unique().tolist() == [plan.cost[row].item()]


BOUNDS = [([-1.0, -1.0], [1.0, 1.0]), ([-0.1, -3.0], [0.7, 0.3]), ([0.1, -0.9], [0.3, -0.7])]
EXTRA = {
    "bounds": {},
    "rate": {"rate": [0.07, 0.02]},
    "acceleration": {"acceleration": [0.03, 0.02]},
    "both": {"rate": [0.07, 0.05], "acceleration": [0.03, 0.02]},
}


def assert_within(limits, actions, past):
    """Bounds exactly, rate and acceleration up to rounding."""
    assert (actions >= limits.low).all()
    assert (actions <= limits.high).all()
    whole = torch.cat([past[:, None].expand(-1, actions.shape[1], -1, -1), actions], dim=2)
    rounding = 1e-5 * (limits.high - limits.low)
    for most, change in ((limits.rate, whole.diff(dim=2)[:, :, 1:]), (limits.acceleration, whole.diff(n=2, dim=2))):
        if most is not None:
            assert (change.abs() <= most + rounding).all()


def check_limits(planner, limits, cost, past):
    limits = Limits.of(limits)
    state = replace(planner.init(2, limits, [0, 1]), past=past)
    for _ in range(2):
        plan, after = planner.plan(cost, state)
        for actions in (*cost.candidates, plan.actions[:, None]):
            assert_within(limits, actions, state.past)
        cost.candidates.clear()
        state = replace(after.shift(2), past=plan.actions[:, :2])
    return plan


@pytest.mark.parametrize("extra", EXTRA.values(), ids=EXTRA.keys())
@pytest.mark.parametrize("returns", ["best", "mean"])
def test_limits_hold_for_all_candidates_and_actions(make_planner, recorder, sphere, extra, returns):
    """In symmetric and asymmetric bounds, and in some without zero."""
    planner = make_planner(horizon=6, returns=returns, init_std=4.0)
    for low, high in BOUNDS:
        middle = (torch.tensor(low) + torch.tensor(high)) / 2
        past = torch.stack([middle, middle + 0.01]).expand(2, -1, -1)
        for target in (50.0, -50.0):
            check_limits(planner, Limits(low=low, high=high, **extra), recorder(sphere(target)), past)


@pytest.mark.parametrize("name", sorted({*PROPOSALS} - {"categorical"}))
def test_limits_hold_with_every_proposal(recorder, sphere, name):
    planner = CEM(horizon=6, samples=24, iterations=3, elites=5, proposal=PROPOSALS[name](), carry=3, keep=2)
    limits = Limits(low=[-0.5, 0.0], high=[1.0, 1.0], rate=[0.2, 0.3], acceleration=[0.1, 0.3])
    check_limits(planner, limits, recorder(sphere(50.0)), torch.full((2, 2, 2), 0.5))


def test_an_optimum_at_the_bound_is_found(make_planner, sphere):
    planner = make_planner(iterations=20, samples=64)
    plan, _ = planner.plan(sphere(50.0), planner.init(2, SPEC, [0, 1]))
    assert (plan.actions - 1).abs().mean() < 0.05


def test_committed_actions_begin_every_candidate(make_planner, recorder, sphere):
    limits = Limits(low=[-1.0], high=[1.0], rate=[0.25])
    committed = torch.tensor([[[0.25], [0.5]], [[-0.25], [-0.25]]])
    planner, cost = make_planner(), recorder(sphere(0.9))
    state = planner.init(2, limits, [0, 1])
    plan, _ = planner.plan(cost, state, committed=committed)
    for actions in (*cost.candidates, plan.actions[:, None]):
        assert torch.equal(actions[:, :, :2], committed[:, None].expand(-1, actions.shape[1], -1, -1))
        assert_within(Limits.of(limits), actions, state.past)
    assert (plan.actions[:, 2] > committed[:, 1]).all()  # towards 0.9, from what is committed


BAD = pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])


@BAD
def test_non_finite_costs_never_win(make_planner, bad):
    def cost(actions):  # the best region, above 0.5, is forbidden
        first = actions[..., 0, 0]
        return torch.where(first > 0.5, bad, (first - 0.9).square())

    planner = make_planner(horizon=2, samples=64, iterations=12)
    plan, state = planner.plan(cost, planner.init(2, SPEC, [0, 1]))
    assert not plan.failed.any()
    assert (plan.actions[:, 0, 0] <= 0.5).all()
    assert (plan.cost < 0.25).all()  # nearer to the edge of what is allowed, at 0.16, than 0.4
    assert state.mean.isfinite().all()


@BAD
def test_row_without_finite_candidate_fails_alone(make_planner, sphere, bad):
    spec = Limits(low=[-1.0, 0.2], high=[1.0, 0.4])
    planner = make_planner()
    start = planner.init(3, spec, [4, 5, 6])
    sick = torch.tensor([False, True, False])[:, None]

    def broken(actions):
        return torch.where(sick, bad, sphere(0.3)(actions))

    plan, state = planner.plan(broken, start)
    healthy, after = planner.plan(sphere(0.3), start)
    assert plan.failed.tolist() == [False, True, False]
    assert plan.feasible.tolist() == [True, False, True]
    assert torch.equal(plan.actions[1], start.mean[1])
    others = torch.tensor([0, 2])
    for name in ("actions", "cost", "std"):
        assert torch.equal(getattr(plan, name)[others], getattr(healthy, name)[others]), name
    assert torch.equal(state.mean[others], after.mean[others])
    assert torch.equal(state.mean[1], start.mean[1])
    recovered, _ = planner.plan(sphere(0.3), state)
    assert not recovered.failed.any()


@BAD
def test_an_iteration_without_finite_candidates_moves_nothing(make_planner, sphere, bad):
    """The search goes on from where it was; its mean must not become not-a-number, or the mean of nothing."""
    calls = []

    def cost(actions):
        calls.append(None)
        good = sphere(0.5)(actions)
        return good if len(calls) == 1 else torch.where(good < torch.inf, bad, good)

    planner = make_planner(iterations=3)
    if isinstance(planner, Chain):
        planner = planner.first
    planner.iterations = 1
    once, expected = planner.plan(cost, planner.init(2, SPEC, [0, 1]))
    calls.clear()
    planner.iterations = 3
    plan, state = planner.plan(cost, planner.init(2, SPEC, [0, 1]))
    assert len(calls) == 3
    assert torch.equal(plan.actions, once.actions)
    assert torch.equal(plan.cost, once.cost)
    assert state.mean.isfinite().all()
    if not (planner.gradient or planner.keep):  # a descent stands where it is; what is kept is learnt from
        assert torch.equal(state.mean, expected.mean)
        assert torch.equal(state.std, expected.std)


def test_row_recovers_when_finite_candidates_appear(make_sampling_planner, sphere):
    calls = []

    def cost(actions):
        calls.append(None)
        return sphere(0.5)(actions) if len(calls) > 2 else torch.full(actions.shape[:2], torch.nan)

    planner = make_sampling_planner(horizon=3, samples=64, iterations=20)
    plan, _ = planner.plan(cost, planner.init(1, SPEC, [0]))
    assert not plan.failed.any()
    assert (plan.actions - 0.5).abs().max() < 0.15


def adversarial(actions):
    """Sums below -2 are forbidden and a thousand times cheaper than anything allowed."""
    total = actions.sum((-1, -2))
    violation = (-2 - total).clamp(min=0)
    value = torch.where(violation > 0, -1e6, (total - 1).square())
    return Terms(value[..., None], mixing.Mixer(), violation, penalty=1e7)


@pytest.mark.parametrize("returns", ["best", "mean"])
def test_an_infeasible_plan_never_beats_a_feasible_one(make_planner, returns):
    planner = make_planner(returns=returns, init_std=2.0)
    state = planner.init(4, SPEC, range(4))
    state = replace(state, mean=torch.full_like(state.mean, -1.0))  # starts where it is forbidden
    for _ in range(2):
        plan, state = planner.plan(adversarial, state)
        answer = adversarial(plan.actions[:, None])
        assert plan.feasible.all()
        assert (answer.violation[:, 0] == 0).all()
        torch.testing.assert_close(plan.cost, answer.values[:, 0, 0])


def test_where_nothing_is_feasible_the_least_violation_is_returned(make_sampling_planner, recorder):
    def cost(actions):
        total = actions.sum((-1, -2))
        return Terms(-total[..., None].square() * 1e4, mixing.Mixer(), 10 + total)

    planner, seen = make_sampling_planner(), recorder(cost)
    plan, _ = planner.plan(seen, planner.init(3, SPEC, range(3)))
    assert not plan.feasible.any()
    assert not plan.failed.any()
    least = torch.cat([answer.violation for answer in seen.costs], dim=1).amin(1)
    torch.testing.assert_close(cost(plan.actions[:, None]).violation[:, 0], least)


@BAD
def test_violations_that_are_not_finite_count_as_a_bad_cost(make_sampling_planner, bad):
    def cost(actions):
        first = actions[..., 0, 0]
        violation = torch.where(first > 0.5, bad, torch.zeros_like(first))
        return Terms((first - 0.9).square()[..., None], mixing.Mixer(), violation)

    planner = make_sampling_planner(horizon=2, samples=64)
    plan, _ = planner.plan(cost, planner.init(2, SPEC, [0, 1]))
    assert plan.feasible.all()
    assert (plan.actions[:, 0, 0] <= 0.5).all()


def assert_same_rows(plan, rows, other):
    for name in ("actions", "cost", "std", "failed", "feasible", "converged"):
        assert torch.equal(getattr(plan, name)[rows], getattr(other, name)), name


def assert_rows_alone(planner, cost, spec, counts):
    alone = {}
    for rows in counts:
        plan, state = planner.plan(cost, planner.init(rows, spec, range(rows)))
        for row in {0, rows // 2, rows - 1}:
            if row not in alone:
                alone[row] = planner.plan(cost, planner.init(1, spec, [row]))
            index = torch.tensor([row])
            assert_same_rows(plan, index, alone[row][0])
            for name in state.ROWS:
                assert torch.equal(getattr(state.take(index), name), getattr(alone[row][1], name)), name


@pytest.mark.parametrize(("horizon", "dim", "samples"), [(5, 1, 9), (13, 3, 50), (40, 2, 128)])
def test_rows_are_the_same_bits_alone_and_in_any_batch(make_planner, sphere, horizon, dim, samples):
    planner = make_planner(horizon=horizon, samples=samples)
    spec = Limits(low=[-1.0] * dim, high=[1.0] * dim, rate=[0.3] * dim if dim == 3 else None)
    assert_rows_alone(planner, sphere(0.3), spec, (1, 2, 3, 5, 8, 17) if horizon < 40 else (2, 17))


@pytest.mark.parametrize("name", sorted(PROPOSALS))
@pytest.mark.parametrize("returns", ["best", "mean"])
def test_rows_are_the_same_bits_with_every_proposal(sphere, name, returns):
    proposal = PROPOSALS[name]()
    planner = CEM(horizon=7, samples=21, iterations=3, elites=5, proposal=proposal, carry=2, returns=returns)
    assert_rows_alone(planner, sphere(0.3), Limits(low=[0.0] * 3, high=[1.0] * 3), (1, 2, 3, 5, 8, 17))


@pytest.mark.parametrize("mix", ["z_score", "std_ratio"])
def test_rows_are_the_same_bits_with_mixed_terms(make_sampling_planner, mix):
    def cost(actions):
        first, second = actions.square().sum((-1, -2)), (actions - 0.5).abs().sum((-1, -2))
        return Terms(torch.stack([first, 10 * second], -1), mixing.Mixer(mix), (second - 3).clamp(min=0))

    assert_rows_alone(make_sampling_planner(horizon=7, samples=33), cost, SPEC, (1, 2, 3, 5, 8, 17))


def test_same_seed_same_plan_other_seed_other_plan(make_planner, sphere):
    planner = make_planner(iterations=1)
    before = torch.get_rng_state()
    plans = [
        planner.plan(sphere(torch.linspace(-0.8, 0.8, 5)[:, None]), planner.init(1, SPEC, [s]))[0]
        for s in (5, 5, 6, 2**40)
    ]
    assert torch.equal(before, torch.get_rng_state())
    actions = [plan.actions for plan in plans]
    assert torch.equal(actions[0], actions[1])
    if isinstance(planner, CEM | MPPI | PredictiveSampling):  # a descent from the mean may win whatever the seed
        assert not torch.equal(actions[0], actions[2])
        assert not torch.equal(actions[2], actions[3])


def test_the_global_seed_does_not_matter(make_planner, sphere):
    planner, plans = make_planner(), []
    for seed in (0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            plans.append(planner.plan(sphere(0.3), planner.init(2, SPEC, [0, 1]))[0].actions)
    assert torch.equal(*plans)


def test_iterations_and_replans_draw_new_noise(make_sampling_planner, recorder, sphere):
    planner, cost = make_sampling_planner(warm_iterations=2), recorder(lambda a: 0 * sphere(0.0)(a))
    state = planner.init(1, SPEC, [0])
    for _ in range(2):
        _, state = planner.plan(cost, state)
        state = replace(state, mean=torch.zeros_like(state.mean), std=planner.init(1, SPEC, [0]).std)
    last = [candidates[0, -1] for candidates in cost.candidates]
    assert len({tuple(draw.flatten().tolist()) for draw in last}) == len(last) == 5


def test_shift_drops_what_was_executed_and_appends_rest(sphere):
    planner = CEM(horizon=5, samples=32, iterations=3, init_std=0.5, carry=3)
    spec = Limits(low=[-1, 0.25], high=[1, 0.75], std=[0.4, 0.2])
    _, state = planner.plan(sphere(0.6), planner.init(2, spec, [0, 1]))
    rest = torch.tensor([0.0, 0.25])  # zero, moved into the bounds
    for steps in (0, 2, 5, 9):
        shifted, left = state.shift(steps, 0.3), max(0, 5 - steps)
        for before, after in ((state.mean, shifted.mean), (state.kept, shifted.kept)):
            assert torch.equal(after[..., :left, :], before[..., 5 - left :, :])
            assert torch.equal(after[..., left:, :], rest.expand_as(after[..., left:, :]))
        torch.testing.assert_close(shifted.std, (0.3 * 0.5 * torch.tensor([0.4, 0.2])).expand(2, 5, 2))
        assert shifted.replans.tolist() == [1, 1]
        assert torch.equal(shifted.seeds, state.seeds)


def test_warm_start_searches_around_the_shifted_plan(make_sampling_planner, recorder, sphere):
    planner = make_sampling_planner(horizon=6, iterations=8, warm_iterations=2)
    _, state = planner.plan(sphere(0.5), planner.init(1, SPEC, [0]))
    state = state.shift(2)
    cost = recorder(sphere(0.5))
    plan, _ = planner.plan(cost, state)
    assert plan.iterations == len(cost.candidates) == 2
    assert torch.equal(cost.candidates[0][:, 0], state.mean.clamp(-1, 1))
    assert torch.equal(cost.candidates[0][:, 1], torch.zeros(1, 6, 1))  # and doing nothing
    assert (plan.cost <= cost.costs[0][:, 0]).all()


def test_first_candidates_of_a_descent_are_the_mean_and_rest(recorder, sphere):
    for kind in (Adam, LBFGS):
        planner, cost = kind(horizon=3, samples=4, iterations=2), recorder(sphere(0.5))
        state = replace(planner.init(1, SPEC, [0]), mean=torch.full((1, 3, 1), 0.25))
        planner.plan(cost, state)
        assert cost.candidates[0][0, 0].tolist() == [[0.25]] * 3
        assert cost.candidates[0][0, 1].tolist() == [[0.0]] * 3


@pytest.mark.parametrize("carry", [0, 3])
def test_fresh_and_warm_rows_in_one_batch_equal_each_alone(make_planner, sphere, carry):
    options = {"carry": carry}
    planner = make_planner(horizon=6, iterations=5, **options)
    _, warm = planner.plan(sphere(0.3), planner.init(1, SPEC, [7]))
    warm, fresh = warm.shift(2), planner.init(1, SPEC, [8])
    both = planner.init(2, SPEC, [0, 0]).put(torch.tensor([0]), warm).put(torch.tensor([1]), fresh)
    plan, state = planner.plan(sphere(0.3), both)
    for row, alone in enumerate((warm, fresh)):
        expected, after = planner.plan(sphere(0.3), alone)
        assert_same_rows(plan, torch.tensor([row]), expected)
        for name in after.ROWS:
            assert torch.equal(getattr(state.take(torch.tensor([row])), name), getattr(after, name)), name


def test_take_and_put_touch_only_their_rows(sphere):
    planner = CEM(horizon=3, samples=16, elites=4, carry=2)
    _, state = planner.plan(sphere(0.3), planner.init(4, SPEC, range(4)))
    before = {f.name: getattr(state, f.name) for f in fields(state)}
    before = {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in before.items()}
    rows, kept = torch.tensor([2, 0]), torch.tensor([1, 3])
    fresh = planner.init(2, SPEC, [20, 21])
    taken, mixed = state.take(rows), state.put(rows, fresh)
    for name in state.ROWS:
        assert torch.equal(getattr(taken, name), before[name][rows]), name
        assert torch.equal(getattr(mixed, name)[rows], getattr(fresh, name)), name
        assert torch.equal(getattr(mixed, name)[kept], before[name][kept]), name
    for name in state.ROWS:  # the original state is untouched
        assert torch.equal(getattr(state, name), before[name]), name


def test_fuse_is_the_product_of_two_gaussians():
    planner = CEM(horizon=3)
    state = planner.init(2, Limits(low=[-4.0], high=[4.0], std=[2.0]), [0, 1])
    state = replace(state, mean=torch.full((2, 3, 1), 1.0), std=torch.full((2, 3, 1), 0.5))
    prior_mean, prior_std = torch.full((2, 3, 1), -1.0), torch.full((2, 3, 1), 0.25)
    fused = state.fuse(prior_mean, prior_std)
    grid = torch.linspace(-4, 4, 200_001, dtype=torch.float64)  # multiply the densities and integrate
    density = torch.exp(-(((grid - 1) / 0.5) ** 2) / 2 - ((grid + 1) / 0.25) ** 2 / 2)
    mean = (density * grid).sum() / density.sum()
    std = ((density * (grid - mean) ** 2).sum() / density.sum()).sqrt()
    torch.testing.assert_close(fused.mean.double(), mean.expand(2, 3, 1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(fused.std.double(), std.expand(2, 3, 1), rtol=1e-5, atol=1e-6)
    for name in ("kept", "past", "seeds", "replans"):
        assert torch.equal(getattr(fused, name), getattr(state, name)), name


def test_a_confident_prior_dominates_and_a_vague_one_changes_nothing():
    state = CEM(horizon=3).init(1, Limits(low=[-4.0], high=[4.0], std=[2.0]), [0])
    target = torch.full((1, 3, 1), 1.5)
    sure = state.fuse(target, torch.full((1, 3, 1), 1e-9))
    torch.testing.assert_close(sure.mean, target, rtol=0.003, atol=0)  # the floor is a twentieth of the std
    torch.testing.assert_close(sure.std, torch.full((1, 3, 1), 0.1), rtol=0.003, atol=0)
    surest = state.fuse(target, torch.full((1, 3, 1), 1e-9), floor=1e-4)
    torch.testing.assert_close(surest.std, torch.full((1, 3, 1), 2e-4), rtol=0.003, atol=0)
    vague = state.fuse(target, torch.full((1, 3, 1), 1e9))
    torch.testing.assert_close(vague.mean, state.mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(vague.std, state.std, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 3, 1), (1, 4, 1), (1, 3, 2), (3, 1)])
def test_a_prior_of_another_shape_is_an_error(shape):
    state = CEM(horizon=3).init(1, SPEC, [0])
    right, wrong = torch.ones(1, 3, 1), torch.ones(shape)
    for mean, std in ((wrong, right), (right, wrong)):
        with pytest.raises(InputError, match=r"\(1, 3, 1\)"):
            state.fuse(mean, std)


@pytest.mark.parametrize("kind", [CEM, MPPI, ICEM])
def test_schedule_sets_the_population_of_each_iteration(kind, recorder, sphere):
    planner, cost = kind(horizon=4, schedule=(300, 150, 64), iterations=5), recorder(sphere(0.3))
    plan, _ = planner.plan(cost, planner.init(2, SPEC, [0, 1]))
    assert [tuple(candidates.shape) for candidates in cost.candidates] == [
        (2, count, 4, 1) for count in (300, 150, 64, 64, 64)
    ]
    assert plan.evaluations == 300 + 150 + 3 * 64
    assert plan.iterations == 5


def test_rows_stop_when_they_have_converged_alone_and_in_a_batch(recorder):
    """Row 0 has one optimum, row 1 has eight, far apart: one converges soon and the other does not."""

    def cost_of(rows):
        def cost(actions):
            steep, torn = (actions - 0.3).square().sum((-1, -2)), -actions.abs().sum((-1, -2))
            return torch.where(rows[:, None] == 0, steep, torn)

        return cost

    options = {"horizon": 3, "samples": 64, "iterations": 5, "elites": 8, "min_std": 0.001}
    planner, everyone = CEM(**options, stop_std=0.2), torch.arange(2)
    state = planner.init(2, SPEC, [0, 1])
    plan, after = planner.plan(cost_of(everyone), state)
    assert plan.converged.tolist() == [True, False]
    assert plan.iterations == 5
    assert (plan.std[0] < 0.2 * 0.5).all()
    for row in range(2):
        index = torch.tensor([row])
        seen = recorder(cost_of(index))
        expected, end = planner.plan(seen, state.take(index))
        assert_same_rows(plan, index, expected)
        assert torch.equal(after.mean[index], end.mean)
        assert expected.iterations == len(seen.candidates)
        assert (expected.iterations < 5) == (row == 0)
    endless, _ = CEM(**options).plan(cost_of(everyone), state)
    assert not endless.converged.any()
    assert endless.std[0].max() < 0.5 * plan.std[0].min()


def test_std_never_falls_below_its_floor(sphere):
    planner = CEM(horizon=3, samples=64, iterations=40, elites=4, min_std=0.05)
    plan, _ = planner.plan(sphere(0.2), planner.init(1, Limits(low=[-1, 0], high=[3, 1]), [0]))
    torch.testing.assert_close(plan.std, torch.tensor([0.2, 0.05]).expand(1, 3, 2))


def test_init_std_is_in_units_of_the_spec():
    state = PredictiveSampling(horizon=2, init_std=0.5).init(1, Limits(low=[-1], high=[3], std=[0.4]), [0])
    torch.testing.assert_close(state.std, torch.full((1, 2, 1), 0.2))


@pytest.mark.parametrize("shape", [lambda b, s: (b,), lambda b, s: (s, b), lambda b, s: (b, s, 1)])
def test_cost_of_another_shape_is_an_error(shape):
    planner = CEM(horizon=3, samples=16)
    with pytest.raises(InputError, match=r"\(2, 16\)"):
        planner.plan(lambda a: torch.zeros(shape(*a.shape[:2])), planner.init(2, SPEC, [0, 1]))


@pytest.mark.parametrize(
    "options",
    [
        {"horizon": 0},
        {"samples": 1, "elites": 1},
        {"schedule": (64, 1), "elites": 1},
        {"iterations": 0},
        {"warm_iterations": 0},
        {"correlation": 1.0},
        {"correlation": -0.1},
        {"elites": 0},
        {"elites": 33, "samples": 32},
        {"elites": 33, "schedule": (64, 32)},
        {"momentum": 1.0},
        {"momentum": -0.5},
        {"returns": "median"},
        {"keep": -1},
        {"carry": -1},
    ],
    ids=str,
)
def test_impossible_options_are_errors(options):
    with pytest.raises(InputError):
        CEM(**options)


def test_one_seed_per_row():
    with pytest.raises(InputError, match="2 rows, 3 seeds"):
        CEM().init(2, SPEC, [0, 1, 2])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_costs_of_another_precision_do(make_sampling_planner, sphere, dtype):
    planner = make_sampling_planner()
    plan, _ = planner.plan(lambda a: sphere(0.3)(a).to(dtype), planner.init(1, SPEC, [0]))
    assert plan.cost.dtype == plan.actions.dtype == torch.float32


def test_a_plan_is_a_function_of_time():
    actions = torch.tensor([[[0.0, 10.0], [1.0, 20.0], [4.0, 0.0]]])
    zeros = torch.zeros(1)
    plan = Plan(actions, zeros, actions, zeros > 0, zeros > 0, zeros > 0, 1, 1, False, {})
    for step, held, linear in (
        (0, [0, 10], [0, 10]),
        (0.25, [0, 10], [0.25, 12.5]),
        (1, [1, 20], [1, 20]),
        (1.5, [1, 20], [2.5, 10]),
        (2, [4, 0], [4, 0]),
        (2.75, [4, 0], [4, 0]),
        (99.0, [4, 0], [4, 0]),
    ):
        assert plan.action(step)[0].tolist() == held
        assert plan.action(step, interpolate=True)[0].tolist() == linear


def test_noise_of_a_planner_is_that_of_its_proposal(recorder, sphere):
    """The first population of a search without limits has the covariance of the proposal."""
    wide = Limits(low=[-1e6], high=[1e6], std=[1.0])
    planner, cost = CEM(horizon=4, samples=20_000, iterations=1, proposal=PowerLaw(beta=2.0)), recorder(sphere(0.0))
    planner.plan(cost, planner.init(1, wide, [0]))
    drawn = cost.candidates[0][0, 2:, :, 0].double()
    basis = PowerLaw(beta=2.0).basis(4).double()
    assert (drawn.T @ drawn / len(drawn) - basis @ basis.T).abs().max() < 0.05
