"""Receding-horizon control: what goes in and out, real history, independence of rows, failures, settings."""

import numpy as np
import pytest
import torch

from planners import CEM, MPC, GoalDistance, InputError, PlannerFailure

SMALL = {"samples": 32, "iterations": 3, "elites": 6}


def walk(agent, start, goal, steps):
    """Act on a point that moves by its actions; returns the positions visited and the actions."""
    agent.reset(goal)
    positions, actions = [start], []
    for _ in range(steps):
        actions.append(agent.act(positions[-1]))
        positions.append(positions[-1] + actions[-1])
    return positions, actions


def images(rows, count=12):
    """`count` observations of `rows` rows, uint8."""
    return np.random.default_rng(0).integers(0, 256, (count, rows, 16, 16, 3), np.uint8)


def act_on_images(model, pictures, goals, **options):
    """Actions (steps, B, A) for images (steps, B, ...)."""
    options = {"planner": CEM(horizon=6, **SMALL), "replan_every": 3} | options
    agent = MPC(model, goals, rows=pictures.shape[1], **options)
    return np.stack([agent.act(frame) for frame in pictures])


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_output_is_of_the_kind_of_the_input(point_dynamics, convert):
    agent = MPC(point_dynamics(), convert(np.float32([1, 0])), planner=CEM(horizon=4, **SMALL))
    action = agent.act(convert(np.float32([0, 0])))
    assert type(action) is type(convert(np.zeros(1)))
    assert tuple(action.shape) == (2,)
    batched = MPC(point_dynamics(), convert(np.zeros((3, 2))), rows=3, planner=CEM(horizon=4, **SMALL))
    action = batched.act(convert(np.zeros((3, 2), np.float32)))
    assert type(action) is type(convert(np.zeros(1)))
    assert tuple(action.shape) == (3, 2)


def test_reaches_the_goal_and_stays(point_dynamics):
    start, goal = torch.tensor([[0.0, 0.0], [4.0, 3.0]]), torch.tensor([[4.0, -3.0], [-1.0, 2.0]])
    planner = CEM(horizon=8, samples=128, iterations=6, warm_iterations=6)
    agent = MPC(point_dynamics(), rows=2, planner=planner, replan_every=2)
    positions, actions = walk(agent, start, goal, 20)
    distance = torch.stack([(p - goal).norm(dim=-1) for p in positions])
    assert (distance[0] >= 5).all()
    assert (distance[-8:] < 0.4).all()  # the way takes five steps of at most one unit per axis
    assert torch.stack(actions).abs().max() <= 1


@pytest.mark.parametrize("replan_every", [1, 3, 8])
def test_replans_every_n_steps_and_executes_the_plan_in_between(point_dynamics, replan_every):
    dynamics = point_dynamics()
    agent = MPC(dynamics, torch.ones(2), planner=CEM(horizon=8, **SMALL), replan_every=replan_every)
    for step in range(17):
        action = agent.act(torch.full((2,), 0.1 * step))
        assert len(dynamics.contexts) == step // replan_every + 1
        assert torch.equal(action, agent.last_plan.actions[0, step % replan_every])


@pytest.mark.parametrize("predictor", ["residual_mlp", "adaln_transformer"])
def test_row_acts_the_same_bits_alone_and_in_a_batch(make_model, predictor):
    model, pictures, goals = make_model(predictor), images(5), images(5, 1)[0]
    together = act_on_images(model, pictures, goals)
    for row in (0, 3):
        alone = act_on_images(model, pictures[:, row : row + 1], goals[row : row + 1], seeds=[row])
        assert np.array_equal(alone[:, 0], together[:, row])
    agent = MPC(model, goals[0], planner=CEM(horizon=6, **SMALL), replan_every=3)  # no batch axis, seed 0
    assert np.array_equal(np.stack([agent.act(frame) for frame in pictures[:, 0]]), together[:, 0])
    assert not np.array_equal(together[:, 0], together[:, 3])


def history_agent(point_dynamics, rows, replan_every=1):
    dynamics = point_dynamics(history=3, action_block=2)
    planner = CEM(horizon=4, **SMALL)
    return dynamics, MPC(dynamics, torch.ones(rows, 2), rows=rows, planner=planner, replan_every=replan_every)


def expected_context(frames, actions, t, start):
    """Frames t-4, t-2, t and the four actions between them, padded before the row's `start`."""
    seen = [frames[max(step, start)] for step in (t - 4, t - 2, t)]
    done = [actions[step] if step >= start else torch.zeros(2) for step in range(t - 4, t)]
    return torch.stack(seen), torch.stack(done)


def test_context_is_the_real_history_at_block_stride(point_dynamics):
    dynamics, agent = history_agent(point_dynamics, 2)
    frames, actions = [], []
    for t in range(9):
        frames.append(torch.tensor([[t, 0.5], [100.0 + t, -0.5]]))
        actions.append(agent.act(frames[-1]))
        seen, between = dynamics.contexts[-1]
        for row in range(2):
            want_seen, want_between = expected_context([f[row] for f in frames], [a[row] for a in actions], t, 0)
            assert torch.equal(seen[row], want_seen)
            assert torch.equal(between[row], want_between)
    assert between.abs().min() > 0


def test_reset_row_starts_a_new_history_and_leaves_the_others_alone(point_dynamics):
    """Row 1 is reset before step 5 of every 3-step plan, so rows have different ages and replan apart."""
    dynamics, agent = history_agent(point_dynamics, 3, replan_every=3)
    _, undisturbed = history_agent(point_dynamics, 3, replan_every=3)
    frames, actions, planned = [], [], 0
    for t in range(13):
        frames.append(torch.tensor([[t, 0.0], [100.0 + t, 0.0], [200.0 + t, 0.0]]))
        if t == 5:
            agent.reset(rows=[1])
        actions.append(agent.act(frames[-1]))
        assert torch.equal(actions[-1][[0, 2]], undisturbed.act(frames[-1])[[0, 2]])
        due = [row for row, first in ((0, 0), (1, 5 if t >= 5 else 0), (2, 0)) if (t - first) % 3 == 0]
        planned += bool(due)
        assert len(dynamics.contexts) == planned
        for place, row in enumerate(due):
            start = 5 if row == 1 and t >= 5 else 0
            want = expected_context([f[row] for f in frames], [a[row] for a in actions], t, start)
            for got, wanted in zip(dynamics.contexts[-1], want, strict=True):
                assert torch.equal(got[place], wanted), (t, row)


def test_reset_row_acts_as_in_a_new_episode(point_dynamics):
    """After a reset with a goal, a row does what it would do in its first episode with that goal."""
    goals, fresh_goal = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[2.0, -1.0]])
    agent = MPC(point_dynamics(), goals, rows=2, planner=CEM(horizon=4, **SMALL), replan_every=2)
    for t in range(3):
        agent.act(torch.full((2, 2), 0.1 * t))
    agent.reset(fresh_goal, rows=[1])
    new = MPC(point_dynamics(), fresh_goal[0], seeds=[1], planner=CEM(horizon=4, **SMALL), replan_every=2)
    for t in range(5):
        frame = torch.tensor([[0.0, 0.0], [0.3 * t, 0.0]])
        assert torch.equal(agent.act(frame)[1], new.act(frame[1]))


def test_history_survives_a_caller_who_reuses_the_frame_buffer(point_dynamics):
    dynamics, agent = history_agent(point_dynamics, 1)
    frame = np.zeros((1, 2), np.float32)
    for t in range(6):
        frame[:] = t
        agent.act(frame)
    assert dynamics.contexts[-1][0][0, :, 0].tolist() == [1.0, 3.0, 5.0]


def test_history_survives_a_caller_who_changes_the_returned_action(point_dynamics):
    dynamics, agent = history_agent(point_dynamics, 1)
    executed = []
    for t in range(6):
        action = agent.act(np.full((1, 2), t, np.float32))
        executed.append(torch.tensor(action[0]))
        action[:] = 77.0
    assert torch.equal(dynamics.contexts[-1][1][0], torch.stack(executed[1:5]))


@pytest.mark.parametrize("view", ["read-only", "mirrored"])
def test_takes_any_numpy_view(make_model, view):
    picture, goal = images(1, 2)[:, 0]
    agents = [MPC(make_model(), goal, planner=CEM(horizon=4, **SMALL)) for _ in range(2)]
    plain = picture[:, ::-1].copy() if view == "mirrored" else picture
    given = picture[:, ::-1] if view == "mirrored" else picture.copy()
    if view == "read-only":
        given.setflags(write=False)
    assert np.array_equal(agents[0].act(given), agents[1].act(plain))


def failing_cost(z, goal):
    """Goal distance; rows with a goal beyond 50 have no finite candidate."""
    return torch.where(goal[:, :1] > 50, torch.nan, GoalDistance()(z, goal))


def test_fallback_acts_for_failed_rows_only(point_dynamics):
    goals, asked = torch.tensor([[1.0, 1.0], [99.0, 0.0], [-1.0, 0.0]]), []

    def fallback(observations):
        asked.append(observations)
        return -0.25 * torch.ones_like(observations)

    options = {"planner": CEM(horizon=4, **SMALL), "replan_every": 2, "cost": failing_cost}
    agent = MPC(point_dynamics(), goals, rows=3, fallback=fallback, **options)
    healthy = MPC(point_dynamics(), torch.ones(3, 2) * goals[[0, 0, 2]], rows=3, **options)
    for t in range(4):
        frame = torch.arange(6.0).view(3, 2) + t
        actions = agent.act(frame)
        assert torch.equal(actions[1], torch.tensor([-0.25, -0.25]))
        assert torch.equal(actions[[0, 2]], healthy.act(frame)[[0, 2]])
        assert torch.equal(asked[-1], frame[[1]])  # a failed row plans again, and asks again, at every step
    assert len(asked) == 4


def test_fallback_actions_keep_the_bounds(point_dynamics):
    options = {"planner": CEM(horizon=4, **SMALL), "replan_every": 2, "cost": failing_cost}
    agent = MPC(
        point_dynamics(), torch.tensor([99.0, 0.0]), fallback=lambda seen: 1e6 * torch.ones_like(seen), **options
    )
    assert torch.equal(agent.act(torch.zeros(2)), torch.as_tensor(point_dynamics().action_spec.high).float())


def test_a_failed_call_leaves_history_as_it_was(point_dynamics):
    """After PlannerFailure the same observation may be given again, with a goal that can be planned for."""
    options = {"planner": CEM(horizon=4, **SMALL), "replan_every": 2, "cost": failing_cost}
    agent, calm = (MPC(point_dynamics(), torch.tensor(g), **options) for g in ([99.0, 0.0], [1.0, 1.0]))
    with pytest.raises(PlannerFailure):
        agent.act(torch.zeros(2))
    agent.reset(torch.tensor([1.0, 1.0]))
    for t in range(3):
        assert torch.equal(agent.act(torch.full((2,), float(t))), calm.act(torch.full((2,), float(t))))


def test_failure_without_fallback_is_an_error_that_names_the_rows(point_dynamics):
    goals = torch.tensor([[1.0, 1.0], [99.0, 0.0]])
    agent = MPC(point_dynamics(), goals, rows=2, cost=failing_cost, planner=CEM(horizon=4, **SMALL))
    with pytest.raises(PlannerFailure, match=r"\[1\]"):
        agent.act(torch.zeros(2, 2))


def test_recommendation_of_the_model_is_used(point_dynamics):
    keywords = {"horizon": 6, "samples": 16, "elites": 3, "iterations": 2}
    recommendation = {
        "planner": {"name": "cem", **keywords},
        "cost": {"name": "goal_distance", "running": 0.0, "terminal": 2.0},
        "replan_every": 5,
    }
    goal = torch.tensor([3.0, 1.0])
    recommended = point_dynamics(recommendation=recommendation)
    explicit = MPC(
        point_dynamics(),
        goal,
        planner=CEM(**keywords),
        cost=GoalDistance(running=0.0, terminal=2.0),
        replan_every=5,
    )
    agent = MPC(recommended, goal)
    for t in range(7):
        frame = torch.full((2,), 0.1 * t)
        assert torch.equal(agent.act(frame), explicit.act(frame))
        assert torch.equal(agent.last_plan.cost, explicit.last_plan.cost)
    assert len(recommended.contexts) == 2


@pytest.mark.parametrize("part", ["planner", "cost"])
def test_unknown_recommended_part_is_an_error(point_dynamics, part):
    dynamics = point_dynamics(recommendation={part: {"name": "oracle"}})
    with pytest.raises(InputError, match=f"recommends {part} 'oracle'"):
        MPC(dynamics)


@pytest.mark.parametrize("replan_every", [-1, 0, 9])
def test_replan_every_out_of_range_is_an_error(point_dynamics, replan_every):
    with pytest.raises(InputError, match="replan_every must be between 1 and the horizon 8"):
        MPC(point_dynamics(), planner=CEM(horizon=8, **SMALL), replan_every=replan_every)


def test_horizon_must_be_a_multiple_of_the_block(point_dynamics):
    with pytest.raises(InputError, match="multiple of the model's action_block 3, got 8"):
        MPC(point_dynamics(action_block=3), planner=CEM(horizon=8, **SMALL), replan_every=3)


def test_act_before_a_goal_is_an_error(point_dynamics):
    with pytest.raises(InputError, match="no goal yet"):
        MPC(point_dynamics(), planner=CEM(horizon=4, **SMALL)).act(torch.zeros(2))


def test_first_goal_is_for_all_rows(point_dynamics):
    agent = MPC(point_dynamics(), rows=3, planner=CEM(horizon=4, **SMALL))
    with pytest.raises(InputError, match="all rows"):
        agent.reset(torch.zeros(1, 2), rows=[1])


GOOD = np.zeros((16, 16, 3), np.uint8)
WRONG = {
    "other size": np.zeros((32, 32, 3), np.uint8),
    "grey": np.zeros((16, 16), np.uint8),
    "float": np.zeros((16, 16, 3), np.float32),
    "channels first": np.zeros((3, 16, 16), np.uint8),
    "with a batch axis": np.zeros((1, 16, 16, 3), np.uint8),
}


@pytest.mark.parametrize("image", WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("moment", ["goal", "first image", "image between two plans"])
def test_goal_or_image_of_another_kind_is_an_error(make_model, image, moment):
    model, planner = make_model(), CEM(horizon=4, **SMALL)
    agent = MPC(model, None if moment == "goal" else GOOD, planner=planner)
    if moment == "image between two plans":
        agent.act(GOOD)
    with pytest.raises(ValueError, match=r"uint8|shape|rows"):
        agent.reset(image) if moment == "goal" else agent.act(image)


def test_refused_image_leaves_the_agent_as_it_was(make_model):
    agents = [MPC(make_model("adaln_transformer"), GOOD, planner=CEM(horizon=4, **SMALL)) for _ in range(2)]
    with pytest.raises(ValueError, match="uint8"):
        agents[0].act(WRONG["other size"])
    pictures = images(1, 6)[:, 0]
    for picture in pictures:
        assert np.array_equal(agents[0].act(picture), agents[1].act(picture))


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_number_of_rows_must_fit(point_dynamics, rows):
    agent = MPC(point_dynamics(), torch.zeros(3, 2), rows=3, planner=CEM(horizon=4, **SMALL))
    for call in (agent.act, agent.reset):
        with pytest.raises(InputError, match=f"expected 3 rows, got shape \\({rows}, 2\\)"):
            call(torch.zeros(rows, 2))
