"""A cost from a world model, and dynamics from a step function."""

import pytest
import torch

from planners import CEM, LBFGS, MPC, Effort, GoalDistance, Imagined, LatentCost, Limits, StepDynamics, from_step


def images(rows, frames, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (rows, frames, 16, 16, 3), dtype=torch.uint8, generator=generator)


ALL = slice(0, 5)
ALONE = [slice(row, row + 1) for row in range(5)]
predictors = pytest.mark.parametrize("predictor", ["residual_mlp", "adaln_transformer"])


def problem(model, rows):
    """Context and goal latents (B, 1, D) of some of five problems."""
    observations, goals = images(5, model.history, 0)[rows], images(5, 1, 1)[rows, 0]
    between = torch.randn(
        5, (model.history - 1) * model.action_block, 2, generator=torch.Generator().manual_seed(2)
    )
    with torch.no_grad():
        return model.context(observations, between[rows]), model.encode(goals)[:, None]


def test_cost_is_the_distance_of_imagined_points(point_dynamics):
    dynamics = point_dynamics(action_block=2)
    actions = torch.tensor([[[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 2.0]], [[0.0, 0.0]] * 4]])
    goal = torch.tensor([[[2.0, 3.0]]])
    cost = LatentCost(dynamics, torch.zeros(1, 2), goal, GoalDistance(running=1.0, terminal=10.0))
    # the first candidate visits (2, 0) and (2, 3), the second stays at the origin
    assert cost(actions).tolist() == [[4.5, 143.0]]


def test_a_term_sees_all_that_is_imagined(point_dynamics):
    seen, dynamics = [], point_dynamics(action_block=2)
    start, goals = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.randn(2, 3, 2)
    actions = torch.ones(2, 5, 4, 2)
    LatentCost(dynamics, start, goals, lambda i: seen.append(i) or i.z_BSLD.sum((-1, -2)))(actions)
    assert len(seen) == 2
    for row, imagined in enumerate(seen):
        one = slice(row, row + 1)
        assert torch.equal(imagined.start_BD, start[one])
        assert torch.equal(imagined.goals_BGD, goals[one])
        assert torch.equal(imagined.actions_BSHA, actions[one])
        assert torch.equal(imagined.z_BSLD[0, 0], start[row] + torch.tensor([[2.0], [4.0]]))
        assert imagined.std.tolist() == [0.5, 0.5]


@predictors
@pytest.mark.parametrize("samples", [1, 2, 13, 33, 50])
def test_costs_of_a_real_model_are_the_same_bits_in_one_and_five_rows(make_model, predictor, samples):
    model = make_model(predictor)
    actions = torch.randn(5, samples, 6, 2, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        together = LatentCost(model, *problem(model, ALL), GoalDistance())(actions)
        for row in ALONE:
            alone = LatentCost(model, *problem(model, row), GoalDistance())(actions[row].clone())
            assert torch.equal(together[row], alone)
    assert len(together.unique()) == 5 * samples  # actions and rows matter


@pytest.mark.parametrize("samples", [1, 7, 9, 33])
@pytest.mark.parametrize("dim", [1, 3, 5])
def test_costs_of_your_own_matrices_are_the_same_bits_in_any_batch(samples, dim):
    """Rows of odd sizes begin at addresses of any alignment, which a product of matrices can tell."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(5, 5, generator=generator) / 3, torch.randn(5, dim, generator=generator)
    dynamics = from_step(lambda x, u: x @ a.T + u @ b.T, Limits(low=[-1.0] * dim, high=[1.0] * dim))
    start = torch.randn(5, 5, generator=generator)
    actions = torch.randn(5, samples, 3, dim, generator=generator)

    def term(imagined):
        return (imagined.actions_BSHA @ b.T).square().sum((-1, -2)) + imagined.z_BSLD.square().sum((-1, -2))

    together = LatentCost(dynamics, start, None, term)(actions)
    for row in ALONE:
        alone = LatentCost(dynamics, start[row].clone(), None, term)(actions[row].clone())
        assert torch.equal(together[row], alone)


@predictors
def test_plans_of_a_real_model_are_the_same_bits_in_one_and_five_rows(make_model, predictor):
    model, planner = make_model(predictor), CEM(horizon=6, samples=33, iterations=3)

    def plan(rows):
        cost = LatentCost(model, *problem(model, rows), GoalDistance())
        seeds = range(5)[rows]
        return planner.plan(cost, planner.init(len(seeds), model.action_spec, seeds))[0]

    together = plan(ALL)
    for row in ALONE:
        alone = plan(row)
        assert torch.equal(together.actions[row], alone.actions)
        assert torch.equal(together.cost[row], alone.cost)


@pytest.mark.parametrize("rows_per_call", [1, 2, 3, 5])
def test_rows_per_call_changes_rounding_at_most(make_model, rows_per_call):
    model = make_model()
    actions = torch.randn(5, 16, 4, 2, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        context, goals = problem(model, ALL)
        z, start = model.rollout(context, actions), model.start(context)
        expected = GoalDistance()(Imagined(z, start, actions, goals, model.action_spec))
        cost = LatentCost(model, context, goals, GoalDistance())
        cost._at_once = rows_per_call  # as on an accelerator
        torch.testing.assert_close(cost(actions), expected)


@predictors
def test_half_precision_changes_costs_a_little_and_their_type_not_at_all(make_model, predictor):
    model = make_model(predictor)
    actions = torch.randn(5, 40, 6, 2, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        arguments = (model, *problem(model, ALL), GoalDistance())
        exact = LatentCost(*arguments)(actions)
        half = LatentCost(*arguments, autocast=torch.bfloat16)(actions)
    assert half.dtype == torch.float32
    assert not torch.equal(half, exact)  # it was used
    torch.testing.assert_close(half, exact, rtol=0.05, atol=0.01 * exact.abs().mean().item())


def test_half_precision_is_handed_down_by_mpc(make_model):
    model, frame = make_model(), images(1, 1, 0)[0, 0]
    plans = []
    for autocast in (None, torch.bfloat16):
        agent = MPC(
            model, images(1, 1, 1)[0, 0], planner=CEM(horizon=4, samples=16, iterations=2), autocast=autocast
        )
        agent.act(frame)
        plans.append(agent.last_plan)
    assert plans[1].cost.dtype == torch.float32
    torch.testing.assert_close(plans[0].cost, plans[1].cost, rtol=0.1, atol=0.0)
    assert not torch.equal(plans[0].cost, plans[1].cost)


@predictors
def test_a_real_model_can_be_descended(make_model, predictor):
    model = make_model(predictor)
    planner = LBFGS(horizon=6, samples=2, iterations=10)
    cost = LatentCost(model, *problem(model, ALL), GoalDistance())
    plan, _ = planner.plan(cost, planner.init(5, model.action_spec, range(5)))
    with torch.no_grad():
        idle = cost(torch.zeros(5, 1, 6, 2))[:, 0]
    assert (plan.cost < idle).all()
    assert all(parameter.grad is None for parameter in model.parameters())


def pendulum(state, action):
    """Angle and speed, one torque; nothing here is linear."""
    angle, speed = state.unbind(-1)
    speed = speed + 0.1 * (9.81 * angle.sin() + action[..., 0])
    return torch.stack([angle + 0.1 * speed, speed], dim=-1)


def test_rollout_of_a_step_function_is_a_loop():
    dynamics = from_step(pendulum, Limits(low=[-2.0], high=[2.0]))
    assert isinstance(dynamics, StepDynamics)
    generator = torch.Generator().manual_seed(0)
    start, actions = torch.randn(3, 2, generator=generator), torch.randn(3, 4, 6, 1, generator=generator)
    context = dynamics.context(torch.stack([torch.zeros(3, 2), start], dim=1).double(), actions[:, 0])
    assert torch.equal(dynamics.start(context), start)
    got = dynamics.rollout(context, actions)
    for row in range(3):
        for sample in range(4):
            state = start[row]
            for t in range(6):
                state = pendulum(state, actions[row, sample, t])
                torch.testing.assert_close(got[row, sample, t], state)


def test_terms_know_the_std_of_limits_that_leave_it_out():
    dynamics = from_step(lambda state, action: state + action, Limits(low=[-1.0], high=[3.0]))
    cost = LatentCost(dynamics, torch.zeros(1, 1), None, Effort())
    assert cost(torch.full((1, 1, 2, 1), 2.0)).tolist() == [[4.0]]  # a quarter of the range is one


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_an_agent_with_a_step_function_reaches_its_target(kind):
    limits = Limits(low=[-2.0], high=[2.0], rate=[1.5])
    dynamics = from_step(
        lambda s, a: torch.stack([s[..., 0] + 0.2 * s[..., 1], s[..., 1] + 0.2 * a[..., 0]], -1), limits
    )
    planner = CEM(horizon=20, samples=200, iterations=4, warm_iterations=2)
    agent = MPC(dynamics, cost=lambda i: i.z_BSLD.square().sum(-1).mean(-1), planner=planner)
    state = torch.tensor([1.0, 0.0], dtype=kind)
    for _ in range(40):
        state = dynamics.step(state, agent.act(state).to(kind))
    assert state.abs().max() < 0.15
