"""Time of a search: predictions on a fake clock, and what the wall clock says."""

import time

import pytest
import torch

from planners import CEM, LBFGS, Adam, Chain, Limits
from planners.clock import Clock

LIMITS = Limits(low=[-1.0], high=[1.0])


def take_time(now, seconds_per_candidate, cost):
    def slow(actions):
        now[0] += seconds_per_candidate * actions.shape[1]
        return cost(actions)

    return slow


def test_phases_add_up(fake_clock):
    clock = Clock()
    for phase, seconds in (("a", 1.0), ("b", 2.0), ("a", 4.0)):
        fake_clock[0] += seconds
        clock.lap(phase)
    assert clock.seconds == {"a": 5.0, "b": 2.0}
    assert clock.elapsed() == 7.0


def test_without_a_deadline_there_is_one_chunk(fake_clock):
    clock = Clock()
    assert list(clock.chunks(1000)) == [slice(0, 1000)]
    fake_clock[0] += 1e9
    assert clock.room()
    assert not clock.hit


def test_chunks_cover_all_candidates_once_and_grow(fake_clock):
    clock, sizes, expected = Clock(deadline_s=1e6), [], 0
    for chunk in clock.chunks(1000):
        assert chunk.start == expected
        expected = chunk.stop
        sizes.append(chunk.stop - chunk.start)
    assert expected == 1000
    assert sizes[0] == Clock.FIRST
    assert sizes[-2] > 8 * Clock.FIRST


@pytest.mark.parametrize("deadline", [0.0, 0.5, 1.0, 3.7, 10.0, 1000.0])
def test_steady_cost_is_never_late_but_for_the_first_chunk(fake_clock, sphere, deadline):
    """One second per candidate: 16 s for the first chunk, whatever the deadline."""
    planner = CEM(horizon=3, samples=64, iterations=5, elites=5)
    state = planner.init(2, LIMITS, [0, 1])
    plan, _ = planner.plan(take_time(fake_clock, 1.0, sphere(0.3)), state, deadline_s=deadline)
    assert plan.timings["total"] <= max(16.0, deadline)
    assert plan.evaluations == fake_clock[0]
    assert plan.evaluations >= (16 if deadline < 32 else min(deadline * 0.9, 320))
    assert plan.deadline_hit == (deadline < 320)
    assert not plan.failed.any()
    torch.testing.assert_close(plan.cost, sphere(0.3)(plan.actions[:, None])[:, 0])


def test_what_was_scored_before_the_deadline_is_the_result(fake_clock, sphere, recorder):
    cost = recorder(take_time(fake_clock, 1.0, sphere(0.3)))
    planner = CEM(horizon=3, samples=64, iterations=5, elites=5)
    plan, after = planner.plan(cost, planner.init(2, LIMITS, [0, 1]), deadline_s=100.0)
    costs = torch.cat(cost.costs, dim=1)
    assert costs.shape[1] == plan.evaluations < 101
    assert torch.equal(plan.cost, costs.amin(1))
    assert not torch.equal(after.mean, torch.zeros(2, 3, 1))  # what was scored was learnt from


def test_a_deadline_that_is_not_reached_changes_nothing_but_chunks(fake_clock, make_planner, sphere):
    planner = make_planner()
    state = planner.init(2, LIMITS, [0, 1])
    free, _ = planner.plan(sphere(0.3), state)
    bound, _ = planner.plan(take_time(fake_clock, 1e-3, sphere(0.3)), state, deadline_s=100.0)
    assert torch.equal(free.actions, bound.actions)
    assert torch.equal(free.cost, bound.cost)
    assert not bound.deadline_hit
    assert bound.evaluations == free.evaluations


@pytest.mark.parametrize("kind", [Adam, LBFGS])
@pytest.mark.parametrize("deadline", [40.0, 90.0, 121.0])
def test_a_descent_of_many_points_can_be_cut_short(fake_clock, sphere, kind, deadline):
    """More starts than a chunk: an iteration of which only a part fits must not lose the others' points."""
    planner = kind(horizon=3, samples=40, iterations=5)
    plan, _ = planner.plan(
        take_time(fake_clock, 1.0, sphere(0.3)), planner.init(2, LIMITS, [0, 1]), deadline_s=deadline
    )
    assert plan.deadline_hit
    assert plan.timings["total"] <= deadline
    assert not plan.failed.any()
    torch.testing.assert_close(plan.cost, sphere(0.3)(plan.actions[:, None])[:, 0])


@pytest.mark.parametrize(("deadline", "second"), [(10.0, 16), (1000.0, 20)])
def test_chain_shares_its_deadline(fake_clock, sphere, deadline, second):
    planner = Chain(
        first=CEM(horizon=3, samples=100, iterations=2, elites=5), then=LBFGS(horizon=3, samples=20, iterations=3)
    )
    slow = take_time(fake_clock, 1.0, sphere(0.3))
    plan, _ = planner.plan(slow, planner.init(1, LIMITS, [0]), deadline_s=deadline)
    assert plan.deadline_hit == (deadline == 10.0)
    assert plan.evaluations >= 16 + second
    assert plan.timings["total"] <= max(deadline, 32)  # the first chunk of each always runs


def test_deadline_holds_on_the_wall_clock(make_planner, sphere):
    """0.2 ms per candidate: without a deadline these searches take a second and more."""
    wait = 2e-4

    def slow(actions):
        time.sleep(wait * actions.shape[1])
        return sphere(0.3)(actions)

    planner = make_planner(samples=100, iterations=2000)
    state = planner.init(1, LIMITS, [0])
    planner.plan(slow, state, deadline_s=0.01)  # the first call of some kernels is slow
    lateness = []
    for deadline in (0.06, 0.1, 0.06):  # another process may stop us at any moment: the best of three
        begin = time.perf_counter()
        plan, _ = planner.plan(slow, state, deadline_s=deadline)
        lateness.append(time.perf_counter() - begin - 1.1 * deadline)
        assert plan.deadline_hit
        assert plan.cost.isfinite().all()
        assert plan.evaluations * wait <= deadline
        assert plan.cost <= sphere(0.3)(state.mean[:, None])[:, 0]
    assert min(lateness) < 0.005


def test_first_chunk_runs_though_there_is_no_time(make_planner, sphere):
    planner = make_planner(samples=100)
    plan, _ = planner.plan(sphere(0.3), planner.init(2, LIMITS, [0, 1]), deadline_s=0.0)
    assert plan.deadline_hit
    assert not plan.failed.any()
    assert 1 <= plan.evaluations <= 16 + 2
    torch.testing.assert_close(plan.cost, sphere(0.3)(plan.actions[:, None])[:, 0])


def test_timings_name_the_phases(make_planner, sphere):
    planner = make_planner()
    plan, _ = planner.plan(sphere(0.3), planner.init(1, LIMITS, [0]))
    parts = [name.rpartition(".")[2] for name in plan.timings]
    assert set(parts) == {"sample", "cost", "update", "total"}
    phases = sum(seconds for name, seconds in plan.timings.items() if not name.endswith("total"))
    assert 0 < phases <= plan.timings["total"]
