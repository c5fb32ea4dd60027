"""Surprise: teleports, and nothing at all, in a world z' = z + a."""

import math

import pytest
import torch
from scipy import stats

from lewm.diagnosis.surprise import one_step, paired_t, recoloured, splice, squared_error, surprise
from lewm.types import InputError


def gaussian(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def imagine(z, actions):
    return z[:, -1:] + actions[:, z.shape[1] - 1 :].sum(2).cumsum(1)


def trajectories(count=40, noise=0.1):
    """Latents (B, 7, 2) of walks with noise of a known size, and their actions (B, 6, 1, 2)."""
    actions = gaussian(count, 6, 1, 2)
    steps = actions.squeeze(2) + noise * gaussian(count, 6, 2, seed=1)
    return torch.cat([gaussian(count, 1, 2, seed=2), steps], dim=1).cumsum(1), actions


@pytest.mark.parametrize("history", [1, 3])
def test_the_usual_error_is_the_noise(history):
    z, actions = trajectories(2000)
    errors = squared_error(one_step(imagine, z, actions, history), z[:, history:])
    assert errors.shape == (2000, 7 - history)
    assert errors.mean().item() == pytest.approx(0.01, rel=0.03)


def test_a_teleport_is_noticed_where_it_happens_and_only_there():
    z, actions = trajectories()
    z_moved, acted = splice(z, z.roll(1, 0), 4), splice(actions, actions.roll(1, 0), 4)
    usual, disturbed = (
        squared_error(one_step(imagine, *given), given[0][:, 1:]) for given in ((z, actions), (z_moved, acted))
    )
    seen = surprise(usual, disturbed, at=3, episodes_B=torch.arange(40))
    assert seen.ratio > 50 and stats.t.sf(seen.t, seen.pairs - 1) < 1e-4
    elsewhere = [k for k in range(6) if k != 3]
    assert [seen.disturbed[k] for k in elsewhere] == pytest.approx([seen.usual[k] for k in elsewhere], rel=1e-4)


def test_nothing_disturbed_is_no_surprise():
    usual = gaussian(10, 5).square()
    seen = surprise(usual, usual, at=2, episodes_B=torch.arange(10))
    assert seen.ratio == 1 and math.isnan(seen.t)


def test_windows_of_one_episode_are_one_pair():
    """The test is scipy's, on the means of the episodes."""
    usual, disturbed = gaussian(12, 3).square(), gaussian(12, 3, seed=1).square() + 0.5
    episodes = torch.tensor([5, 5, 5, 2, 2, 9, 9, 9, 9, 7, 8, 8])
    means = [[x[episodes == k, 1].mean().item() for k in (2, 5, 7, 8, 9)] for x in (disturbed, usual)]
    seen = surprise(usual, disturbed, at=1, episodes_B=episodes)
    assert seen.pairs == 5
    assert seen.t == pytest.approx(stats.ttest_rel(*means).statistic, rel=1e-5)


def test_t_of_too_little_is_not_a_number():
    assert math.isnan(paired_t(torch.ones(1))) and math.isnan(paired_t(torch.ones(5)))
    assert paired_t(torch.tensor([1.0, 3.0])) == pytest.approx(2 / math.sqrt(2) * math.sqrt(2))


def test_colours_change_places_and_grey_stays():
    picture = torch.tensor([[[10, 20, 30], [7, 7, 7]]], dtype=torch.uint8)
    assert recoloured(picture).tolist() == [[[30, 10, 20], [7, 7, 7]]]


def test_errors_that_do_not_fit_are_said():
    with pytest.raises(InputError, match="a frame within it"):
        surprise(torch.zeros(3, 4), torch.zeros(3, 4), at=4, episodes_B=torch.arange(3))
