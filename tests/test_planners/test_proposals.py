"""Coloured noise: its moments, and what it depends on."""

import pytest
import torch

from planners import Coloured

HORIZON = 8


def moments(correlation):
    """Mean (H,) and covariance (H, H) between steps of 160 000 samples."""
    noise = Coloured(correlation=correlation)(
        torch.arange(4), torch.zeros(4, dtype=torch.int64), 0, (20_000, HORIZON, 2)
    )
    samples = noise.permute(0, 1, 3, 2).reshape(-1, HORIZON).double()
    return samples.mean(0), samples.T @ samples / len(samples)


@pytest.mark.parametrize("correlation", [0.0, 0.4, 0.7, 0.95])
def test_unit_variance_and_stated_autocorrelation(correlation):
    mean, covariance = moments(correlation)
    steps = torch.arange(HORIZON, dtype=torch.float64)
    expected = correlation ** (steps[:, None] - steps).abs()  # 0 ** 0 = 1: white
    assert mean.abs().max() < 0.015  # six standard errors
    assert (covariance - expected).abs().max() < 0.02


def test_action_dimensions_and_rows_are_independent():
    noise = Coloured(correlation=0.7)(torch.arange(2), torch.zeros(2, dtype=torch.int64), 0, (40_000, 3, 2))
    flat = noise.permute(1, 0, 3, 2).reshape(40_000, 4, 3)[:, :, 1].double()  # (sample, row x dim) of one step
    covariance = flat.T @ flat / len(flat)
    assert (covariance - torch.eye(4)).abs().max() < 0.03


@pytest.mark.parametrize("correlation", [0.0, 0.7])
@pytest.mark.parametrize("shape", [(7, 5, 1), (64, 7, 3), (128, 40, 2), (200, 25, 2)])
def test_row_depends_on_its_seed_replan_and_iteration_only(correlation, shape):
    coloured = Coloured(correlation=correlation)
    generator = torch.Generator().manual_seed(0)
    for rows in (1, 2, 3, 7, 16):
        seeds = torch.randint(0, 1000, (rows,), generator=generator)
        replans = torch.randint(0, 50, (rows,), generator=generator)
        seeds[-1], replans[-1] = 42, 3
        row = coloured(seeds, replans, 2, shape)[-1]
        alone = coloured(torch.tensor([42]), torch.tensor([3]), 2, shape)[0]
        assert torch.equal(row, alone), f"{rows} rows"


def test_any_change_of_seed_replan_or_iteration_changes_the_noise():
    coloured, shape = Coloured(correlation=0.5), (4, 5, 2)
    keys = [(seed, replan, iteration) for seed in (-1, 0, 1, 2) for replan in range(3) for iteration in range(3)]
    draws = [coloured(torch.tensor([s]), torch.tensor([r]), i, shape) for s, r, i in keys]
    assert len({tuple(draw.flatten().tolist()) for draw in draws}) == len(keys)


def test_global_generator_is_left_alone():
    before = torch.get_rng_state()
    Coloured()(torch.tensor([1]), torch.tensor([0]), 0, (4, 5, 2))
    assert torch.equal(before, torch.get_rng_state())
