"""Regularisers of second moments, by hand."""

import pytest
import torch

from lewm.types import InputError

CROSS = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]]).double()[:, None]  # Cov = diag(2, 1 / 2)


def test_vicreg_by_hand(make):
    torch.testing.assert_close(make.value("vicreg", CROSS).item(), (1 - 0.5001**0.5) / 2)
    tilted = CROSS @ (torch.tensor([[1.0, 1.0], [-1.0, 1.0]]).double() / 2**0.5)  # Cov = [[5/4, 3/4], [3/4, 5/4]]
    torch.testing.assert_close(make.value("vicreg", tilted).item(), 0.04 / 2 * 2 * 0.75**2)


def test_vicreg_does_not_bound_the_spread_from_above(make):
    wide = make.value("vicreg", 3 * make.gaussian(4000, 1, 2), covariance=0.0)
    assert wide == 0


def test_weak_sigreg_by_hand(make):
    torch.testing.assert_close(make.value("weak_sigreg", CROSS).item(), (1 + 0.25) ** 0.5)
    torch.testing.assert_close(make.value("weak_sigreg", CROSS, floor=1.0).item(), 1.25**0.5 + (1 - 0.5**0.5) / 2)


def test_an_orthonormal_sketch_of_white_latents_costs_nothing(make):
    """Latents whose covariance is exactly the identity: Gaussian rows would cost K / sqrt(D) = 2."""
    white = torch.linalg.qr(make.gaussian(64, 16)).Q * 8
    assert make.value("weak_sigreg", white[:, None], sketch=8, centre="none") < 1e-6


def test_spectral_floor_is_silent_on_white_latents_and_hears_a_missing_half(make):
    white = torch.linalg.qr(make.gaussian(64, 16)).Q * 8
    white = (white - white.mean(0))[:, None]
    assert make.value("spectral_floor", white) < 1e-3
    thin = white * (torch.arange(16) < 2) * 8**0.5  # of the same energy
    assert make.value("spectral_floor", thin) > 0.5


def test_spectral_floor_by_hand(make):
    """Two uncorrelated coordinates of variance e^2 x 1/4 and e^-4 x 1/4 in a sketch of both."""
    rows = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]).double()
    deviation = 0.5 * torch.exp(torch.tensor([1.0, -2.0])).double()
    variance = deviation**2
    energy, trace = variance.mean(), variance.sum()
    spectral = (
        (-1.0 - variance.log().mean()).square()
        + (0.9 - trace**2 / variance.square().sum() / 2).square()
        + (variance.max() / trace - 0.35).square()
    )
    expected = 0.2 * (energy - 1) ** 2 + 0.5 * torch.relu(0.2 - deviation).square().mean() + 0.5 * spectral
    z = (rows * deviation)[:, None]
    found = make.value("spectral_floor", z, sketch=2, log_det=-1.0, participation=0.9)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)


def test_sketches_that_cannot_be_are_errors(make):
    with pytest.raises(InputError, match="sketch >= 0"):
        make.build("weak_sigreg", sketch=-1)
    with pytest.raises(InputError, match="sketch >= 1"):
        make.build("spectral_floor", sketch=0)
