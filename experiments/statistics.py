"""Intervals, paired comparisons and how many pairs they need: pure functions of arrays of outcomes.

Outcomes are success rates in [0, 1], one row per training run and one column per start/goal pair: `outcomes_RP`.
Planner seeds are averaged before: each pair has planner noise of its own, so resampling pairs resamples it, too.
Rates are shares (0.03 is 3 points); intervals are two-sided 95 %, rounded to 4 digits.
"""

from __future__ import annotations

from math import ceil

import numpy as np
from scipy.stats import binomtest, norm

from lewm.types import InputError

DRAWS, SEED = 10_000, 0  # of a bootstrap
CHUNK = 1_000  # of its draws at once
PSEUDO = 2  # pairs added for each outcome that an interval must hold possible; about z^2 / 2


def wilson(successes: int, count: int) -> list[float]:
    """95 % Wilson score interval of a success rate."""
    interval = binomtest(successes, count).proportion_ci(0.95, method="wilson")
    return _rounded(interval.low, interval.high)


def interval(outcomes_RP: np.ndarray) -> list[float]:
    """95 % interval of a mean success: Wilson's for a single run of zeros and ones, else `bootstrap`."""
    outcomes_RP = _checked(outcomes_RP)
    if len(outcomes_RP) == 1 and _binary(outcomes_RP):
        return wilson(int(outcomes_RP.sum()), outcomes_RP.size)
    return bootstrap(outcomes_RP)


def bootstrap(outcomes_RP: np.ndarray, draws: int = DRAWS) -> list[float]:
    """95 % percentile interval of the mean success, over training seeds and pairs at once.

    Each draw takes runs and pairs with replacement; all runs met the same pairs, so a drawn pair counts in all
    drawn runs (the pigeonhole bootstrap, Owen 2007). Two corrections for small samples: of R runs it draws R - 1,
    without which their variance would come out as (R - 1) / R of what it is (Rao & Wu 1988); and it adds two pairs
    that every run solves and two that none does (Agresti & Coull 1998), without which 200 of 200 would be certain.

    With one run only pairs are drawn: the interval is that of this run, and *does not cover training noise*.
    """
    outcomes_RP = _checked(outcomes_RP)
    means = _draw_means([(outcomes_RP, 1.0)], [1.0] * PSEUDO + [0.0] * PSEUDO, draws)
    return _around(float(outcomes_RP.mean()), *np.percentile(means, [2.5, 97.5]))


def mcnemar(a_P: np.ndarray, b_P: np.ndarray) -> float:
    """Two-sided p of McNemar's exact test (1947): discordant pairs are fair coins if both solve equally many.

    Args:
        a_P, b_P: zeros and ones, of one run each on the same pairs.
    """
    a_P, b_P = _checked(a_P)[0], _checked(b_P)[0]
    if not (_binary(a_P) and _binary(b_P)) or a_P.shape != b_P.shape:
        raise InputError(
            f"McNemar's test is of zeros and ones on the same pairs, got {a_P.shape} and {b_P.shape}; compare "
            "rates over several seeds with paired_bootstrap"
        )
    only_a, only_b = int((a_P > b_P).sum()), int((a_P < b_P).sum())
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def paired_bootstrap(
    a_RP: np.ndarray, b_QP: np.ndarray, *, same_runs: bool = False, draws: int = DRAWS
) -> tuple[list[float], float]:
    """95 % interval of mean(a) - mean(b) on the same pairs, and its one-sided 95 % lower bound.

    "No less success" than b within a margin means: the bound is above minus the margin.

    Each draw takes pairs, the same for both sides, and runs. Training seeds are clusters: those of a and of b are
    drawn apart, as nothing links them, unless row k of both is the same trained model (`same_runs`), say with and
    without an oracle. Else as `bootstrap`, the pairs added being two that only a solves and two that only b does:
    without them no discordant pair in 20 would prove sides equal. They pull a difference near 1 towards 0, which is
    conservative (compare Agresti & Min 2005). With a single run on a side, its training noise is not covered.
    """
    a_RP, b_QP = _checked_pair(a_RP, b_QP, same_runs)
    sides = [(a_RP - b_QP, 1.0)] if same_runs else [(a_RP, 1.0), (b_QP, -1.0)]
    means = _draw_means(sides, [1.0] * PSEUDO + [-1.0] * PSEUDO, draws)
    low, bound, high = np.percentile(means, [2.5, 5, 97.5])
    difference = float(a_RP.mean() - b_QP.mean())
    return _around(difference, low, high), round(min(float(bound), difference), 4)


def pairs_needed(
    a_RP: np.ndarray,
    b_QP: np.ndarray,
    *,
    margin: float | None = None,
    same_runs: bool = False,
    power: float = 0.8,
) -> int | None:
    """How many pairs would decide, with this power, if what was seen is how things are; None if no number would.

    For a two-sided test at 5 % of outcomes 0 and 1, Connor's formula (1987, Biometrics 43, p. 209) for McNemar's
    test: n = (z_a sqrt(psi) + z_b sqrt(psi - d^2))^2 / d^2, d the difference and psi the share of discordant pairs.
    For rates over seeds psi is the mean square of the pairs' differences, the same where they are 0 and 1. With a
    `margin`, for "no less success" at one-sided 5 %: n = (z_a + z_b)^2 (psi - d^2) / (d + margin)^2.

    More pairs do not average training noise away: its variance (two-way analysis of variance of runs and pairs) is
    taken from d^2, times (z_a + z_b)^2. Nothing left means that more training seeds are needed, or nothing is to be
    decided: there is no difference, or it is beyond the margin.
    """
    a_RP, b_QP = _checked_pair(a_RP, b_QP, same_runs)
    d_P = a_RP.mean(0) - b_QP.mean(0)
    effect = abs(d_P.mean()) if margin is None else d_P.mean() + margin
    z_a, z_b = norm.ppf(0.975 if margin is None else 0.95), norm.ppf(power)
    noise = _training_noise(a_RP - b_QP) if same_runs else _training_noise(a_RP) + _training_noise(b_QP)
    left = effect**2 - (z_a + z_b) ** 2 * noise
    if effect <= 0 or left <= 1e-12:
        return None
    if margin is not None:  # seldom a discordant pair where both are good: their share must not come out 0
        d_P = np.r_[d_P, np.ones(PSEUDO), -np.ones(PSEUDO)]
    psi, spread = float((d_P**2).mean()), float(d_P.var())
    root = z_a * np.sqrt(psi if margin is None else spread) + z_b * np.sqrt(spread)
    return ceil(root**2 / left - 1e-9)


def _draw_means(sides: list[tuple[np.ndarray, float]], pseudo: list[float], draws: int) -> np.ndarray:
    """Means of the weighted sum of sides over drawn runs, drawn apart, and drawn pairs, drawn once: (draws,)."""
    rng = np.random.default_rng(SEED)
    pairs, means = sides[0][0].shape[1] + len(pseudo), []
    for first in range(0, draws, CHUNK):
        count = min(CHUNK, draws - first)
        mixed_NP = sum(weight * _draw_runs(outcomes_RP, count, rng) for outcomes_RP, weight in sides)
        mixed_NP = np.hstack([mixed_NP, np.broadcast_to(pseudo, (count, len(pseudo)))])
        means.append(np.take_along_axis(mixed_NP, rng.integers(pairs, size=(count, pairs)), 1).mean(1))
    return np.concatenate(means)


def _draw_runs(outcomes_RP: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Each pair's mean over R - 1 runs drawn from R: (count, P)."""
    runs = len(outcomes_RP)
    if runs == 1:
        return np.broadcast_to(outcomes_RP, (count, outcomes_RP.shape[1]))
    times_NR = rng.multinomial(runs - 1, np.full(runs, 1 / runs), size=count)
    return times_NR @ outcomes_RP / (runs - 1)


def _training_noise(outcomes_RP: np.ndarray) -> float:
    """Variance of the mean outcome that is due to which runs were trained; 0 where one run cannot tell."""
    runs, pairs = outcomes_RP.shape
    if runs == 1 or pairs == 1:
        return 0.0
    mean_R = outcomes_RP.mean(1, keepdims=True)
    rest_RP = outcomes_RP - mean_R - outcomes_RP.mean(0) + outcomes_RP.mean()
    between = mean_R.var(ddof=1) - (rest_RP**2).sum() / ((runs - 1) * (pairs - 1)) / pairs
    return max(0.0, float(between)) / runs


def _checked(outcomes: np.ndarray) -> np.ndarray:
    """(R, P) floats from (R, P) or (P,), all in [0, 1], at least one."""
    array = np.atleast_2d(np.asarray(outcomes, float))
    if array.ndim != 2 or not array.size or not ((array >= 0) & (array <= 1)).all():
        raise InputError(f"outcomes are rates in [0, 1] of (runs, pairs), at least one of each; got {array.shape}")
    return array


def _checked_pair(a_RP: np.ndarray, b_QP: np.ndarray, same_runs: bool) -> tuple[np.ndarray, np.ndarray]:
    a_RP, b_QP = _checked(a_RP), _checked(b_QP)
    if a_RP.shape[1] != b_QP.shape[1] or (same_runs and len(a_RP) != len(b_QP)):
        raise InputError(f"a comparison is on the same pairs (and runs, if same_runs): {a_RP.shape}, {b_QP.shape}")
    return a_RP, b_QP


def _binary(outcomes: np.ndarray) -> bool:
    return bool(np.isin(outcomes, (0, 1)).all())


def _around(estimate: float, low: float, high: float) -> list[float]:
    """The interval, widened to hold the estimate, which pairs added may leave just outside."""
    return _rounded(min(low, estimate), max(high, estimate))


def _rounded(low: float, high: float) -> list[float]:
    return [round(float(low), 4), round(float(high), 4)]
