"""Descent by gradients: reference implementations, limits, costs without a usable gradient."""

import pytest
import torch

from planners import LBFGS, Adam, InputError, Limits, Terms, mixing

SPEC = Limits(low=[-5.0], high=[5.0], std=[1.0])
both = pytest.mark.parametrize("kind", [Adam, LBFGS])


def rosenbrock(actions):
    """The banana valley of the first two actions, minimum 0 at (1, 1)."""
    x, y = actions[..., 0, 0], actions[..., 1, 0]
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def test_adam_takes_the_steps_of_torch(recorder, sphere):
    """One start; the learning rate is halved every 20 steps, and is in units of the std (0.5)."""
    limits, target = Limits(low=[-100.0] * 2, high=[100.0] * 2, std=[0.5, 0.5]), torch.tensor([3.0, -1.0])

    def cost(actions):
        return ((actions - target).square() * torch.tensor([1.0, 10.0])).sum((-1, -2))

    planner, seen = Adam(horizon=2, samples=1, iterations=30, learning_rate=0.2, half_life=20.0), recorder(cost)
    planner.plan(seen, planner.init(1, limits, [0]))
    point = torch.zeros(1, 1, 2, 2, requires_grad=True)
    reference = torch.optim.Adam([point], lr=0.2 * 0.5, betas=Adam.BETAS, eps=1e-12)
    schedule = torch.optim.lr_scheduler.ExponentialLR(reference, 0.5 ** (1 / 20))
    for candidates in seen.candidates:
        torch.testing.assert_close(candidates, point.detach(), rtol=1e-4, atol=1e-5)
        reference.zero_grad()
        cost(point).sum().backward()
        reference.step()
        schedule.step()


def test_lbfgs_solves_a_badly_scaled_quadratic():
    """Condition 10 000, six variables: steepest descent would take tens of thousands of steps."""
    scales = torch.logspace(0, 4, 6)

    def cost(actions):
        return (scales * (actions[..., 0] - 0.7).square()).sum(-1)

    planner = LBFGS(horizon=6, samples=1, iterations=60)
    plan, _ = planner.plan(cost, planner.init(2, SPEC, [0, 1]))
    assert (plan.cost < 1e-6).all()


def test_lbfgs_follows_the_banana_valley():
    planner = LBFGS(horizon=2, samples=1, iterations=80)
    plan, _ = planner.plan(rosenbrock, planner.init(1, SPEC, [0]))
    assert plan.cost < 1e-6
    torch.testing.assert_close(plan.actions.flatten(), torch.ones(2), rtol=0, atol=2e-3)


@both
def test_starts_do_not_disturb_each_other(kind, recorder):
    """The path of a start is the same whatever other starts there are."""
    paths = []
    for samples in (1, 2, 5):
        planner, seen = kind(horizon=2, samples=samples, iterations=12), recorder(rosenbrock)
        planner.plan(seen, planner.init(1, SPEC, [0]))
        paths.append(torch.stack([candidates[:, 0] for candidates in seen.candidates]))
    assert torch.equal(paths[0], paths[1])
    assert torch.equal(paths[0], paths[2])


@both
def test_an_active_bound_is_found(kind):
    """min |u - (9, 1)|^2 + 4 (u1 + u2 - 2)^2, u <= 2: the first at its bound, the second from its own condition."""

    def cost(actions):
        u, v = actions[..., 0, 0], actions[..., 1, 0]
        return (u - 9) ** 2 + (v - 1) ** 2 + 4 * (u + v - 2) ** 2

    limits = Limits(low=[-5.0], high=[2.0], std=[1.0])
    planner = kind(horizon=2, samples=2, iterations=150)
    plan, _ = planner.plan(cost, planner.init(1, limits, [0]))
    torch.testing.assert_close(plan.actions.flatten(), torch.tensor([2.0, 0.2]), rtol=0, atol=0.02)


@both
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_gradients_that_are_not_finite_do_not_poison(kind, bad):
    """sqrt at zero has an infinite slope and the first start is exactly there; another start has no finite cost."""

    def cost(actions):
        value = (actions - 1).square().sum((-1, -2)) + 1e-3 * actions.abs().sqrt().sum((-1, -2))
        return torch.where(actions[..., 0, 0] < -0.5, bad, value)

    planner = kind(horizon=3, samples=8, iterations=60)
    plan, state = planner.plan(cost, planner.init(3, SPEC, range(3)))
    assert not plan.failed.any()
    assert plan.actions.isfinite().all()
    assert state.mean.isfinite().all()
    assert (plan.cost < 0.1).all()


@both
def test_a_start_without_a_gradient_stays_and_the_others_move(kind, recorder):
    def cost(actions):
        value = (actions - 1).square().sum((-1, -2))
        first = (torch.arange(actions.shape[1]) == 0).expand(len(actions), -1)
        return torch.where(first, torch.nan, value)

    planner, seen = kind(horizon=3, samples=3, iterations=30), recorder(cost)
    plan, _ = planner.plan(seen, planner.init(1, SPEC, [0]))
    assert plan.cost < 0.01
    assert torch.equal(seen.candidates[-1][:, 0], torch.zeros(1, 3, 1))


@both
@pytest.mark.parametrize("mix", ["sum", "z_score", "std_ratio"])
def test_mixed_terms_are_descended(kind, mix):
    """The second term is zero wherever the search goes: a constant term must not stop the descent."""

    def cost(actions):
        goal = (actions - 1).square().sum((-1, -2))
        return Terms(torch.stack([goal, (actions.abs() - 50).clamp(min=0).sum((-1, -2))], -1), mixing.Mixer(mix))

    planner = kind(horizon=3, samples=4, iterations=60)
    plan, _ = planner.plan(cost, planner.init(2, SPEC, [0, 1]))
    torch.testing.assert_close(plan.actions, torch.ones(2, 3, 1), rtol=0, atol=0.05)


@both
def test_constraints_are_descended_by_their_penalty(kind):
    """min (u - 2)^2 with u <= 1, from a start that is far outside."""

    def cost(actions):
        u = actions[..., 0, 0]
        return Terms(((u - 2) ** 2)[..., None], mixing.Mixer(), (u - 1).clamp(min=0), penalty=100.0)

    planner = kind(horizon=1, samples=2, iterations=80)
    plan, state = planner.plan(cost, planner.init(1, SPEC, [0]))
    assert plan.feasible.all()
    assert 0.9 < plan.actions.item() <= 1
    assert not state.kept.requires_grad


@both
def test_the_next_plan_starts_from_the_best_found(kind, recorder):
    """Not from where the descent happened to stand when it ended: that may be a step too far."""

    def cost(actions):
        return (5 * actions).sin().sum((-1, -2)) + actions.square().sum((-1, -2)) / 10

    planner = kind(horizon=3, samples=4, iterations=7)
    for seed in range(10):
        plan, state = planner.plan(cost, planner.init(1, SPEC, [seed]))
        assert cost(state.mean[:, None]) <= plan.cost + 1e-5


@both
def test_plans_and_states_hold_no_graph(kind, sphere):
    planner = kind(horizon=3, samples=2, iterations=3)
    plan, state = planner.plan(sphere(0.3), planner.init(1, SPEC, [0]))
    for tensor in (plan.actions, plan.cost, plan.std, state.mean, state.std, state.kept):
        assert not tensor.requires_grad


@both
def test_a_cost_without_gradient_is_an_error(kind):
    planner = kind(horizon=3)
    with pytest.raises(InputError, match="differentiated"):
        planner.plan(lambda actions: actions.detach().square().sum((-1, -2)), planner.init(1, SPEC, [0]))


@both
def test_callers_gradient_mode_is_left_alone(kind, sphere):
    planner = kind(horizon=3, iterations=2)
    for mode in (True, False):
        with torch.set_grad_enabled(mode):
            plan, _ = planner.plan(sphere(0.3), planner.init(1, SPEC, [0]))
            assert torch.is_grad_enabled() == mode
        assert plan.cost < sphere(0.3)(torch.zeros(1, 1, 3, 1))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Adam, {"learning_rate": 0.0}),
        (Adam, {"half_life": 0.0}),
        (Adam, {"schedule": (4, 2)}),
        (Adam, {"samples": 0}),
        (LBFGS, {"memory": 0}),
        (LBFGS, {"first_step": 0.0}),
        (LBFGS, {"keep": 2}),
        (LBFGS, {"compiled": "default"}),
    ],
    ids=str,
)
def test_impossible_options_are_errors(kind, options):
    with pytest.raises(InputError):
        kind(**options)


@both
@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("mix", ["sum", "z_score", "std_ratio"])
def test_statistics_of_the_terms_stay_those_of_the_first_population(kind, mix, samples):
    """Two terms that pull apart: a descent whose objective changed on the way would stall or drift.

    With the moments of the first population the objective is a weighted sum of squares with a known minimum.
    """
    centres, first = torch.tensor([1.0, -0.5]), []

    def terms(actions):
        return (actions[..., None] - centres).square().sum((-2, -3))  # (B, S, 2)

    def cost(actions):
        first.append(actions.detach())
        return Terms(terms(actions), mixing.Mixer(mix))

    planner = kind(horizon=3, samples=samples, iterations=80)
    plan, _ = planner.plan(cost, planner.init(1, SPEC, [3]))
    weights = torch.ones(2)
    if mix != "sum":
        std = terms(first[0])[0].std(0, correction=0)
        weights = torch.where(std > 0, 1 / std, 1.0)
    optimum = (weights * centres).sum() / weights.sum()
    torch.testing.assert_close(plan.actions, optimum.expand(1, 3, 1), rtol=0, atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("samples", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_lbfgs_solves_box_constrained_quadratics(samples):
    """Random ones of condition 1000 with many active bounds, against projected gradient descent run to the end."""
    generator = torch.Generator().manual_seed(5)
    for seed in range(6):
        basis, _ = torch.linalg.qr(torch.randn(20, 20, generator=generator, dtype=torch.float64))
        hessian = basis @ torch.diag(torch.logspace(0, 3, 20, dtype=torch.float64)) @ basis.T
        target = 2 * torch.randn(20, generator=generator, dtype=torch.float64)

        def value(x, hessian=hessian, target=target):
            return 0.5 * ((x - target) @ hessian * (x - target)).sum(-1)

        x = torch.zeros(20, dtype=torch.float64)
        for _ in range(20_000):
            x = (x - (x - target) @ hessian / 1000).clamp(-1, 1)
        assert 2 < int((x.abs() == 1).sum()) < 20  # bounds are active, but not all
        planner = LBFGS(horizon=20, samples=samples, iterations=300)
        plan, _ = planner.plan(lambda a: value(a[..., 0].double()), planner.init(1, Limits([-1], [1]), [seed]))
        assert plan.cost.item() < value(x).item() * 1.001 + 1e-6
