"""Straightness, spectrum, order and symmetry of latent spaces made to have known ones."""

import math

import pytest
import torch
from scipy import stats

from lewm.diagnosis import rank_correlation, straightness, transition_spectrum
from lewm.diagnosis.geometry import PAIRS, SYMMETRIES, relative_error, turn_actions
from lewm.types import InputError


def gaussian(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_straightness_of_known_paths():
    t = torch.arange(6.0)
    line = torch.stack([t, 2 * t], dim=-1)[None]
    shuttle = torch.stack([t % 2, t % 2], dim=-1)[None]
    stairs = torch.stack([(t / 2).ceil(), (t / 2).floor()], dim=-1)[None]
    assert straightness(line) == pytest.approx(1) and straightness(shuttle) == pytest.approx(-1)
    assert straightness(stairs) == pytest.approx(0, abs=1e-9)
    assert straightness(gaussian(50, 20, 400)) == pytest.approx(-0.5, abs=0.01)


def test_steps_that_do_not_move_have_no_direction():
    rests = torch.tensor([0.0, 1.0, 2.0, 2.0, 3.0, 4.0]).view(1, 6, 1)
    assert straightness(rests) == pytest.approx(1)
    assert math.isnan(straightness(torch.zeros(2, 5, 3)))
    with pytest.raises(InputError, match="3 or more frames"):
        straightness(torch.zeros(2, 2, 3))


def linear_system(count, seed, mix):
    """z'_i = rho_i z_i + sqrt(1 - rho_i^2) noise, and one that the action alone decides; seen through `mix`."""
    rho = torch.tensor([0.9, 0.6, 0.0])
    z, action, noise = (
        gaussian(count, 3, seed=seed),
        gaussian(count, 1, seed=seed + 1),
        gaussian(count, 4, seed=seed + 2),
    )
    after = torch.cat([rho * z + (1 - rho**2).sqrt() * noise[:, :3], 0.8 * action + 0.6 * noise[:, 3:]], dim=1)
    return torch.cat([z @ mix[:3, :3], action], dim=1), after @ mix


def test_the_spectrum_of_a_linear_system():
    mix = torch.linalg.qr(gaussian(4, 4, seed=9)).Q @ torch.diag(torch.tensor([1.0, 2.0, 5.0, 0.5]).double())
    found = transition_spectrum(*linear_system(8000, 0, mix), *linear_system(8000, 10, mix), strength=1e-6)
    assert found.tolist() == pytest.approx([0.9, 0.8, 0.6, 0], abs=0.03)


def test_the_spectrum_does_not_believe_what_it_fitted():
    """Forty dimensions of noise and 100 transitions: fitted, the largest correlation is above 0.8."""
    noise = [gaussian(count, 40, seed=k) for k, count in enumerate((100, 100, 2000, 2000))]
    assert transition_spectrum(noise[0], noise[1], noise[0], noise[1])[0] > 0.8
    assert transition_spectrum(*noise).abs().max() < 0.15


def test_a_constant_dimension_is_not_predictable():
    before, after = gaussian(50, 2), torch.cat([gaussian(50, 2), torch.ones(50, 1)], dim=1)
    assert transition_spectrum(before, after, before, after).tolist() == pytest.approx([1, 1], abs=2e-3)


def test_order_of_distances():
    state = gaussian(60, 2)
    turn = torch.linalg.qr(gaussian(7, 7, seed=1)).Q[:2]
    assert rank_correlation(5 * state @ turn - 3, state) == pytest.approx(1, abs=1e-4)
    assert rank_correlation(gaussian(60, 2, seed=2), state) == pytest.approx(0, abs=0.2)
    assert math.isnan(rank_correlation(torch.zeros(60, 2), state))


def test_order_of_distances_is_spearmans_with_ties():
    z, state = gaussian(9, 3).round(), gaussian(9, 2, seed=1).round()
    generator = torch.Generator().manual_seed(0)
    first, gap = (torch.randint(0, n, (PAIRS,), generator=generator) for n in (9, 8))
    second = (first + 1 + gap) % 9
    assert (first != second).all()
    distances = [(x[first] - x[second]).norm(dim=1).numpy() for x in (z, state)]
    assert rank_correlation(z, state) == pytest.approx(stats.spearmanr(*distances).statistic, abs=1e-9)


def test_relative_error_is_zero_for_the_truth_and_one_for_the_mean():
    z = gaussian(5, 4, 3)
    assert relative_error(z, z) == 0
    assert relative_error(z.mean((0, 1)).expand_as(z), z) == pytest.approx(1)


def test_symmetries_turn_pictures_as_they_say():
    """A dot right of the top left corner, in a picture of 3 rows and columns."""
    picture = torch.zeros(2, 3, 3, 1)
    picture[:, 0, 1] = 1
    places = {"flip_x": (0, 1), "flip_y": (2, 1), "rotate_90": (1, 0), "rotate_180": (2, 1), "rotate_270": (1, 2)}
    assert {
        name: tuple(turn(picture)[1, ..., 0].nonzero()[0].tolist()) for name, turn in SYMMETRIES.items()
    } == places
    picture[:, 0, 0] = 2  # and its left neighbour, which tells a mirror from a turn
    assert SYMMETRIES["flip_x"](picture)[0, 0, 2] == 2 and SYMMETRIES["rotate_180"](picture)[0, 2, 2] == 2


def test_actions_turn_by_factors_or_by_a_matrix():
    actions = torch.tensor([3.0, 4.0]).expand(1, 2, 5, 2)
    assert turn_actions(actions, [-1, 1])[0, 0, 0].tolist() == [-3, 4]
    assert turn_actions(actions, [[0, -1], [1, 0]])[0, 1, 4].tolist() == [-4, 3]
    for wrong in ([1.0], [[1.0, 0.0]], "left", [[1, 0], [0]]):
        with pytest.raises(InputError, match="2 factors or 2 rows of 2 numbers"):
            turn_actions(actions, wrong)
