"""Effective rank of known spectra."""

import math

import pytest
import torch

from lewm.diagnosis import effective_rank


def gaussian(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_isotropic_latents_have_full_rank():
    assert effective_rank(gaussian(50_000, 16)) == pytest.approx(16, rel=0.01)


def test_a_line_has_rank_one():
    assert effective_rank(gaussian(500, 1) * gaussian(1, 16, seed=1) + 3) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("k", [1, 2, 5, 8])
def test_equal_directions_are_counted(k):
    axes = torch.linalg.qr(gaussian(8, 8, seed=1)).Q[:, :k]
    signs = torch.cat([torch.eye(k), -torch.eye(k)])  # covariance exactly proportional to the identity
    assert effective_rank(signs @ axes.T) == pytest.approx(k, rel=1e-3)


def test_unequal_directions_follow_the_entropy():
    """Variances 3 : 1 have the entropy of a coin of 3/4."""
    points = torch.tensor([[math.sqrt(3), 0], [-math.sqrt(3), 0], [0, 1], [0, -1]])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_rank(points) == pytest.approx(math.exp(entropy), rel=1e-5)


def test_place_scale_and_rotation_do_not_matter():
    z = gaussian(300, 6) * torch.arange(1, 7)
    rotation = torch.linalg.qr(gaussian(6, 6, seed=1)).Q
    assert effective_rank(100 * z @ rotation + 7) == pytest.approx(effective_rank(z), rel=1e-3)


def test_a_point_has_rank_one():
    assert effective_rank(torch.zeros(50, 8)) == pytest.approx(1)
