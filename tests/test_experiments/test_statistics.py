"""Intervals, tests and sample sizes against published tables, scipy, exact enumeration and simulated coverage."""

from itertools import product
from math import comb

import numpy as np
import pytest
import scipy.stats

from experiments import statistics
from experiments.statistics import bootstrap, interval, mcnemar, paired_bootstrap, pairs_needed, wilson
from lewm.types import InputError

PLUS, MINUS = np.ones(statistics.PSEUDO), -np.ones(statistics.PSEUDO)


def discordant(only_a: int, only_b: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes of two runs on `count` pairs of which both solve all the others."""
    a, b = np.ones((2, count))
    b[:only_a] = 0
    a[only_a : only_a + only_b] = 0
    return a, b


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    [  # Newcombe (1998, Statistics in Medicine 17, table I, method 3), and 48 and 43 of the field's 50
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (48, 50, 0.865, 0.989),
        (43, 50, 0.738, 0.930),
    ],
)
def test_wilson_intervals_are_the_published_ones(successes, count, low, high):
    assert wilson(successes, count) == pytest.approx([low, high], abs=5e-4)
    outcomes = np.arange(count) < successes
    assert interval(outcomes) == interval(outcomes[None]) == wilson(successes, count)


def test_mcnemar_is_the_binomial_of_discordant_pairs():
    assert mcnemar(*discordant(16, 6, 100)) == pytest.approx(0.0525, abs=5e-5)
    assert mcnemar(*discordant(59, 121, 314)) == pytest.approx(4.434e-6, rel=1e-3)  # statsmodels' example
    assert mcnemar(*discordant(9, 1, 10)) == pytest.approx(2 * sum(comb(10, k) for k in (9, 10)) / 2**10)
    assert mcnemar(*discordant(0, 0, 10)) == 1
    assert mcnemar(*discordant(16, 6, 100)) == mcnemar(*discordant(6, 16, 5000))
    with pytest.raises(InputError, match="zeros and ones"):
        mcnemar(np.array([0.5, 1]), np.array([0, 1]))


def test_the_bootstrap_of_one_run_is_scipys():
    a, b = discordant(30, 10, 120)
    for ours, sample in (
        (bootstrap(a), np.r_[a, PLUS, 0 * PLUS]),
        (paired_bootstrap(a, b)[0], np.r_[a - b, PLUS, MINUS]),
    ):
        theirs = scipy.stats.bootstrap((sample,), np.mean, n_resamples=10_000, method="percentile", rng=1)
        assert ours == pytest.approx(list(theirs.confidence_interval), abs=0.01)


def test_every_draw_of_runs_and_pairs_comes_as_often_as_it_should():
    """All draws of 1 of 2 runs, 2 of 3 runs and 4 of 4 pairs, listed, against the bootstrap's own."""
    rng = np.random.default_rng(0)
    a_RP, b_QP, pseudo = rng.random((2, 2)), rng.random((3, 2)), [1.0, -1.0]
    chosen = np.array(list(product(range(4), repeat=4)))
    exact = []
    for i, (j, k) in product(range(2), product(range(3), repeat=2)):
        exact.append(np.r_[a_RP[i] - (b_QP[j] + b_QP[k]) / 2, pseudo][chosen].mean(1))
    drawn = statistics._draw_means([(a_RP, 1.0), (b_QP, -1.0)], pseudo, 10_000)
    assert scipy.stats.ks_2samp(drawn, np.concatenate(exact)).statistic < 0.02


def test_a_bootstrap_repeats_itself_and_leaves_the_global_generator_alone():
    outcomes, before = np.random.default_rng(0).random((3, 40)), np.random.get_state()[1].copy()  # noqa: NPY002
    assert bootstrap(outcomes) == bootstrap(outcomes)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_intervals_cover_training_noise_where_wilson_over_all_episodes_does_not():
    """Three runs whose true success differs by 8 points: the mean over all runs that could be trained is 70 %."""
    rng, trials, ours, pooled = np.random.default_rng(0), 200, 0, 0
    for _ in range(trials):
        outcomes = rng.random((3, 100)) < 0.7 + 0.08 * rng.standard_normal((3, 1))
        low, high = bootstrap(outcomes, draws=400)
        ours += low <= 0.7 <= high
        low, high = wilson(int(outcomes.sum()), 300)
        pooled += low <= 0.7 <= high
    assert ours / trials > 0.9 > 0.8 > pooled / trials


def test_success_everywhere_is_not_certainty():
    low, high = bootstrap(np.ones((3, 200)))
    assert high == 1 and 0.96 < low < 0.99
    (low, high), bound = paired_bootstrap(np.ones(200), np.ones(200))
    assert low < 0 < high and -0.03 < bound < 0
    assert paired_bootstrap(np.ones(20), np.ones(20))[1] < -0.03


def test_no_less_success_is_claimed_wrongly_in_about_one_case_in_twenty():
    """Exact size of the test where the truth is at the margin: 1 % of pairs only a solves, 4 % only b does."""
    size = 0.0
    for only_a, only_b in product(range(6), range(9)):
        a, b = discordant(only_a, only_b, 100)
        if paired_bootstrap(a, b, draws=2000)[1] > -0.03:
            size += scipy.stats.multinomial.pmf([only_a, only_b, 100 - only_a - only_b], 100, [0.01, 0.04, 0.95])
    assert 0.01 < size < 0.065


def test_training_seeds_are_clusters():
    a_RP = np.repeat([[0.6], [0.8], [1.0]], 50, axis=1)
    b_RP = a_RP - 0.1
    (low, high), _ = paired_bootstrap(a_RP, b_RP)
    assert low < 0 < high  # runs differ more than the sides
    (low, high), bound = paired_bootstrap(a_RP, b_RP, same_runs=True)
    assert 0 < low <= bound <= 0.1 <= high


def test_pairs_needed_are_the_published_ones():
    assert pairs_needed(*discordant(5, 45, 100)) == 23  # powerandsamplesize.com, McNemar, two-sided, after Connor
    assert pairs_needed(*discordant(45, 5, 100), power=0.9) == 29
    assert pairs_needed(*discordant(30, 15, 100)) == 155  # clinicaltrials-tools, after Connor
    assert pairs_needed(*discordant(7, 7, 100)) is None
    zs = scipy.stats.norm.ppf([0.95, 0.8]).sum()
    assert pairs_needed(*discordant(0, 0, 100), margin=0.03) == int(zs**2 * (4 / 104) / 0.03**2) + 1
    assert pairs_needed(*discordant(0, 3, 100), margin=0.03) is None


def test_the_pairs_needed_decide_in_four_cases_of_five():
    """The power of McNemar's test (normal) with that many pairs, summed over all tables."""
    count = pairs_needed(*discordant(30, 15, 100))
    discordants = np.arange(1, count + 1)[:, None]
    only_a = np.arange(count + 1)[None]
    share = scipy.stats.binom.pmf(discordants, count, 0.45) * scipy.stats.binom.pmf(only_a, discordants, 2 / 3)
    power = share[np.abs(2 * only_a - discordants) > 1.96 * np.sqrt(discordants)].sum()
    assert power == pytest.approx(0.8, abs=0.015)


def test_more_pairs_do_not_help_where_training_runs_differ():
    rng = np.random.default_rng(0)
    rate_RP = np.repeat([[0.5], [0.7], [0.9]], 200, axis=1)
    a_RP, b_RP = rng.random((3, 200)) < rate_RP, rng.random((3, 200)) < rate_RP - 0.15
    assert pairs_needed(a_RP, b_RP) is None
    assert pairs_needed(a_RP, b_RP, same_runs=True) is not None
    assert statistics._training_noise(rate_RP) == pytest.approx(rate_RP[:, 0].var(ddof=1) / 3)


@pytest.mark.parametrize("bad", [np.full(3, 1.5), np.array([np.nan]), np.zeros((0, 3)), np.zeros((2, 2, 2))])
def test_what_is_no_outcome_is_refused(bad):
    with pytest.raises(InputError, match="rates in"):
        bootstrap(bad)


def test_sides_on_other_pairs_are_refused():
    with pytest.raises(InputError, match="same pairs"):
        paired_bootstrap(np.ones(3), np.ones(4))
    with pytest.raises(InputError, match="same pairs"):
        pairs_needed(np.ones((2, 3)), np.ones((3, 3)), same_runs=True)
