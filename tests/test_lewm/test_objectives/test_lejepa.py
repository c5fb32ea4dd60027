"""The objective: teacher-forced and open-loop errors by hand, and a weight that means the same anywhere."""

import pytest
import torch

from lewm.objectives import LeJEPA, sigreg
from lewm.objectives.sigreg import unit_directions
from lewm.types import InputError

B, T, D, K, A = 5, 4, 6, 2, 3


def batch(rows=B):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(rows, T, D, generator=generator, dtype=torch.float64, requires_grad=True)
    return z, torch.randn(rows, T - 1, K, A, generator=generator, dtype=torch.float64)


@pytest.fixture
def predict():
    """A causal predictor that looks one frame back."""
    generator = torch.Generator().manual_seed(1)
    now, before = (0.3 * torch.randn(D, D, generator=generator, dtype=torch.float64) for _ in range(2))
    act = 0.3 * torch.randn(K * A, D, generator=generator, dtype=torch.float64)

    def call(z_BTD, actions_BTKA):
        assert z_BTD.shape[:2] == actions_BTKA.shape[:2]
        past = torch.cat([torch.zeros_like(z_BTD[:, :1]), z_BTD[:, :-1]], dim=1)
        return torch.tanh(z_BTD @ now + past @ before + actions_BTKA.flatten(2) @ act)

    return call


def generator():
    return torch.Generator().manual_seed(5)


@pytest.mark.parametrize("weight", [0.0, 1.0, 6.4])
def test_total_is_prediction_plus_weighted_regularisation(predict, weight):
    z, actions = batch()
    terms = LeJEPA(weight=weight, directions=32)(z, actions, predict, generator())
    spread = sigreg(z.transpose(0, 1), unit_directions(D, 32, generator()))  # over the batch, for each time
    torch.testing.assert_close(terms.regularisation, spread, rtol=1e-12, atol=0)
    torch.testing.assert_close(terms.total, terms.prediction + weight * spread, rtol=1e-12, atol=0)


def test_default_is_teacher_forced_next_embedding_error_with_gradient_into_both_sides(predict):
    z, actions = batch()
    prediction = LeJEPA(open_loop=1)(z, actions, predict, generator()).prediction
    expected = (predict(z[:, :-1], actions) - z[:, 1:]).square().mean()
    torch.testing.assert_close(prediction, expected, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(value, z)[0] for value in (prediction, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-14)
    target_only = torch.autograd.grad((predict(z[:, :-1], actions).detach() - z[:, 1:]).square().mean(), z)[0]
    assert (gradients[0] - target_only).abs().amax() > 1e-3  # into the prediction
    assert gradients[0][:, -1].abs().min() > 0  # into the target, which nothing predicts from


def by_hand(z, actions, predict, open_loop):
    """Mean over k of the mean squared error of predicting k blocks ahead, frame by frame."""
    chains, errors = z, []
    for k in range(1, open_loop + 1):
        chains = predict(chains[:, : T - k], actions[:, k - 1 :])
        errors.append(sum((chains[:, t] - z[:, t + k]).square().mean() for t in range(T - k)) / (T - k))
    return sum(errors) / open_loop


@pytest.mark.parametrize("open_loop", [1, 2, 3])
def test_open_loop_equals_iteration_by_hand(predict, open_loop):
    z, actions = batch()
    prediction = LeJEPA(open_loop=open_loop)(z, actions, predict, generator()).prediction
    expected = by_hand(z, actions, predict, open_loop)
    torch.testing.assert_close(prediction, expected, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(value, z)[0] for value in (prediction, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


def test_open_loop_is_zero_for_a_perfect_model_and_counts_each_block():
    """Latents that move by the sum of their action block: exact at any depth, not so with shifted actions."""
    actions = torch.randn(B, T - 1, K, A, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    moves = torch.cat([torch.zeros(B, 1, A, dtype=torch.float64), actions.sum(2)], dim=1)
    z = moves.cumsum(1)
    right = LeJEPA(open_loop=3)(z, actions, lambda z, a: z + a.sum(2), generator())
    assert right.prediction < 1e-24
    shifted = LeJEPA(open_loop=3)(z, actions.roll(1, 1), lambda z, a: z + a.sum(2), generator())
    assert shifted.prediction > 0.1


def test_open_loop_is_limited_by_the_window(predict):
    z, actions = batch()
    longest = LeJEPA(open_loop=T - 1)(z, actions, predict, generator())
    more = LeJEPA(open_loop=50)(z, actions, predict, generator())
    assert torch.equal(longest.total, more.total)


@pytest.mark.parametrize("copies", [2, 5])
def test_weight_means_the_same_at_any_batch_size(predict, copies):
    z, actions = batch()
    once = LeJEPA()(z, actions, predict, generator())
    often = LeJEPA()(z.repeat(copies, 1, 1), actions.repeat(copies, 1, 1, 1), predict, generator())
    for name in ("total", "prediction", "regularisation"):
        torch.testing.assert_close(getattr(once, name), getattr(often, name), rtol=1e-12, atol=0)


def test_directions_follow_the_generator(predict):
    z, actions = batch()
    draws = [
        LeJEPA(directions=8)(z, actions, predict, torch.Generator().manual_seed(seed)).regularisation.item()
        for seed in (0, 0, 1)
    ]
    assert draws[0] == draws[1] != draws[2]


def test_open_loop_below_one_is_an_error():
    with pytest.raises(InputError, match="open_loop and directions >= 1"):
        LeJEPA(open_loop=0)
