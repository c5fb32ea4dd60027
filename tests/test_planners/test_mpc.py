"""Receding-horizon control: what goes in and out, real history, independence of rows, failures, settings."""

import numpy as np
import pytest
import torch

from planners import (
    CEM,
    ICEM,
    MPC,
    MPPI,
    Adam,
    Chain,
    GoalDistance,
    InputError,
    Latents,
    Limits,
    PlannerFailure,
    from_step,
)

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


def failing_cost(imagined):
    """Goal distance; rows with a goal beyond 50 have no finite candidate."""
    return torch.where(imagined.goals_BGD[:, 0, :1] > 50, torch.nan, GoalDistance()(imagined))


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
    with pytest.raises(InputError, match="goal"):
        MPC(point_dynamics(), planner=CEM(horizon=4, **SMALL)).act(torch.zeros(2))


def test_no_goal_is_needed_for_a_cost_without_one(point_dynamics):
    def cost(imagined):
        assert imagined.goals_BGD is None
        return (imagined.z_BSLD - 0.5).square().sum(-1).mean(-1)

    agent = MPC(point_dynamics(), cost=cost, planner=CEM(horizon=4, **SMALL))
    state = torch.zeros(2)
    for _ in range(5):
        state = state + agent.act(state)
    assert (state - 0.5).abs().max() < 0.2
    agent.reset()
    assert agent.act(state).shape == (2,)


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


def test_a_goal_may_be_a_latent(make_model):
    model, picture, goal = make_model(), images(1, 1)[0, 0], images(1, 2)[1, 0]
    seen = MPC(model, goal, planner=CEM(horizon=4, **SMALL))
    with torch.no_grad():
        z = model.encode(torch.from_numpy(goal)[None])[0]
    for latent in (z, z.numpy(), z.double().numpy()):
        known = MPC(model, Latents(latent), planner=CEM(horizon=4, **SMALL))
        assert np.array_equal(seen.act(picture), known.act(picture))
        seen.reset()


def test_any_goal_of_a_list_will_do(point_dynamics):
    near, far = torch.tensor([1.0, 0.5]), torch.tensor([-30.0, 0.0])
    agents = [
        MPC(point_dynamics(), goal, planner=CEM(horizon=4, **SMALL))
        for goal in (near, [far, near], [near, far], [Latents(near), far], [near, near, near])
    ]
    state = torch.zeros(2)
    for _ in range(3):
        actions = [agent.act(state) for agent in agents]
        assert all(torch.equal(actions[0], action) for action in actions)
        state = state + actions[0]
    assert (state - near).abs().max() < 0.4


def test_rows_may_have_goal_sets_of_different_sizes(point_dynamics):
    """After resets with sets of other sizes every row acts as an agent of its own with its own set."""
    start = torch.tensor([[5.0, 5.0], [0.0, 0.0], [-5.0, 0.0]])
    sets = {1: torch.tensor([[0.5, 0.0]]), 2: torch.tensor([[-5.0, 0.5], [4.0, 4.0], [3.0, 3.0]])}
    agent = MPC(point_dynamics(), start + 0.5, rows=3, planner=CEM(horizon=4, **SMALL))
    for row, goals in sets.items():
        agent.reset([goal[None] for goal in goals], rows=[row])
    together = agent.act(start)
    for row in range(3):
        goals = list(sets[row]) if row in sets else start[row] + 0.5
        alone = MPC(point_dynamics(), goals, seeds=[row], planner=CEM(horizon=4, **SMALL))
        assert torch.equal(alone.act(start[row]), together[row])
    agent.reset([goal[None] for goal in sets[1]], rows=[2])  # a smaller set again
    alone = MPC(point_dynamics(), sets[1][0], seeds=[2], planner=CEM(horizon=4, **SMALL))
    assert torch.equal(agent.act(start)[2], alone.act(start[2]))


def test_one_row_may_be_given_a_latent_goal_of_double_precision(point_dynamics):
    agent = MPC(point_dynamics(), torch.zeros(2, 2), rows=2, planner=CEM(horizon=4, **SMALL))
    agent.reset(Latents(np.array([[1.0, 1.0]])), rows=[1])
    actions = agent.act(torch.zeros(2, 2))
    assert actions[0].abs().max() < 0.3 < actions[1].min()


@pytest.mark.parametrize("goal", [[], [1.0, 2.0], torch.zeros(1, 1, 2)], ids=["empty", "numbers", "axes"])
def test_other_goals_are_errors(point_dynamics, goal):
    with pytest.raises(InputError, match="goal"):
        MPC(point_dynamics(), goal)


EVERY = {
    "cem": CEM(horizon=6, **SMALL),
    "icem": ICEM(horizon=6, **SMALL, warm_iterations=2),
    "mppi": MPPI(horizon=6, samples=32),
    "adam": Adam(horizon=6, samples=2, iterations=8, warm_iterations=4),
    "chain": Chain(first=CEM(horizon=6, **SMALL)),
}


@pytest.mark.parametrize("planner", EVERY.values(), ids=EVERY.keys())
def test_every_planner_reaches_the_goal(point_dynamics, planner):
    start, goal = torch.tensor([[0.0, 0.0], [3.0, 2.0]]), torch.tensor([[3.0, -2.0], [-1.0, 1.0]])
    agent = MPC(point_dynamics(), rows=2, planner=planner, replan_every=2)
    positions, _ = walk(agent, start, goal, 14)
    assert (positions[-1] - goal).norm(dim=-1).max() < 0.5


def nan_frame(frame, *rows):
    frame = frame.clone()
    for row in rows:
        frame[row, 0] = torch.nan
    return frame


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_plan_goes_on_through_a_bad_observation(point_dynamics, value):
    agent = MPC(point_dynamics(), torch.ones(2), planner=CEM(horizon=8, **SMALL), replan_every=3)
    agent.act(torch.zeros(2))
    for step in (1, 2):
        action = agent.act(torch.tensor([value, 0.0]))
        assert torch.equal(action, agent.last_plan.actions[0, step])
    with pytest.raises(PlannerFailure, match=r"\[0\]"):  # a plan is due, and there is nothing to plan from
        agent.act(torch.tensor([value, 0.0]))
    assert agent.act(torch.zeros(2)).isfinite().all()


@pytest.mark.parametrize("replan_every", [1, 3, 4])
def test_fallback_acts_when_a_plan_is_due_and_the_observation_is_bad(point_dynamics, replan_every):
    """Row 1 is blind from step 1 to 5; row 0 must not notice. A plan may be used up to its last action."""
    options = {"rows": 2, "planner": CEM(horizon=4, **SMALL), "replan_every": replan_every}
    agent = MPC(point_dynamics(), torch.ones(2, 2), fallback="hold", **options)
    calm = MPC(point_dynamics(), torch.ones(2, 2), **options)
    last = None
    for t in range(9):
        frame = torch.full((2, 2), 0.1 * t)
        blind = 1 <= t <= 5
        actions = agent.act(nan_frame(frame, 1) if blind else frame)
        assert torch.equal(actions[0], calm.act(frame)[0])
        assert actions.isfinite().all()
        if blind and t >= replan_every:
            assert torch.equal(actions[1], last)  # held
        last = actions[1].clone()


def test_history_repeats_the_last_good_frame(point_dynamics):
    dynamics = point_dynamics(history=3, action_block=1)
    agent = MPC(
        dynamics, torch.ones(2, 2), rows=2, planner=CEM(horizon=4, **SMALL), replan_every=1, fallback="hold"
    )
    for t in range(6):
        frame = torch.tensor([[float(t), 0.0], [10.0 + t, 0.0]])
        agent.act(nan_frame(frame, 1) if t in (3, 4) else frame)
        assert dynamics.contexts[-1][0].isfinite().all()
    seen = dynamics.contexts[-1][0]
    assert seen[0, :, 0].tolist() == [3.0, 4.0, 5.0]
    assert seen[1, :, 0].tolist() == [12.0, 12.0, 15.0]


def test_hold_repeats_the_last_action_and_starts_at_rest(point_dynamics):
    goals = torch.tensor([[1.0, 1.0], [99.0, 0.0]])
    agent = MPC(
        point_dynamics(), goals, rows=2, cost=failing_cost, planner=CEM(horizon=4, **SMALL), fallback="hold"
    )
    assert agent.act(torch.zeros(2, 2))[1].tolist() == [0.0, 0.0]
    agent.reset(torch.tensor([[1.0, -1.0]]), rows=[1])
    last = agent.act(torch.zeros(2, 2))[1]
    assert last.abs().min() > 0.1
    agent._goals[1] = 99.0
    for _ in range(3):
        assert torch.equal(agent.act(torch.zeros(2, 2))[1], last)


def test_fallback_of_another_kind_is_an_error(point_dynamics):
    with pytest.raises(InputError, match="fallback"):
        MPC(point_dynamics(), fallback="pray")


LIMITED = {
    "rate": Limits(low=[-1.0, -1.0], high=[1.0, 1.0], rate=[0.2, 0.1]),
    "acceleration": Limits(low=[-1.0, -0.5], high=[1.0, 1.0], acceleration=[0.1, 0.2]),
    "both": Limits(low=[-1.0, -1.0], high=[1.0, 0.8], rate=[0.3, 0.2], acceleration=[0.1, 0.1]),
}


def assert_executed_within(limits, actions):
    """Every action that was executed, from rest on."""
    done = torch.cat([torch.zeros(2, *actions[0].shape), torch.stack(actions)])
    low, high = torch.tensor(limits.low), torch.tensor(limits.high)
    assert (done >= low).all()
    assert (done <= high).all()
    for most, change in ((limits.rate, done.diff(dim=0)), (limits.acceleration, done.diff(n=2, dim=0))):
        if most is not None:
            excess = (change.abs() - torch.tensor(most)).amax()
            assert excess < 1e-5 * 2


@pytest.mark.parametrize("limits", LIMITED.values(), ids=LIMITED.keys())
@pytest.mark.parametrize("planner", EVERY.values(), ids=EVERY.keys())
def test_limits_hold_over_everything_that_is_executed(point_dynamics, limits, planner):
    """Through replans, a goal on the other side, failures and blindness."""
    rows, wild = 2, torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    agent = MPC(
        point_dynamics(speed=5.0),
        wild * 9,
        rows=rows,
        planner=planner,
        replan_every=2,
        limits=limits,
        fallback=lambda seen: 9.0 * torch.ones(len(seen), 2),
        cost=failing_cost,
    )
    actions = []
    for t in range(18):
        if t == 5:
            agent._goals = -agent._goals  # the same episode, another goal
        if t == 9:
            agent._goals[1] = 99.0  # row 1 fails
        if t == 12:
            agent._goals[1] = -9.0
        frame = torch.full((rows, 2), 0.1 * t)
        actions.append(agent.act(nan_frame(frame, 0) if 7 <= t <= 10 else frame))
    assert_executed_within(limits, actions)
    assert torch.stack(actions).abs().max() > 0.5  # they do go somewhere


@pytest.mark.parametrize("limits", LIMITED.values(), ids=LIMITED.keys())
def test_limits_hold_when_a_row_was_blind_from_the_start(point_dynamics, limits):
    agent = MPC(
        point_dynamics(),
        torch.tensor([-9.0, -9.0]),
        planner=EVERY["cem"],
        limits=limits,
        fallback=lambda seen: torch.ones(1, 2),
    )
    actions = [agent.act(torch.full((2,), torch.nan if t < 4 else 0.0)) for t in range(12)]
    assert_executed_within(limits, actions)


@pytest.mark.parametrize("limits", LIMITED.values(), ids=LIMITED.keys())
def test_limits_and_history_go_on_with_another_goal(point_dynamics, limits):
    """The motors still have the speed they had, and the plan is made anew at once."""
    agent = MPC(point_dynamics(), torch.tensor([9.0, 9.0]), planner=EVERY["cem"], limits=limits)
    actions = [agent.act(torch.zeros(2)) for _ in range(6)]
    before = agent.last_plan
    agent.set_goal(torch.tensor([-9.0, -9.0]))
    actions.append(agent.act(torch.zeros(2)))
    assert agent.last_plan is not before
    actions += [agent.act(torch.zeros(2)) for _ in range(5)]
    assert_executed_within(limits, actions)


def test_a_reset_begins_at_rest_as_a_new_agent_does(point_dynamics):
    options = {"planner": EVERY["cem"], "limits": LIMITED["both"]}
    agent, new = (MPC(point_dynamics(), torch.tensor([9.0, 9.0]), **options) for _ in range(2))
    for _ in range(6):
        agent.act(torch.zeros(2))
    agent.reset()
    for _ in range(6):
        assert torch.equal(agent.act(torch.zeros(2)), new.act(torch.zeros(2)))


def test_a_prior_starts_every_search(point_dynamics):
    """A sure prior decides a search that has no time to move away from it."""
    asked = []

    def prior(start, goals):
        asked.append((start.clone(), goals))
        towards = (goals[:, 0] - start).clamp(-0.5, 0.5)
        return towards[:, None].expand(-1, 4, -1), torch.full((len(start), 4, 2), 1e-3)

    planner = CEM(horizon=4, samples=2, elites=1, iterations=1)  # the mean, and doing nothing
    agent = MPC(point_dynamics(), torch.tensor([[4.0, -4.0], [1.0, 0.0]]), rows=2, planner=planner, prior=prior)
    assert torch.allclose(agent.act(torch.zeros(2, 2)), torch.tensor([[0.5, -0.5], [0.5, 0.0]]), atol=0.01)
    agent.act(torch.ones(2, 2))
    assert [start.tolist() for start, _ in asked] == [[[0.0, 0.0]] * 2, [[1.0, 1.0]] * 2]
    assert asked[0][1].shape == (2, 1, 2)
    without = MPC(point_dynamics(), torch.tensor([4.0, -4.0]), planner=planner)
    assert without.act(torch.zeros(2)).tolist() == [0.0, 0.0]


def test_a_prior_of_another_shape_is_an_error(point_dynamics):
    agent = MPC(
        point_dynamics(),
        torch.ones(2),
        planner=CEM(horizon=4, **SMALL),
        prior=lambda start, goals: (torch.zeros(1, 3, 2), torch.ones(1, 3, 2)),
    )
    with pytest.raises(InputError, match=r"\(1, 4, 2\)"):
        agent.act(torch.zeros(2))


def test_deadline_is_that_of_the_whole_plan(point_dynamics, fake_clock):
    """Encoding takes 3 of 10 seconds, a candidate half a second: 14 more fit, but the first chunk is 16."""

    class Slow(point_dynamics):
        def context(self, observations, actions):
            fake_clock[0] += 3.0
            return super().context(observations, actions)

        def rollout(self, context, actions_BSHA):
            fake_clock[0] += 0.5 * actions_BSHA.shape[1]
            return super().rollout(context, actions_BSHA)

    for deadline, most in ((10.0, 11.0), (20.0, 20.0), (30.0, 30.0)):
        agent = MPC(Slow(), torch.ones(2), planner=CEM(horizon=4, samples=64, iterations=5), deadline_s=deadline)
        before = fake_clock[0]
        agent.act(torch.zeros(2))
        assert agent.last_plan.deadline_hit
        assert agent.last_plan.evaluations >= 16
        assert fake_clock[0] - before <= most
        assert agent.last_plan.timings["context"] == 3.0
        assert agent.last_plan.timings["total"] == fake_clock[0] - before


def test_timings_name_the_phases(point_dynamics):
    agent = MPC(point_dynamics(), torch.ones(2), planner=CEM(horizon=4, **SMALL))
    agent.act(torch.zeros(2))
    timings = agent.last_plan.timings
    assert set(timings) == {"context", "sample", "cost", "update", "total"}
    assert 0 < sum(timings.values()) - timings["total"] <= timings["total"]


def test_warm_starts_continue_the_plan_of_the_row(point_dynamics):
    """Flat costs never move the mean of a search of few candidates: the second plan is the first one, shifted."""
    wish = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.4]).view(1, 6, 1)
    priors = [(wish, torch.full((1, 6, 1), 1e-9)), (0 * wish, torch.full((1, 6, 1), 1e9))]
    dynamics = from_step(lambda state, action: state + action, Limits(low=[-1.0], high=[1.0], std=[1e-4]))
    agent = MPC(
        dynamics,
        cost=lambda imagined: -imagined.actions_BSHA[:, :, :2].square().sum((-1, -2)),
        planner=CEM(horizon=6, samples=8, elites=1, iterations=1),
        replan_every=2,
        prior=lambda start, goals: priors.pop(0),
    )
    got = [agent.act(torch.zeros(1)).item() for _ in range(4)]
    np.testing.assert_allclose(got, [0.9, 0.8, 0.7, 0.6], atol=0.01)


@pytest.mark.parametrize("answer", [[1.0, -1.0], [[torch.nan, 0.0]], [[0.0]]], ids=["flat", "nan", "narrow"])
def test_a_fallback_that_returns_something_else_is_an_error(point_dynamics, answer):
    agent = MPC(
        point_dynamics(),
        torch.ones(2, 2),
        rows=2,
        planner=EVERY["cem"],
        fallback=lambda seen: torch.tensor(answer),
    )
    with pytest.raises(PlannerFailure, match=r"finite actions of shape \(2, 2\)"):
        agent.act(torch.full((2, 2), torch.nan))


@pytest.mark.parametrize("goal", [None, torch.ones(2, dtype=torch.float64)])
def test_observations_may_change_their_precision(point_dynamics, goal):
    cost = None if goal is not None else lambda imagined: imagined.z_BSLD.square().sum((-1, -2))
    agents = [MPC(point_dynamics(), goal, planner=EVERY["cem"], cost=cost) for _ in range(2)]
    for t in range(4):
        frame = torch.full((2,), 0.25 * t, dtype=torch.float32 if t % 2 else torch.float64)
        assert torch.equal(agents[0].act(frame), agents[1].act(frame.double()))


def test_without_a_goal_the_first_observation_says_what_they_are_like(point_dynamics):
    agent = MPC(point_dynamics(), planner=EVERY["cem"], cost=lambda imagined: imagined.z_BSLD.sum((-1, -2)))
    agent.act(torch.zeros(2))
    with pytest.raises(InputError, match=r"expected torch.float32 of shape"):
        agent.act(torch.zeros(3))


def test_a_narrower_range_is_searched_at_the_scale_of_the_data(point_dynamics):
    dynamics = point_dynamics()
    agent = MPC(dynamics, torch.ones(2), planner=EVERY["cem"], limits=Limits(low=[-0.5] * 2, high=[0.5] * 2))
    agent.act(torch.zeros(2))
    assert torch.equal(agent._state.initial_std, torch.tensor(dynamics.action_spec.std))


def test_rows_may_be_given_as_a_mask(point_dynamics):
    agents = [MPC(point_dynamics(), torch.ones(3, 2), rows=3, planner=EVERY["cem"]) for _ in range(2)]
    for rows, agent in zip(([True, False, True], [0, 2]), agents, strict=True):
        agent.act(torch.zeros(3, 2))
        agent.reset(torch.tensor([[2.0, 0.0], [0.0, 2.0]]), rows=rows)
    assert torch.equal(agents[0].act(torch.zeros(3, 2)), agents[1].act(torch.zeros(3, 2)))


def test_a_class_instead_of_a_planner_and_a_goal_that_is_not_finite_are_errors(point_dynamics):
    with pytest.raises(InputError, match=r"planner=CEM\(\.\.\.\)"):
        MPC(point_dynamics(), planner=CEM)
    with pytest.raises(InputError, match="not finite"):
        MPC(point_dynamics(), torch.tensor([1.0, torch.nan]), planner=EVERY["cem"])


def test_smoothness_counts_from_what_was_executed(point_dynamics):
    """With nothing else to gain, the first action repeats the last one."""
    seen = []
    agent = MPC(
        point_dynamics(),
        planner=EVERY["cem"],
        cost=lambda imagined: seen.append(imagined) or imagined.z_BSLD.sum((-1, -2)),
    )
    executed = [agent.act(torch.zeros(2)) for _ in range(4)]
    imagined = seen[-1]
    assert torch.equal(imagined.past_B2A[0], torch.stack(executed[1:3]))
    expected = imagined.actions_BSHA[0, :, 0] - executed[2]
    assert torch.equal(imagined.changes()[0, :, 0], expected)
    assert imagined.changes(2).shape == imagined.actions_BSHA.shape
