"""MPC that never waits: which plan acts when, with searches that end when the test says so."""

import concurrent.futures
import threading
import time

import pytest
import torch

from planners import CEM, BackgroundMPC, InputError, Limits, PlannerFailure, from_step

LIMITS = Limits(low=[-1.0], high=[1.0])
PLANNER = {"horizon": 8, "samples": 32, "iterations": 3, "elites": 6}
PATIENCE = 20  # seconds until a test that hangs fails


class World:
    """A point that moves by its actions; searches in the background wait at `gate`, and may be made to fail."""

    def __init__(self):
        self.gate, self.error, self.searches = threading.Event(), None, 0
        self.gate.set()

    def step(self, state, action):
        if threading.current_thread().name.startswith("planner"):
            assert self.gate.wait(PATIENCE)
            if self.error is not None:
                raise self.error
        return state + action

    def cost(self, imagined):
        self.searches += 1
        return (imagined.z_BSLD - 3.0).square().sum(-1).mean(-1)


@pytest.fixture
def world():
    return World()


@pytest.fixture
def make_agent(world):
    """Options -> agent; all are ended after the test."""
    agents = []

    def make(*, took=None, limits=LIMITS, planner=None, **options):
        planner = CEM(**PLANNER) if planner is None else planner
        options = {"dt": 1.0, "cost": world.cost, "replan_every": 1} | options
        agents.append(BackgroundMPC(from_step(world.step, limits), planner=planner, **options))
        if took is not None:  # as if the last searches had taken so long
            agents[-1]._took.append(took)
        return agents[-1]

    yield make
    world.gate.set()
    world.error = None
    for agent in agents:
        agent._worker.shutdown()


def finish(agent, world):
    """Let the running search end, and wait for it."""
    world.gate.set()
    concurrent.futures.wait([agent._running.future], timeout=PATIENCE)
    world.gate.clear()


STATE = torch.zeros(1)


def test_a_plan_enters_at_the_step_it_is_for_and_begins_with_what_was_committed(make_agent, world):
    agent = make_agent(took=2.5)  # three steps are committed
    world.gate.clear()
    assert torch.equal(agent.act(STATE), agent.last_plan.actions[0, 0])
    first = agent.last_plan
    for step in (1, 2, 3):  # the search starts at step 1
        assert torch.equal(agent.act(STATE), first.actions[0, step])
    finish(agent, world)
    fourth = agent.act(STATE)
    second = agent.last_plan
    assert second is not first
    assert torch.equal(second.actions[0, :3], first.actions[0, 1:4])
    assert torch.equal(fourth, second.actions[0, 3])
    assert not torch.equal(second.actions[0, 3:7], first.actions[0, 4:8])
    assert torch.equal(agent.act(STATE), second.actions[0, 4])


def test_a_plan_that_is_early_waits_for_nothing(make_agent, world):
    """Three steps were committed, the search took one: the plan enters at once, at its second step."""
    agent = make_agent(took=2.5)
    agent.act(STATE)
    first = agent.last_plan
    agent.act(STATE)
    finish(agent, world)
    action = agent.act(STATE)
    assert torch.equal(action, agent.last_plan.actions[0, 1])
    assert torch.equal(action, first.actions[0, 2])


def test_a_late_plan_enters_where_time_is_now(make_agent, world):
    agent = make_agent(took=0.5)  # one step is committed, the search takes four
    world.gate.clear()
    for _ in range(5):
        agent.act(STATE)
    finish(agent, world)
    assert torch.equal(agent.act(STATE), agent.last_plan.actions[0, 4])


@pytest.mark.parametrize(
    "extra", [{"rate": [0.1]}, {"acceleration": [0.05]}, {"rate": [0.1], "acceleration": [0.05]}], ids=str
)
def test_limits_hold_though_a_plan_is_late(make_agent, world, extra):
    """The late plan was made for other actions than those that were done in the meantime."""
    limits = Limits(low=[-1.0], high=[1.0], **extra)
    agent = make_agent(took=0.5, limits=limits, fallback="hold")
    world.gate.clear()
    state, actions = torch.zeros(1), [torch.zeros(1)] * 2
    for step in range(24):
        if step == 6:
            state = torch.full((1,), 9.0)  # pushed to the other side: the next plans turn round
        if step % 4 == 3:
            finish(agent, world)
        actions.append(agent.act(state))
    done = torch.stack(actions)[:, 0]
    assert (done.diff() < -0.02).any()  # it does turn round
    for most, change in ((limits.rate, done.diff()), (limits.acceleration, done.diff(n=2))):
        if most is not None:
            assert change.abs().max() <= most[0] + 2e-5


@pytest.mark.parametrize("replan_every", [1, 3])
def test_search_starts_every_so_many_steps_and_one_at_a_time(make_agent, world, replan_every):
    agent = make_agent(took=0.5, replan_every=replan_every)
    starts = []
    for step in range(8):
        before = agent._running
        agent.act(STATE)
        if agent._running is not None and agent._running is not before:
            starts.append(step)
        if agent._running is not None:
            finish(agent, world)
            world.gate.set()
    # a plan of the search that starts at step n enters at n + 1 as its step 1: the next starts replan_every later
    assert starts == {1: [1, 2, 3, 4, 5, 6, 7], 3: [3, 6]}[replan_every]


def test_act_never_waits_after_the_first(make_agent, world):
    agent = make_agent(took=0.5, fallback="hold")
    agent.act(STATE)
    world.gate.clear()  # the search cannot end
    longest = 0.0
    for _ in range(30):
        begin = time.perf_counter()
        agent.act(STATE)
        longest = max(longest, time.perf_counter() - begin)
    assert not agent._running.future.done()
    assert longest < 0.1


def test_act_does_not_wait_for_a_slow_search(world):
    """A real one: a search of 40 ms and more, in a loop of 10 ms."""

    def slow(state, action):
        if threading.current_thread().name.startswith("planner"):
            time.sleep(0.005)
        return state + action

    with BackgroundMPC(
        from_step(slow, LIMITS), cost=world.cost, planner=CEM(**PLANNER), dt=0.01, replan_every=1, fallback="hold"
    ) as agent:
        agent._took.append(0.04)
        agent.act(STATE)
        plans, waits = [agent.last_plan], []
        while len(waits) < 20 or (len(plans) < 3 and len(waits) < 500):
            begin = time.perf_counter()
            agent.act(STATE)
            waits.append(time.perf_counter() - begin)
            if agent.last_plan is not plans[-1]:
                plans.append(agent.last_plan)
            time.sleep(max(0.0, 0.01 - waits[-1]))
    assert sorted(waits)[len(waits) // 2] < 0.02  # the median: a busy machine may stop any thread for a while
    assert len(plans) > 2


def test_fallback_acts_when_the_plan_has_run_out(make_agent, world):
    asked = []

    def fallback(observations):
        asked.append(observations)
        return torch.full((1, 1), 5.0)

    agent = make_agent(took=0.5, fallback=fallback)
    world.gate.clear()
    for step in range(8):
        action = agent.act(STATE)
        assert torch.equal(action, agent.last_plan.actions[0, step])
    assert not asked
    for count in (1, 2):
        assert agent.act(STATE + 7).tolist() == [1.0]  # within the bounds
        assert len(asked) == count
        assert asked[-1].tolist() == [[7.0]]
    finish(agent, world)  # too late to be of use: for the steps 1 to 8, and this is step 10
    assert agent.act(STATE).tolist() == [1.0]
    finish(agent, world)  # but the next search, started at step 10, is
    action = agent.act(STATE)
    assert torch.equal(action, agent.last_plan.actions[0, 1])


def test_a_plan_that_has_run_out_without_fallback_is_an_error(make_agent, world):
    agent = make_agent(took=0.5)
    world.gate.clear()
    for _ in range(8):
        agent.act(STATE)
    with pytest.raises(PlannerFailure):
        agent.act(STATE)


def test_an_error_of_the_search_surfaces_once_and_can_be_recovered_from(make_agent, world):
    agent = make_agent(took=0.5)
    agent.act(STATE)
    world.error = ZeroDivisionError("in the model")
    agent.act(STATE)
    finish(agent, world)
    with pytest.raises(ZeroDivisionError, match="in the model"):
        agent.act(STATE)
    world.error = None
    world.gate.set()
    for _ in range(3):
        assert agent.act(STATE).isfinite().all()
    agent.reset()
    assert agent.act(STATE).isfinite().all()


@pytest.mark.parametrize("end", ["reset", "close"])
def test_an_error_of_a_search_nobody_waits_for_is_dropped(make_agent, world, end):
    agent = make_agent(took=0.5)
    agent.act(STATE)
    world.error = ZeroDivisionError("in the model")
    agent.act(STATE)
    getattr(agent, end)()
    if end == "reset":
        world.error = None
        assert agent.act(STATE).isfinite().all()


def test_a_search_that_finds_nothing_leaves_the_running_plan(make_agent, world):
    sick = [False]

    def cost(imagined):
        value = world.cost(imagined)
        return value * torch.nan if sick[0] else value

    agent = make_agent(took=0.5, cost=cost)
    agent.act(STATE)
    first = agent.last_plan
    sick[0] = True
    for step in (1, 2, 3):
        assert torch.equal(agent.act(STATE), first.actions[0, step])
        finish(agent, world)
        world.gate.set()


@pytest.mark.parametrize("rows", [None, 2])
def test_reset_abandons_the_running_search(make_agent, world, rows):
    state = torch.zeros(1) if rows is None else torch.zeros(rows, 1)
    agent, new = (make_agent(took=0.5, rows=rows) for _ in range(2))
    world.gate.clear()
    for _ in range(3):
        agent.act(state + 5)
    world.gate.set()
    agent.reset()
    assert agent._running is None
    assert torch.equal(agent.act(state), new.act(state))  # as in a first episode
    assert torch.equal(agent.last_plan.actions, new.last_plan.actions)


def test_bad_observation_starts_no_search_and_the_plan_goes_on(make_agent, world):
    agent = make_agent(took=0.5)
    agent.act(STATE)
    first = agent.last_plan
    for step in (1, 2, 3):
        assert torch.equal(agent.act(STATE * torch.nan), first.actions[0, step])
        assert agent._running is None
    agent.act(STATE)
    assert agent._running is not None


def test_rows_act_together_as_alone(make_agent, world):
    """Every search ends within its step, so that the machine decides nothing."""
    start = torch.tensor([[0.0], [2.0], [5.0]])
    together = make_agent(took=0.5, rows=3)
    alone = [make_agent(took=0.5, seeds=[row]) for row in range(3)]
    for step in range(5):
        frame = start + 0.1 * step
        actions = together.act(frame)
        for row, agent in enumerate(alone):
            assert torch.equal(agent.act(frame[row]), actions[row])
        for agent in (together, *alone):
            if agent._running is not None:
                finish(agent, world)
        world.gate.set()


def test_command_follows_the_plan_between_two_steps(make_agent, world):
    now = [100.0]
    agent = make_agent(took=0.5, dt=0.5, clock=lambda: now[0], replan_every=8)
    with pytest.raises(RuntimeError, match="act"):
        agent.command()
    agent.act(STATE)
    actions = agent.last_plan.actions
    for step, begin in ((0, 100.0), (1, 200.0)):  # the second step begins when act is called, whenever that is
        for seconds, weight in ((0.0, 0.0), (0.125, 0.25), (0.25, 0.5), (0.5, 1.0), (9.0, 1.0)):
            now[0] = begin + seconds
            expected = torch.lerp(actions[0, step], actions[0, step + 1], weight)
            torch.testing.assert_close(agent.command(), expected, rtol=0, atol=1e-5)
            held = actions[0, step + (weight == 1)]
            torch.testing.assert_close(agent.command(interpolate=False), held)
        now[0] = 200.0
        agent.act(STATE)
    agent.reset()
    with pytest.raises(RuntimeError, match="act"):  # not the plan of the last episode
        agent.command()


def test_close_ends_the_thread(world):
    before = set(threading.enumerate())
    with BackgroundMPC(
        from_step(world.step, LIMITS), cost=world.cost, planner=CEM(**PLANNER), dt=0.001, replan_every=1
    ) as agent:
        agent.act(STATE)
        agent.act(STATE)
        assert set(threading.enumerate()) - before
    assert set(threading.enumerate()) <= before
    assert agent._running is None


def test_command_is_what_act_did_when_the_fallback_acted(make_agent, world):
    agent = make_agent(took=0.5, fallback="hold")
    world.gate.clear()
    for _ in range(10):  # the plan of eight steps runs out
        action = agent.act(STATE)
        now = agent.command(interpolate=False)
        assert torch.equal(now, action)
    assert torch.equal(agent.command(), action)


def test_a_row_without_a_plan_holds_nobody_up(make_agent, world):
    """One blind row falls back; the other goes on with its plan, and gets new ones from the background."""
    agent = make_agent(took=0.5, rows=2, fallback="hold")
    frame = torch.tensor([[0.0], [torch.nan]])
    agent.act(frame)
    first = agent.last_plan
    world.gate.clear()
    for step in (1, 2, 3):  # would wait for ever if it waited
        actions = agent.act(frame)
        assert torch.equal(actions[0], first.actions[0, step])
        assert actions[1].tolist() == [0.0]
    finish(agent, world)
    actions = agent.act(frame)
    assert torch.equal(actions[0], agent.last_plan.actions[0, 3])
    world.gate.set()


def test_a_row_that_can_see_again_gets_a_plan(make_agent, world):
    agent = make_agent(took=0.5, rows=2, fallback="hold")
    agent.act(torch.tensor([[0.0], [torch.nan]]))
    agent.act(torch.zeros(2, 1))
    finish(agent, world)
    assert agent.act(torch.zeros(2, 1))[1].item() > 0  # towards 3
    world.gate.set()


def test_another_goal_on_the_run_is_searched_for_at_once_and_nothing_waits(world):
    """Towards 3 at first, then towards -3: the old plan goes on until the new one is there."""

    def cost(imagined):
        return (imagined.z_BSLD - imagined.goals_BGD[:, 0, None, None]).square().sum(-1).mean(-1)

    options = {"planner": CEM(**PLANNER), "cost": cost, "dt": 1.0, "replan_every": 8}
    with BackgroundMPC(from_step(world.step, LIMITS), torch.tensor([3.0]), **options) as agent:
        agent._took.append(0.5)
        assert agent.act(STATE).item() > 0
        first = agent.last_plan
        world.gate.clear()
        agent.set_goal(torch.tensor([-3.0]))
        for step in (1, 2):
            assert torch.equal(agent.act(STATE), first.actions[0, step])
        finish(agent, world)
        assert agent.act(STATE).item() < 0
        world.gate.set()


def test_a_search_for_the_old_goal_is_not_entered(world):
    def cost(imagined):
        return (imagined.z_BSLD - imagined.goals_BGD[:, 0, None, None]).square().sum(-1).mean(-1)

    options = {"planner": CEM(**PLANNER), "cost": cost, "dt": 1.0, "replan_every": 1}
    with BackgroundMPC(from_step(world.step, LIMITS), torch.tensor([3.0]), **options) as agent:
        agent._took.append(0.5)
        agent.act(STATE)
        world.gate.clear()
        agent.act(STATE)  # starts a search towards 3
        first = agent.last_plan
        agent.set_goal(torch.tensor([-3.0]))
        finish(agent, world)
        assert torch.equal(agent.act(STATE), first.actions[0, 2])
        finish(agent, world)
        assert agent.act(STATE).item() < 0
        world.gate.set()


def test_dt_must_be_positive(world):
    with pytest.raises(InputError, match="dt must be positive"):
        BackgroundMPC(from_step(world.step, LIMITS), cost=world.cost, planner=CEM(**PLANNER), dt=0)


def test_a_row_that_was_reset_waits_for_its_plan_if_nobody_else_may_act(make_agent, world):
    agent = make_agent(took=0.5, rows=2, replan_every=8)
    agent.act(torch.zeros(2, 1))
    agent.act(torch.zeros(2, 1))
    before = agent._plans[0].clone()
    agent.reset(rows=[1])
    actions = agent.act(torch.zeros(2, 1))
    assert torch.equal(actions[0], before[2])  # the other row's plan goes on
    assert torch.equal(actions[1], agent._plans[1, 0])
