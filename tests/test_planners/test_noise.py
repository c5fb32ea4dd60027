"""Random numbers without a generator: the reference algorithm, the distribution, and what a number depends on."""

import math

import pytest
import torch
from scipy import stats

from planners import noise

MASK = (1 << 64) - 1
KEY = noise.keys(torch.tensor([11, 12]), 3)
DRAWS = {"normal": noise.normal, "uniform": noise.uniform}


def split_mix(state, count):
    """SplitMix64 as published, with integers of Python."""
    out = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        out.append(z ^ (z >> 31))
    return out


@pytest.mark.parametrize("key", [0, 1, -1, 1234567, -(2**63), 2**63 - 1])
def test_bits_are_those_of_split_mix(key):
    got = noise.bits(torch.tensor([key]), 50)[0].tolist()
    assert [x & MASK for x in got] == split_mix(key & MASK, 50)


def test_split_mix_reference_is_the_published_one():
    assert split_mix(1234567, 3) == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def correlation(a, b):
    return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]).double())[0, 1].abs().item()


N = 300_000
SIX_SIGMA = 6 / math.sqrt(N)


@pytest.mark.parametrize(("name", "cdf"), [("normal", "norm"), ("uniform", "uniform")])
@pytest.mark.parametrize("seed", [0, 1])
def test_kolmogorov_smirnov(name, cdf, seed):
    sample = DRAWS[name](noise.keys(torch.tensor([seed])), (40_000,))[0].double().numpy()
    assert stats.kstest(sample, cdf).pvalue > 1e-3
    halves = stats.kstest(sample[:20_000], sample[20_000:])  # cosines against sines
    assert halves.pvalue > 1e-3


def test_normal_moments():
    x = noise.normal(KEY[:1], (N,)).double()[0]
    assert x.mean().abs() < SIX_SIGMA
    assert (x.var() - 1).abs() < SIX_SIGMA * math.sqrt(2)
    assert (x**3).mean().abs() < SIX_SIGMA * math.sqrt(15)
    assert ((x**4).mean() - 3).abs() < SIX_SIGMA * math.sqrt(96)
    assert 4.2 < x.abs().max() < 5.8  # tails are there: 300 000 normals reach 4.5 on average


@pytest.mark.parametrize("name", DRAWS)
def test_places_keys_and_iterations_do_not_correlate(name):
    draw = DRAWS[name]
    x = draw(KEY, (N,))
    for lag in (1, 2, N // 2):
        assert correlation(x[0, lag:], x[0, :-lag]) < 2 * SIX_SIGMA, lag
    assert correlation(x[0], x[1]) < SIX_SIGMA
    following = draw(KEY[:1] + 1, (N,))[0]
    assert correlation(x[0], following) < SIX_SIGMA
    assert correlation(x[0] ** 2, following**2) < SIX_SIGMA
    first, second = (draw(noise.keys(KEY[:1], iteration), (N,)) for iteration in (0, 1))
    assert correlation(first, second) < SIX_SIGMA


def test_first_number_of_consecutive_seeds_is_random_too():
    first = noise.uniform(noise.keys(torch.arange(20_000), 0), (2,)).double()
    assert stats.kstest(first[:, 0].numpy(), "uniform").pvalue > 1e-3
    assert correlation(first[1:, 0], first[:-1, 0]) < 6 / math.sqrt(20_000)
    assert correlation(first[:, 0], first[:, 1]) < 6 / math.sqrt(20_000)


@pytest.mark.parametrize("extreme", [0, -1, 2**63 - 1, -(2**63), 0xFFFFFF])
def test_extreme_bits_stay_in_the_open_interval(monkeypatch, extreme):
    monkeypatch.setattr(noise, "bits", lambda key_B, count: torch.full((len(key_B), count), extreme))
    uniform = noise.uniform(KEY, (3,))
    assert (uniform > 0).all()
    assert (uniform < 1).all()
    assert noise.normal(KEY, (3,)).isfinite().all()


def test_uniform_interval_is_open():
    x = noise.uniform(KEY, (N,))
    assert 0 < x.min() < 1e-4
    assert 1 - 1e-4 < x.max() < 1


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("shape", [(1,), (7, 5), (64, 7, 3), (128, 2, 40), (333, 31)])
def test_row_is_the_same_bits_in_any_batch_and_with_any_threads(name, shape):
    draw, threads, alone = DRAWS[name], torch.get_num_threads(), {}
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            for rows in (1, 2, 3, 5, 8, 17) if count == 1 else (1, 8):
                together = draw(noise.keys(torch.arange(rows), 5), shape)
                assert together.shape == (rows, *shape)
                for row in {0, rows // 2, rows - 1}:
                    reference = alone.setdefault(row, draw(noise.keys(torch.tensor([row]), 5), shape)[0])
                    assert torch.equal(together[row], reference), (rows, row, count)
    finally:
        torch.set_num_threads(threads)


def test_any_change_of_seed_replan_or_iteration_changes_the_key():
    values = [-3, -1, 0, 1, 2, 3, 2**40]
    keys = {noise.keys(torch.tensor([s]), r, i).item() for s in values for r in range(4) for i in range(4)}
    assert len(keys) == len(values) * 16
    assert noise.keys(torch.tensor([1]), 2) != noise.keys(torch.tensor([2]), 1)


def test_global_generator_is_left_alone():
    before = torch.get_rng_state()
    noise.normal(KEY, (5,))
    noise.uniform(KEY, (5,))
    assert torch.equal(before, torch.get_rng_state())
