"""Prediction errors, by hand and at what they are zero for."""

import pytest
import torch

from lewm import registry
from lewm.objectives import Encoded
from lewm.types import InputError

B, T, D, E = 5, 4, 6, 3


class Tanh:
    """A causal predictor that looks one frame back."""

    history = 2

    def __init__(self):
        generator = torch.Generator().manual_seed(1)
        draw = lambda *shape: 0.3 * torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
        self.now, self.before, self.act = draw(D, D), draw(D, D), draw(E, D)

    def __call__(self, z_BTD, actions_BTE):
        assert z_BTD.shape[:2] == actions_BTE.shape[:2]
        past = torch.cat([torch.zeros_like(z_BTD[:, :1]), z_BTD[:, :-1]], dim=1)
        return torch.tanh(z_BTD @ self.now + past @ self.before + actions_BTE @ self.act)


class Sum:
    """What moves by its actions, and a rollout that knows it."""

    history = 1

    def __call__(self, z_BTD, actions_BTE):
        return z_BTD + actions_BTE

    def observe(self, z_BTD, past_BTE):
        assert z_BTD.shape[1] == past_BTE.shape[1] + 1 <= self.history
        return z_BTD[:, None, -1:]

    def rollout(self, observed, future_BSLE):
        return observed + future_BSLE.cumsum(2)


def encoded(predictor=None):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(B, T, D, generator=generator, dtype=torch.float64, requires_grad=True)
    actions = torch.randn(B, T - 1, E, generator=generator, dtype=torch.float64)
    return Encoded(z, actions, predictor or Tanh(), generator)


def moved(shift=0):
    """Latents that are the sum of their actions, with the right ones or others."""
    actions = torch.randn(B, T - 1, D, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    z = torch.cat([torch.zeros(B, 1, D, dtype=torch.float64), actions], dim=1).cumsum(1)
    return Encoded(z, actions.roll(shift, 1), Sum(), torch.Generator())


def error(name, batch, **settings):
    return registry.build("prediction", {"name": name, **settings})(batch)


def by_hand(batch, weights):
    """Mean squared error of predicting k blocks ahead, frame by frame."""
    z, chains, total = batch.z_BTD, batch.z_BTD, 0.0
    for k, weight in enumerate(weights, start=1):
        chains = batch.predictor(chains[:, : T - k], batch.actions_BLE[:, k - 1 :])
        total = total + weight * sum((chains[:, t] - z[:, t + k]).square().mean() for t in range(T - k)) / (T - k)
    return total


@pytest.mark.parametrize(
    ("settings", "weights"),
    [
        ({"steps": 1}, [1.0]),
        ({"steps": 2}, [1 / 2, 1 / 2]),
        ({"steps": 3}, [1 / 3, 1 / 3, 1 / 3]),
        ({"steps": 3, "growth": 1.0}, [1 / 6, 2 / 6, 3 / 6]),
    ],
)
def test_open_loop_equals_iteration_by_hand(settings, weights):
    batch = encoded()
    values = error("open_loop", batch, **settings), by_hand(batch, weights)
    torch.testing.assert_close(*values, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(value, batch.z_BTD, retain_graph=True)[0] for value in values]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


def test_one_step_is_open_loop_of_one():
    batch = encoded()
    torch.testing.assert_close(error("one_step", batch), error("open_loop", batch, steps=1), rtol=1e-12, atol=0)


def test_open_loop_is_limited_by_the_window():
    assert torch.equal(error("open_loop", encoded(), steps=T - 1), error("open_loop", encoded(), steps=50))


@pytest.mark.parametrize("name", ["one_step", "open_loop", "prefixes"])
def test_zero_for_a_perfect_model_and_each_block_counts(name):
    assert error(name, moved()) < 1e-24
    assert error(name, moved(shift=1)) > 0.1


def test_prefixes_are_rollouts_from_the_first_frame():
    batch = moved(shift=1)
    ahead = batch.z_BTD[:, :1] + batch.actions_BLE.cumsum(1)
    expected = (ahead - batch.z_BTD[:, 1:]).square().mean()
    torch.testing.assert_close(error("prefixes", batch), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["one_step", "open_loop", "prefixes"])
def test_autocast_does_not_round_the_error(name):
    batch = moved(shift=1)
    single = Encoded(batch.z_BTD.float(), batch.actions_BLE.float(), Sum(), torch.Generator())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = error(name, single)
    assert torch.equal(inside, error(name, single))


def test_no_steps_are_an_error():
    with pytest.raises(InputError, match="steps >= 1"):
        registry.build("prediction", {"name": "open_loop", "steps": 0})
