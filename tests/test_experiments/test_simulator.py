"""Search in the true simulator: its dynamics are the task, and it takes a task to its goals."""

import numpy as np
import pytest
import torch

from envs import PushT, TwoRoom, rollout
from experiments.build import build_model
from experiments.simulator import Search, SimulatorDynamics
from lewm.types import ActionSpec
from planners import CEM, MPC, GoalDistance

TASKS = {"two_room": lambda rows: TwoRoom(rows, vary=["door"]), "push_t": lambda rows: PushT(rows)}
CHEAP = {"horizon": 10, "samples": 16, "iterations": 2}


@pytest.fixture(params=TASKS)
def make(request):
    return TASKS[request.param]


def drawn(task, rows, seed=0):
    """States (rows, s) of a task."""
    rng = np.random.default_rng(seed)
    return np.stack([task.sample_state(rng) for _ in range(rows)])


def candidates(task, rows, samples, horizon):
    """Actions (B, S, H, A), some of them beyond the bounds, and what is left of them within."""
    shape = (rows, samples, horizon, len(task.low))
    actions = np.random.default_rng(1).uniform(-1.5, 1.5, shape) * task.high
    assert (np.abs(actions) > task.high).any()
    return torch.from_numpy(actions).float()


def test_a_rollout_is_what_stepping_the_task_gives(make):
    """Candidate by candidate, beyond the bounds too; the rows of the task are another number, and left alone."""
    task = make(2)
    task.reset(seeds=[1, 2])
    before = task.get_state()
    states, dynamics = drawn(task, 3), SimulatorDynamics(task)
    actions = candidates(task, 3, 4, 6)
    context = dynamics.context(torch.from_numpy(states)[:, None], torch.zeros(3, 0, 2))
    latents = dynamics.rollout(context, actions)
    assert latents.shape == (3, 4, 6, task.state_dim) and latents.dtype == torch.float64
    for sample in range(4):
        stepped = make(3)
        stepped.reset(states, states)
        for t in range(6):
            stepped.step(actions[:, sample, t].numpy())
            assert np.array_equal(latents[:, sample, t].numpy(), stepped.get_state())
    assert np.array_equal(task.get_state(), before)
    assert np.array_equal(dynamics.start(context).numpy(), states)


def test_latents_come_at_the_ends_of_blocks():
    task = TwoRoom(1)
    context, actions = torch.from_numpy(drawn(task, 2)), candidates(task, 2, 3, 12)
    every, fourth = (SimulatorDynamics(task, block=block).rollout(context, actions) for block in (1, 4))
    assert fourth.shape == (2, 3, 3, 2)
    assert torch.equal(fourth, every[:, :, 3::4])


def test_the_context_is_the_last_state():
    states = torch.arange(12.0).reshape(2, 3, 2)
    assert torch.equal(SimulatorDynamics(TwoRoom(1)).context(states, None), states[:, -1].double())


def test_the_metric_is_the_tasks_own_way_to_the_nearest_goal(make):
    task = make(1)
    states, goals = drawn(task, 30, seed=2).reshape(2, 3, 5, -1), drawn(task, 4, seed=3).reshape(2, 2, -1)
    metric = SimulatorDynamics(task).metric(torch.from_numpy(states), torch.from_numpy(goals))
    assert metric.shape == (2, 3, 5)
    for b, s, t in np.ndindex(2, 3, 5):
        each = [task.travel(states[b, s, t][None], goal[None])[0] for goal in goals[b]]
        assert metric[b, s, t].item() == min(each)


@pytest.fixture(scope="module")
def model():
    """An untrained world model for 16 x 16 pictures."""
    config = {
        "encoder": {"name": "conv", "channels": [4, 8], "features": 16},
        "predictor": {"name": "residual_mlp", "width": 16},
        **{"image_size": 16, "latent_dim": 8, "projector_hidden": 16, "action_block": 2},
    }
    return build_model(config, ActionSpec([-2, -2], [2, 2], [0, 0], [1, 1]), seed=0).eval()


@torch.no_grad()
def test_with_an_encoder_latents_are_those_of_the_pictures(model):
    task = TwoRoom(1, image_size=16)
    dynamics, states = SimulatorDynamics(task, encoder=model, block=2), torch.from_numpy(drawn(task, 3))
    assert torch.equal(dynamics.encode(states), model.encode(torch.from_numpy(task.draw(states.numpy()))))
    assert torch.equal(dynamics.start(states), dynamics.encode(states))
    actions = candidates(task, 3, 4, 6)
    latents, true = dynamics.rollout(states, actions), SimulatorDynamics(task, block=2).rollout(states, actions)
    assert latents.shape == (3, 4, 3, 8)
    pictures = task.draw(true.flatten(0, 2).numpy())
    assert torch.equal(latents.flatten(0, 2), model.encode(torch.from_numpy(pictures)))


def test_candidates_spread_over_half_the_range_or_as_told():
    task = PushT(1)
    for dynamics, std in ((SimulatorDynamics(task), 1.0), (SimulatorDynamics(task, std=np.full(2, 0.3)), 0.3)):
        spec = dynamics.action_spec
        assert np.allclose([spec.low, spec.high, spec.std], np.array([-1, 1, std])[:, None])


def test_a_planner_finds_the_best_plan_in_it():
    """The cheapest way to a goal in free space, known in closed form: straight at full speed, then rest."""
    task = TwoRoom(1, tolerance=1.0)
    start, goal = np.array([[10.0, 20.0]]), np.array([[18.0, 24.0]])
    dynamics = SimulatorDynamics(task)
    cost = GoalDistance(metric=dynamics.metric)
    agent = MPC(dynamics, goal, rows=1, planner=CEM(horizon=6, samples=300, iterations=8), cost=cost)
    agent.act(start)
    ways = [np.hypot(8 - x, 4 - y) for x, y in ((2, 2), (4, 3.5), (6, 4), (8, 4), (8, 4), (8, 4))]
    assert agent.last_plan.cost.item() < np.mean(ways) * 1.1
    stopped = dynamics.rollout(torch.from_numpy(start), agent.last_plan.actions[:, None])[0, 0, -1].numpy()
    assert stopped == pytest.approx(goal[0], abs=0.7)


# The data policy


class To(TwoRoom):
    """All goals are one place."""

    place = np.array([20.0, 45.0])

    def sample_goal(self, rng, start):
        return np.r_[self.place, start[2:]]


def test_it_reaches_goals_and_counts_the_steps_it_was_there():
    """A goal is counted whenever the row is at it, as seen at the begin of a step; the next is the same place."""
    task = To(4, image_size=16)
    done = rollout(task, Search(**CHEAP), range(4), seed=0, steps=40)
    for one in done:
        at = task.distance(one.columns["state"], np.tile(task.place, (41, 1))) <= 1
        crossed = (one.columns["state"][0, 0] < 32) != (task.place[0] < 32)
        assert at.any() or crossed
        assert one.facts["goals_reached"] == at[:-1].sum()
        assert one.facts["policy"] == "search"
    assert sum(one.facts["goals_reached"] > 0 for one in done) >= 2


def test_after_one_goal_it_goes_for_the_next():
    """Back and forth between two places, 14 units apart: at 2 a step, each takes five to eight steps."""

    class Shuttle(TwoRoom):
        turn = 0

        def sample_state(self, rng):
            return np.array([10.0, 20.0])

        def sample_goal(self, rng, start):
            self.turn += 1
            return np.array([10.0, 34.0 if self.turn % 2 else 20.0])

    (one,) = rollout(Shuttle(1, image_size=16), Search(**CHEAP), [0], seed=0, steps=40)
    assert 4 <= one.facts["goals_reached"] <= 9
    height = one.columns["state"][:, 1]
    assert (np.diff(np.sign(height - 27)) != 0).sum() >= 4


def test_it_finds_the_way_through_a_door_by_the_way_and_not_by_the_straight_line():
    """However short its horizon: measured straight, the wall that is in between is a place to stay at."""

    class Near(To):
        place = np.array([40.0, 31.0])

        def sample_state(self, rng):
            return np.array([22.0, rng.uniform(29, 33)])

    class Straight(Near):
        def travel(self, states, goals):
            return self.distance(states, goals)

    reached = {}
    for task in (Near, Straight):
        done = rollout(task(3, image_size=16), Search(horizon=1, replan_every=1), range(3), seed=1, steps=30)
        reached[task] = [one.facts["goals_reached"] > 0 for one in done]
    assert reached == {Near: [True] * 3, Straight: [False] * 3}


@pytest.mark.parametrize(
    "task", [lambda rows: TwoRoom(rows, image_size=16, vary=["door"]), lambda rows: PushT(rows)]
)
def test_an_episode_is_the_same_whatever_its_batch(task):
    policy = Search(**CHEAP, noise=0.2, patience=4)  # so that there are new goals on the way
    together = rollout(task(3), policy, [4, 0, 9], seed=2, steps=12)
    (alone,) = rollout(task(1), policy, [0], seed=2, steps=12)
    assert alone.facts == together[1].facts
    assert all(np.array_equal(alone.columns[name], together[1].columns[name]) for name in alone.columns)
    assert not np.array_equal(together[0].columns["action"], together[1].columns["action"])


def test_goals_out_of_reach_are_given_up():
    class Far(TwoRoom):
        drawn = 0

        def sample_goal(self, rng, start):
            type(self).drawn += 1
            return super().sample_goal(rng, start)

        def distance(self, states, goals):
            return super().distance(states, goals) + 2

    (one,) = rollout(Far(1, image_size=16), Search(**CHEAP, patience=5), [0], seed=0, steps=24)
    assert one.facts["goals_reached"] == 0
    assert Far.drawn == 1 + 4  # at t = 5, 11, 17, 23


def test_noise_comes_on_top_and_stays_within_bounds():
    actions = {}
    for noise in (0.0, 0.8):
        (one,) = rollout(TwoRoom(1, image_size=16), Search(**CHEAP, noise=noise), [3], seed=0, steps=15)
        actions[noise] = one.columns["action"]
    assert np.abs(actions[0.8]).max() <= 2
    assert np.abs(actions[0.8] - actions[0.0]).mean() > 0.4


@pytest.mark.parametrize("bad", [{"patience": 0}, {"std": 0.0}, {"samples": 1}, {"horizon": 0}, {"noise": -1.0}])
def test_settings_that_mean_nothing_are_an_error(bad):
    with pytest.raises(ValueError, match=r"must|needs"):
        Search(**bad)


@pytest.mark.parametrize("bad", [{"horizon": 4, "replan_every": 5}, {"replan_every": 0}])
def test_a_plan_must_last_until_the_next(bad):
    with pytest.raises(ValueError, match="replan_every"):
        rollout(TwoRoom(1, image_size=16), Search(**bad), [0], seed=0, steps=2)
