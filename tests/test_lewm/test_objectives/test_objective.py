"""The objective is the sum of its parts, with weights that mean the same anywhere."""

import pytest
import torch

from lewm import registry
from lewm.objectives import Encoded, Objective
from lewm.objectives.regularisers import EppsPulley, Independent
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


def encoded(copies=1, seed=5):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(B, T, D, generator=generator, dtype=torch.float64)
    actions = torch.randn(B, T - 1, E, generator=generator, dtype=torch.float64)
    z = z.repeat(copies, 1, 1).requires_grad_()
    return Encoded(z, actions.repeat(copies, 1, 1), Tanh(), torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("weight", [0.0, 1.0, 6.4])
def test_total_is_prediction_plus_weighted_regularisation(weight):
    batch = encoded()
    objective = registry.build("objective", {"name": "lejepa", "regulariser": {"name": "sigreg", "weight": weight}})
    terms = objective(batch)
    directions = Independent()(D, torch.Generator().manual_seed(5)).double()
    spread = EppsPulley()(batch.z_BTD.transpose(0, 1) @ directions).mean()  # over the batch, for each time
    torch.testing.assert_close(terms.regularisation, spread if weight else 0 * spread, rtol=1e-12, atol=0)
    torch.testing.assert_close(terms.total, terms.prediction + weight * spread, rtol=1e-12, atol=0)


def test_the_default_is_the_papers_with_gradient_into_both_sides():
    batch = encoded()
    prediction = Objective()(batch).prediction
    z, ahead = batch.z_BTD, batch.predictor(batch.z_BTD[:, :-1], batch.actions_BLE)
    expected = (ahead - z[:, 1:]).square().mean()
    torch.testing.assert_close(prediction, expected, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(value, z, retain_graph=True)[0] for value in (prediction, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-14)
    target_only = torch.autograd.grad((ahead.detach() - z[:, 1:]).square().mean(), z)[0]
    assert (gradients[0] - target_only).abs().amax() > 1e-3  # into the prediction
    assert gradients[0][:, -1].abs().min() > 0  # into the target, which nothing predicts from


@pytest.mark.parametrize("copies", [2, 5])
def test_weight_means_the_same_at_any_batch_size(copies):
    once, often = Objective()(encoded()), Objective()(encoded(copies))
    for name in ("total", "prediction", "regularisation"):
        torch.testing.assert_close(getattr(once, name), getattr(often, name), rtol=1e-12, atol=0)


def test_directions_follow_the_generator():
    draws = [Objective()(encoded(seed=seed)).regularisation.item() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_auxiliary_terms_are_added_with_their_weights():
    with_terms = Objective(auxiliary=[{"name": "straightening", "weight": 0.5}])(encoded())
    without = Objective()(encoded())
    added = with_terms.total - without.total
    torch.testing.assert_close(added, 0.5 * with_terms.parts["straightening"], rtol=1e-9, atol=0)
    assert added != 0


def test_the_regulariser_says_for_which_link_it_is():
    assert Objective().link == "none"
    assert Objective(regulariser="rdmreg").link == "rectified"
    assert Objective(regulariser="sphere_mmd").link == "sphere"


def test_terms_that_would_share_a_name_are_an_error():
    with pytest.raises(InputError, match="must differ"):
        Objective(auxiliary=["straightening", "straightening"])
