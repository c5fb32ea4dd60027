"""The sampling loop: bounds, non-finite costs, independence of rows, seeds, warm starts, deadlines."""

import time
from dataclasses import fields

import pytest
import torch

from planners import CEM, InputError


def sphere(target):
    """Squared distance of every action to `target`: (B, S, H, A) -> (B, S)."""
    return lambda actions: (actions - target).square().sum((-1, -2))


def assert_same_rows(plan, rows, other):
    for name in ("actions", "cost", "std", "failed"):
        assert torch.equal(getattr(plan, name)[rows], getattr(other, name)), name


class Recorder:
    """A cost that keeps all it was asked and answered."""

    def __init__(self, cost):
        self.cost, self.candidates, self.costs = cost, [], []

    def __call__(self, actions):
        self.candidates.append(actions.clone())
        self.costs.append(self.cost(actions))
        return self.costs[-1]


BOUNDS = [([-1.0, -1.0], [1.0, 1.0]), ([-0.1, -3.0], [0.7, 0.3]), ([0.1, -0.9], [0.3, -0.7])]


@pytest.mark.parametrize(("low", "high"), BOUNDS, ids=["symmetric", "asymmetric", "without zero"])
@pytest.mark.parametrize("target", [-50.0, 50.0])
@pytest.mark.parametrize("elites", [3, 7, 12])
def test_bounds_hold_for_all_candidates_and_actions(make_spec, low, high, target, elites):
    spec = make_spec(low, high, std=[2.0, 2.0])
    planner = CEM(horizon=5, samples=64, iterations=8, warm_iterations=4, elites=elites, momentum=0.1)
    state = planner.init(2, spec, seeds=[0, 1])
    cost = Recorder(sphere(target))
    low, high = torch.tensor(low), torch.tensor(high)
    for _ in range(3):
        plan, state = planner.plan(cost, state)
        for actions in (*cost.candidates, plan.actions):
            assert (actions >= low).all()
            assert (actions <= high).all()
        corner = low if target < 0 else high  # the exact optimum: the bound is active
        assert ((plan.actions - corner).abs() / (high - low)).mean() < 0.05
        state = state.shift(2, planner.warm_std)


def test_best_candidate_is_reported_with_its_own_cost(make_spec):
    planner = CEM(horizon=4, samples=32, iterations=5, elites=5)
    cost = Recorder(sphere(0.3))
    plan, _ = planner.plan(cost, planner.init(3, make_spec([-1], [1]), seeds=[1, 2, 3]))
    candidates, costs = torch.cat(cost.candidates, 1), torch.cat(cost.costs, 1)
    assert plan.evaluations == candidates.shape[1] == 5 * 32
    for row in range(3):
        seen = (candidates[row] == plan.actions[row]).all(-1).all(-1)
        assert costs[row][seen].unique().tolist() == [plan.cost[row].item()]
        assert plan.cost[row] == costs[row].min()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_non_finite_costs_never_win(make_spec, bad):
    def cost(actions):  # the best region, above 0.5, is forbidden
        first = actions[..., 0, 0]
        return torch.where(first > 0.5, bad, (first - 0.9).abs())

    planner = CEM(horizon=2, samples=64, iterations=6, elites=8)
    plan, _ = planner.plan(cost, planner.init(2, make_spec([-1], [1]), seeds=[0, 1]))
    assert not plan.failed.any()
    assert (plan.actions[:, 0, 0] <= 0.5).all()
    assert (plan.cost - 0.4).abs().max() < 0.05  # at the edge of what is allowed


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_row_without_finite_candidate_fails_alone(make_spec, bad):
    spec, seeds = make_spec([-1, 0.2], [1, 0.4]), [4, 5, 6]
    planner = CEM(horizon=5, samples=32, iterations=3)
    start = planner.init(3, spec, seeds)

    def broken(actions):
        costs = sphere(0.3)(actions)
        costs[1] = bad
        return costs

    plan, state = planner.plan(broken, start)
    healthy, after = planner.plan(sphere(0.3), start)
    assert plan.failed.tolist() == [False, True, False]
    assert torch.equal(plan.actions[1], start.mean[1])
    others = torch.tensor([0, 2])
    for name in ("actions", "cost", "std"):
        assert torch.equal(getattr(plan, name)[others], getattr(healthy, name)[others]), name
    assert torch.equal(state.mean[others], after.mean[others])
    assert torch.equal(state.mean[1], start.mean[1])


def test_row_recovers_when_finite_candidates_appear(make_spec):
    calls = []

    def cost(actions):
        calls.append(None)
        return sphere(0.5)(actions) if len(calls) > 2 else torch.full(actions.shape[:2], torch.nan)

    planner = CEM(horizon=3, samples=64, iterations=10)
    plan, _ = planner.plan(cost, planner.init(1, make_spec([-1], [1]), seeds=[0]))
    assert not plan.failed.any()
    assert (plan.actions - 0.5).abs().max() < 0.1


@pytest.mark.parametrize(("horizon", "dim", "samples"), [(5, 1, 7), (8, 2, 128), (40, 2, 128), (13, 3, 50)])
def test_rows_are_the_same_bits_alone_and_in_any_batch(make_spec, horizon, dim, samples):
    spec = make_spec([-1.0] * dim, [1.0] * dim)
    planner = CEM(horizon=horizon, samples=samples, iterations=3, elites=5)
    for rows in (2, 3, 5, 8, 17):
        plan, state = planner.plan(sphere(0.3), planner.init(rows, spec, range(rows)))
        for row in {0, rows // 2, rows - 1}:
            alone, state_alone = planner.plan(sphere(0.3), planner.init(1, spec, [row]))
            index = torch.tensor([row])
            assert_same_rows(plan, index, alone)
            assert torch.equal(state.take(index).mean, state_alone.mean)


def test_same_seed_same_plan_other_seed_other_plan(make_spec):
    planner = CEM(horizon=6, samples=16, iterations=2)
    plans = [
        planner.plan(sphere(0.3), planner.init(1, make_spec([-1], [1]), [seed]))[0].actions for seed in (5, 5, 6)
    ]
    assert torch.equal(plans[0], plans[1])
    assert not torch.equal(plans[0], plans[2])


def test_shift_drops_what_was_executed_and_appends_rest(make_spec):
    planner = CEM(horizon=5, samples=32, iterations=3, init_std=0.5)
    spec = make_spec([-1, 0.25], [1, 0.75], std=[0.4, 0.2])
    _, state = planner.plan(sphere(0.6), planner.init(2, spec, [0, 1]))
    shifted = state.shift(2, 0.3)
    assert torch.equal(shifted.mean[:, :3], state.mean[:, 2:])
    rest = torch.tensor([0.0, 0.25])  # zero, moved into the bounds
    assert torch.equal(shifted.mean[:, 3:], rest.expand(2, 2, 2))
    torch.testing.assert_close(shifted.std, (0.3 * 0.5 * torch.tensor([0.4, 0.2])).expand(2, 5, 2))
    assert shifted.replans.tolist() == [1, 1]
    assert torch.equal(shifted.seeds, state.seeds)


def test_warm_start_searches_around_the_shifted_plan(make_spec):
    planner = CEM(horizon=6, samples=32, iterations=8, warm_iterations=2)
    _, state = planner.plan(sphere(0.5), planner.init(1, make_spec([-1], [1]), [0]))
    state = state.shift(2)
    cost = Recorder(sphere(0.5))
    plan, _ = planner.plan(cost, state)
    assert plan.iterations == len(cost.candidates) == 2
    assert torch.equal(cost.candidates[0][:, 0], state.mean)
    assert (plan.cost <= cost.costs[0][:, 0]).all()


def test_fresh_and_warm_rows_in_one_batch_equal_each_alone(make_spec):
    planner = CEM(horizon=6, samples=32, iterations=5, warm_iterations=2)
    spec = make_spec([-1, -1], [1, 1])
    _, warm = planner.plan(sphere(0.3), planner.init(1, spec, [7]))
    warm, fresh = warm.shift(2), planner.init(1, spec, [8])
    both = planner.init(2, spec, [0, 0]).put(torch.tensor([0]), warm).put(torch.tensor([1]), fresh)
    plan, state = planner.plan(sphere(0.3), both)
    for row, alone in enumerate((warm, fresh)):
        expected, after = planner.plan(sphere(0.3), alone)
        assert_same_rows(plan, torch.tensor([row]), expected)
        for name in after.ROWS:
            assert torch.equal(getattr(state.take(torch.tensor([row])), name), getattr(after, name)), name


def test_take_and_put_touch_only_their_rows(make_spec):
    planner = CEM(horizon=3, samples=16, elites=4)
    spec = make_spec([-1], [1])
    _, state = planner.plan(sphere(0.3), planner.init(4, spec, range(4)))
    before = {f.name: getattr(state, f.name).clone() for f in fields(state)}
    rows, kept = torch.tensor([2, 0]), torch.tensor([1, 3])
    fresh = planner.init(2, spec, [20, 21])
    taken, mixed = state.take(rows), state.put(rows, fresh)
    for name in state.ROWS:
        assert torch.equal(getattr(taken, name), before[name][rows]), name
        assert torch.equal(getattr(mixed, name)[rows], getattr(fresh, name)), name
        assert torch.equal(getattr(mixed, name)[kept], before[name][kept]), name
    for name, value in before.items():  # the original state is untouched
        assert torch.equal(getattr(state, name), value), name


@pytest.mark.parametrize(("deadline", "done"), [(0.0, 1), (1.5, 1), (3.5, 3), (100.0, 10), (None, 10)])
def test_deadline_stops_before_the_iteration_that_would_miss_it(make_spec, monkeypatch, deadline, done):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def slow(actions):  # one second per call
        now[0] += 1.0
        return sphere(0.3)(actions)

    planner = CEM(horizon=3, samples=16, iterations=10)
    state = planner.init(1, make_spec([-1], [1]), [0])
    plan, _ = planner.plan(slow, state, deadline_s=deadline)
    assert (plan.iterations, plan.deadline_hit, plan.seconds) == (done, done < 10, float(done))
    monkeypatch.undo()
    planner.iterations = done
    assert torch.equal(plan.actions, planner.plan(sphere(0.3), state)[0].actions)  # the best found so far


def test_deadline_holds_on_the_real_clock(make_spec):
    def slow(actions):
        time.sleep(0.01)
        return sphere(0.3)(actions)

    planner = CEM(horizon=3, samples=16, iterations=300)  # three seconds without the deadline
    plan, _ = planner.plan(slow, planner.init(1, make_spec([-1], [1]), [0]), deadline_s=0.1)
    assert plan.deadline_hit
    assert plan.seconds < 1


@pytest.mark.parametrize("shape", [lambda b, s: (b,), lambda b, s: (s, b), lambda b, s: (b, s, 1)])
def test_cost_of_another_shape_is_an_error(make_spec, shape):
    planner = CEM(horizon=3, samples=16)
    with pytest.raises(InputError, match=r"\(2, 16\)"):
        planner.plan(lambda a: torch.zeros(shape(*a.shape[:2])), planner.init(2, make_spec([-1], [1]), [0, 1]))


@pytest.mark.parametrize(
    "options",
    [
        {"horizon": 0},
        {"samples": 1, "elites": 1},
        {"iterations": 0},
        {"warm_iterations": 0},
        {"correlation": 1.0},
        {"correlation": -0.1},
        {"elites": 0},
        {"elites": 33, "samples": 32},
        {"momentum": 1.0},
        {"momentum": -0.5},
    ],
    ids=str,
)
def test_impossible_options_are_errors(options):
    with pytest.raises(InputError):
        CEM(**options)


def test_one_seed_per_row(make_spec):
    with pytest.raises(InputError, match="2 rows, 3 seeds"):
        CEM().init(2, make_spec([-1], [1]), [0, 1, 2])
