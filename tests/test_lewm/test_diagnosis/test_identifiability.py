"""Identifiability of copies of the state that were turned, stretched, bent and diluted."""

import pytest
import torch

from lewm.diagnosis.identifiability import identifiability


def gaussian(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def white():
    """(600, 2) with exactly unit covariance."""
    s = gaussian(600, 2)
    s = s - s.mean(0)
    return s @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(s.T))).T


UNITS = torch.tensor([[3.0, 1.0], [0.0, 0.2]], dtype=torch.float64)  # what the state was recorded in


def scores(state, z):
    return identifiability(z[:400], state[:400], z[400:], state[400:])


def test_a_turned_and_scaled_copy_is_identified(white):
    turn = torch.linalg.qr(gaussian(5, 5, seed=1)).Q[:2]
    seen = identifiability(3 * white @ turn + 1, white @ UNITS, 3 * white @ turn + 1, white @ UNITS)
    assert (seen.state_from_latent, seen.latent_from_state) == pytest.approx((1, 1), abs=1e-6)
    assert seen.orthogonality == pytest.approx(0, abs=1e-5)


def test_a_stretched_copy_is_linear_but_not_orthogonal(white):
    """Scales 1 and 3: A^T A is diag(1, 9) / 5 off the identity by 0.8 in each."""
    z = white * torch.tensor([1.0, 3.0])
    seen = identifiability(z, white, z, white)
    assert seen.latent_from_state == pytest.approx(1, abs=1e-6)
    assert seen.orthogonality == pytest.approx(0.8, abs=1e-4)


def test_what_is_held_beside_the_state_lowers_one_direction_only(white):
    seen = scores(white, torch.cat([white, gaussian(600, 2, seed=1)], dim=1))
    assert seen.state_from_latent == pytest.approx(1, abs=1e-6)
    assert seen.latent_from_state == pytest.approx(0.5, abs=0.05)


def test_a_bent_copy_is_not_linear(white):
    assert scores(white, white.square()).state_from_latent < 0.1
    seen = scores(white, torch.cat([white, white.square()], dim=1))
    assert seen.state_from_latent == pytest.approx(1, abs=1e-6) and seen.latent_from_state < 0.6


def test_an_axis_that_stays_constant_is_left_out(white):
    state = torch.cat([white, torch.full((600, 1), 0.3)], dim=1)
    assert scores(state, white) == scores(white, white)
