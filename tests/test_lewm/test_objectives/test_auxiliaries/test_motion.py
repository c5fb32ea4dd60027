"""Bends of a latent trajectory: straight, folded back, at a right angle, at rest."""

import pytest
import torch

from lewm import registry


@pytest.mark.parametrize(
    ("turn", "expected"), [((1.0, 0.0), 0.0), ((-1.0, 0.0), 2.0), ((0.0, 3.0), 1.0), ((1.0, 1.0), 1 - 0.5**0.5)]
)
def test_straightening_is_one_minus_the_cosine_of_the_turn(make, turn, expected):
    term = registry.build("auxiliary", {"name": "straightening", "floor": 1e-6})
    z = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0 + turn[0], turn[1]]], dtype=torch.float64)
    assert term(make.encoded(z_BTD=z[None])).item() == pytest.approx(expected, abs=1e-9)


def test_straightening_is_the_mean_over_the_turns_of_all_windows(make):
    term = registry.build("auxiliary", {"name": "straightening", "floor": 1e-9})
    batch = make.encoded()
    step = batch.z_BTD.diff(dim=1)
    cosines = [torch.cosine_similarity(step[b, t], step[b, t + 1], dim=0) for b in range(4) for t in range(2)]
    torch.testing.assert_close(term(batch), 1 - torch.stack(cosines).mean())


def test_a_latent_at_rest_has_a_bounded_gradient(make):
    term = registry.build("auxiliary", {"name": "straightening"})
    z = torch.zeros(1, 4, 5, dtype=torch.float64)
    z[0, 2, 0] = 1e-12
    z[0, 3, 1] = 1.0
    z.requires_grad_()
    term(make.encoded(z_BTD=z)).backward()
    assert z.grad.abs().max() < 1e3


def test_temporal_similarity_is_the_mean_squared_step(make):
    term = registry.build("auxiliary", {"name": "temporal_similarity"})
    batch = make.encoded()
    steps = [(batch.z_BTD[:, t + 1] - batch.z_BTD[:, t]).square() for t in range(3)]
    torch.testing.assert_close(term(batch), torch.stack(steps).mean())
