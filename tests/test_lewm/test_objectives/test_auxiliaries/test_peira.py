"""PEIRA: the known minimum, the gradient of the trace objective, running means that survive a restart."""

import pytest
import torch

from lewm import registry
from lewm.types import InputError


def peira(**settings):
    return registry.build("auxiliary", {"name": "peira", **settings})


def persistent(z, actions):
    return z


def trace_objective(u, v, ridge):
    cross = (v.T @ u + u.T @ v) / len(u)
    auto = (u.T @ u + v.T @ v) / len(u)
    share = cross @ torch.linalg.inv(auto + ridge * torch.eye(u.shape[-1]).to(u))
    return (-share.trace() / 2 + ridge / 2 * (u.square() + v.square()).sum(-1).mean()) / u.shape[-1]


def test_value_and_gradient_are_the_trace_objectives_at_rate_one(make):
    term = peira(rate=1.0, ridge=0.3)
    batch = make.encoded(rows=6, heads=make.heads(term))
    value = term(batch)
    expected = trace_objective(batch.predicted_BLD.flatten(0, 1), batch.z_BTD[:, 1:].flatten(0, 1), 0.3)
    torch.testing.assert_close(value, expected)
    gradients = [torch.autograd.grad(x, batch.z_BTD, retain_graph=True)[0] for x in (value, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)


def test_white_latents_predicted_perfectly_are_the_minimum_and_collapse_is_zero(make):
    term = peira(ridge=0.2, rate=1.0)
    rows = torch.linalg.qr(torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    z = (rows * (8 * 0.4) ** 0.5)[:, None].repeat(1, 2, 1).requires_grad_()  # covariance 0.4 I, (1 - ridge) / 2
    best = make.encoded(rows=8, frames=2, z_BTD=z, predictor=persistent, heads=make.heads(term))
    value = term(best)
    assert value.item() == pytest.approx(-((1 - 0.2) ** 2) / 2)
    value.backward()
    assert z.grad.abs().max() < 1e-12
    for factor in (0.9, 1.1):
        other = make.encoded(rows=8, frames=2, z_BTD=z * factor, predictor=persistent, heads=make.heads(term))
        assert term(other) > value
    collapsed = make.encoded(rows=8, frames=2, z_BTD=z * 0, predictor=persistent, heads=make.heads(term))
    assert term(collapsed) == 0


def test_running_means_go_on_from_a_saved_state(make):
    """Three batches in one go, or two, a state dict, and the third: the same bits."""
    term = peira(rate=0.5)
    batches = [make.encoded(seed=seed) for seed in range(3)]

    def run(heads, batches):
        return [term(make.encoded(z_BTD=b.z_BTD, heads=heads)).item() for b in batches][-1]

    straight = make.heads(term)
    expected = run(straight, batches)
    first, second = make.heads(term), make.heads(term)
    run(first, batches[:2])
    second["moments"].load_state_dict(first["moments"].state_dict())
    assert run(second, batches[2:]) == expected
    assert run(make.heads(term), batches[2:]) != expected


def test_a_ridge_outside_0_and_1_is_refused():
    with pytest.raises(InputError, match="0 < ridge < 1, got 1"):
        peira(ridge=1.0)
