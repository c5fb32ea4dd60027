"""Searches as one graph: the same bits, without a break, compiled once."""

import pytest
import torch

from planners import (
    CEM,
    ICEM,
    LBFGS,
    MPPI,
    Adam,
    GoalDistance,
    InputError,
    LatentCost,
    Limits,
    PredictiveSampling,
    from_step,
)

MATRIX = torch.tensor([[1.0, 0.1], [0.0, 1.0]])
KINDS = {"cem": CEM, "icem": ICEM, "mppi": MPPI, "predictive_sampling": PredictiveSampling}
every = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())


@pytest.fixture
def frames(monkeypatch):
    """torch.compile traces and guards as ever, but runs the graph as it is; counts what it traced."""
    import torch._dynamo.testing

    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("eager")
    compile_ = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda function, mode: compile_(function, fullgraph=True, backend=counter)
    )
    yield counter
    torch._dynamo.reset()


def step(state, action):
    return state @ MATRIX.T + torch.cat([0 * action, action], dim=-1) * 0.1


def term(imagined):
    return imagined.z_BSLD.square().sum(-1).mean(-1)


def compare(kind, frames, costs, spec, options, rows=2):
    """The same plans with and without compilation, for one cost after the other."""
    plain, compiled = kind(**options), kind(**options, compiled="default")
    states = [planner.init(rows, spec, range(rows)) for planner in (plain, compiled)]
    traced = []
    for cost in costs:
        expected, states[0] = plain.plan(cost(), states[0])
        got, states[1] = compiled.plan(cost(), states[1])
        for name in ("actions", "cost", "std", "failed", "feasible"):
            assert torch.equal(getattr(expected, name), getattr(got, name)), name
        assert torch.equal(states[0].mean, states[1].mean)
        assert expected.evaluations == got.evaluations
        assert "compiled" in got.timings
        states = [state.shift(2) for state in states]
        traced.append(frames.frame_count)
    assert traced[0] > 0
    assert traced[2] == traced[1]  # the third plan needs nothing new


OPTIONS = {"horizon": 3, "samples": 32, "iterations": 2, "warm_iterations": 1}


@pytest.mark.slow
@every
def test_compiled_search_with_a_step_function(frames, kind):
    limits = Limits(low=[-1.0], high=[1.0], rate=[0.3])
    dynamics = from_step(step, limits)
    costs = [
        lambda x=x: LatentCost(dynamics, torch.tensor([[1.0 + x, 0.0], [0.0, 1.0]]), None, term) for x in range(3)
    ]
    compare(kind, frames, costs, limits, OPTIONS)


@every
def test_compiled_search_with_a_real_model(frames, make_model, kind):
    model, generator = make_model("residual_mlp"), torch.Generator().manual_seed(0)
    options = OPTIONS | {"horizon": 2, "iterations": 1}  # more of them: above

    def cost_of(seed):
        pictures = torch.randint(
            0, 256, (1, 2, 16, 16, 3), dtype=torch.uint8, generator=generator.manual_seed(seed)
        )
        past = torch.zeros(1, (model.history - 1) * model.action_block, 2)
        with torch.no_grad():
            context = model.context(pictures[:, :1].expand(-1, model.history, -1, -1, -1), past)
            return LatentCost(model, context, model.encode(pictures[:, 1])[:, None], GoalDistance())

    compare(
        kind,
        frames,
        [lambda s=s: cost_of(s) for s in range(3)],
        model.action_spec,
        options,
        rows=1,
    )


def test_with_a_deadline_nothing_is_compiled(frames):
    planner = CEM(**OPTIONS, compiled="default")
    plan, _ = planner.plan(
        lambda actions: actions.square().sum((-1, -2)), planner.init(1, Limits(low=[-1.0], high=[1.0]), [0]), 10.0
    )
    assert frames.frame_count == 0
    assert "compiled" not in plan.timings


@pytest.mark.parametrize("kind", [Adam, LBFGS])
def test_gradient_planners_cannot_be_compiled(kind):
    with pytest.raises(InputError, match="compile"):
        kind(compiled="default")
