"""Effective rank of known spectra."""

import math

import pytest
import torch

from lewm.diagnosis.health import effective_rank, episode_share, health, two_nn
from lewm.types import InputError


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


def test_two_nn_of_three_points_is_its_formula():
    """Points 0, 1, 3: ratios 3, 2 and 1.5; with one of three censored the largest counts as the second."""
    line = torch.tensor([[0.0], [1.0], [3.0]])
    assert two_nn(line, censored=0) == pytest.approx(2 / math.log(9))
    assert two_nn(line, censored=1 / 3) == pytest.approx(1 / math.log(1.5 * 2 * 2))


@pytest.mark.parametrize("d", [1, 2, 5, 10])
def test_two_nn_counts_the_dimensions_of_a_flat_sheet(d):
    axes = torch.linalg.qr(gaussian(192, 192, seed=1)).Q[:d]
    assert two_nn(gaussian(1500, d) @ axes) == pytest.approx(d, rel=0.12)


def test_two_nn_sees_a_fold_that_the_spectrum_does_not():
    """Random Fourier features of three numbers fill 192 dimensions as a Gaussian does, to second order."""
    full = gaussian(128, 192)
    phase = 2 * math.pi * torch.rand(192, generator=torch.Generator().manual_seed(1))
    sheet = math.sqrt(2) * torch.cos(gaussian(128, 3, seed=2) @ (4 * gaussian(3, 192, seed=3)) + phase)
    mine, other = health(sheet), health(full)
    assert mine.participation_ratio > 0.85 * other.participation_ratio
    assert mine.effective_rank > 0.85 * other.effective_rank
    assert other.two_nn > 40 and mine.two_nn < 12


def test_two_nn_counts_a_point_once_and_needs_three(monkeypatch):
    z = gaussian(200, 4)
    whole = two_nn(z)
    assert two_nn(z.repeat(3, 1)) == pytest.approx(whole)
    assert math.isnan(two_nn(z[:2].repeat(9, 1)))
    monkeypatch.setattr("lewm.diagnosis.health.CHUNK", 7)
    assert two_nn(4 * z) == pytest.approx(whole, rel=1e-9)


def test_health_of_a_gaussian_and_of_a_point():
    n = 256
    seen = health(gaussian(n, 32))
    assert seen.epps_pulley == pytest.approx(1, abs=0.5) and seen.std == pytest.approx(1, abs=0.03)
    assert seen.mean_norm == pytest.approx(1 / math.sqrt(n), rel=0.3)
    assert seen.complaints == [] and math.isnan(seen.episode_share)
    point = health(torch.zeros(n, 32))
    assert point.epps_pulley == pytest.approx(0.4020 / 1.0525 * n, rel=1e-3)
    assert point.std == 0 and math.isnan(point.two_nn)
    assert "collapsed" in point.complaints[0]


def test_health_of_a_known_covariance():
    """Standard deviations 1, 2 and 3, one dimension constant: variances 1, 4, 9."""
    signs = torch.cat([torch.eye(3), -torch.eye(3)]) * torch.tensor([1.0, 2.0, 3.0]) * math.sqrt(5 / 2)
    seen = health(torch.cat([signs, torch.full((6, 1), 2.0)], dim=1))
    assert (seen.std, seen.std_min) == pytest.approx((6 / 4, 0))
    assert seen.condition == pytest.approx(9) and seen.mean_norm == pytest.approx(1)
    assert seen.participation_ratio == pytest.approx(14**2 / (1 + 16 + 81))


def test_a_curve_is_a_complaint():
    angle = 2 * math.pi * torch.rand(400, 1, generator=torch.Generator().manual_seed(0))
    curve = torch.cat([f(k * angle) for k in range(1, 9) for f in (torch.sin, torch.cos)], dim=1)
    assert effective_rank(curve) > 10
    assert "curve" in health(curve).complaints[0]


def test_what_health_cannot_examine_is_said():
    with pytest.raises(InputError, match="at least 3 latents"):
        health(torch.zeros(2, 4))
    with pytest.raises(InputError, match="not finite"):
        health(torch.full((5, 4), torch.nan))


def test_the_share_that_is_constant_in_an_episode():
    """One where nothing moves, zero for independent frames, 3 / (3 + 1) for variances 3 between and 1 within."""
    episodes = torch.arange(2000).repeat_interleave(5) * 7
    place = gaussian(2000, 3).repeat_interleave(5, dim=0)
    noise = gaussian(10_000, 3, seed=1)
    assert episode_share(place, episodes) == pytest.approx(1)
    assert episode_share(noise, episodes) == pytest.approx(0, abs=0.01)
    assert episode_share(math.sqrt(3) * place + noise, episodes) == pytest.approx(0.75, abs=0.02)
    uneven = torch.rand(10_000, generator=torch.Generator().manual_seed(2)) < 0.6
    assert episode_share((math.sqrt(3) * place + noise)[uneven], episodes[uneven]) == pytest.approx(0.75, abs=0.02)
    assert math.isnan(episode_share(noise, torch.arange(10_000)))
