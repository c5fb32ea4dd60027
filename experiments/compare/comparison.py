"""Two sides on the same pairs, as numbers. Everything is recomputed from the lines of the evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from experiments import statistics
from experiments.compare.sides import Side, check_alike, common_pairs, load, outcomes
from lewm.registry import load_plugins
from lewm.types import InputError


@dataclass(frozen=True)
class Contrast:
    """The two sides by one rule. Rates are shares of 1, differences are A - B.

    Attributes:
        rule: `final`, `ever`, or another rule of the task, at the end.
        detour: whether it is about the `detour` pairs alone.
        n: pairs.
        a, b, difference: with their 95 % intervals, the difference's from the pairs' differences.
        bound: one-sided 95 % lower bound of the difference.
        no_less: whether it is above minus the margin, "A has no less success than B".
        only_a, only_b: pairs on which a side had more success; for one run each, the discordant ones.
        p: of McNemar's exact test; None for rates over several runs or repeats, where the interval decides.
        decided: whether the difference is more than noise, at 5 %.
        needed: pairs that would decide a difference of this size, with 80 % power; None if no number would.
        needed_no_less: pairs that would show "no less success" if what was seen is how things are.
    """

    rule: str
    detour: bool
    n: int
    a: float
    a_interval: list[float]
    b: float
    b_interval: list[float]
    difference: float
    difference_interval: list[float]
    bound: float
    no_less: bool
    only_a: int
    only_b: int
    p: float | None
    decided: bool
    needed: int | None
    needed_no_less: int | None


@dataclass(frozen=True)
class Comparison:
    """Two sides on the pairs that all their runs have run.

    Attributes:
        env: name of the task; track, budget: of the evaluations.
        margin: of "no less success", in points.
        same_runs: whether both sides are the same trained models, so that training noise is theirs in common.
        contrasts: by rule, the headline first; each of all pairs, then of the `detour` ones where there are some.
    """

    a: Side
    b: Side
    env: str
    track: str
    budget: int
    margin: float
    same_runs: bool
    contrasts: tuple[Contrast, ...]


def compare(
    a: str, b: str, *, rule: str | None = None, detour: bool = False, margin: float = 3, plugins: Sequence[str] = ()
) -> Comparison:
    """Compare two sides on the pairs that all their runs have run; pairs solved at the start do not count.

    Args:
        a, b: folders joined by commas, or a glob; then perhaps `:agent`.
        rule: `final`, `ever`, or another success rule of the task; None: the first two, the track's headline first.
        detour: look at the `detour` pairs alone.
        margin: of "no less success", in points.
        plugins: packages with the task, if it is not ours.

    Raises:
        InputError: the sides were not evaluated alike, or have no pair in common.
    """
    if not 0 <= margin < 100:
        raise InputError(f"the margin of 'no less success' is in points, 0 to 100, got {margin}")
    load_plugins(plugins)
    (side_a, of_a), (side_b, of_b) = load(a), load(b)
    everyone = [*of_a, *of_b]
    for other in everyone[1:]:
        check_alike(everyone[0], other)
    pairs = common_pairs(of_a, of_b)
    detour_P = np.array([everyone[0].pairs[pair].detour for pair in pairs])
    if detour and not detour_P.any():
        raise InputError(f"none of the {len(pairs)} pairs that both have run is a detour; leave --detour out")
    same_runs = set(side_a.checkpoints) == set(side_b.checkpoints)
    order_b = side_a.checkpoints if same_runs else side_b.checkpoints  # row k of both has to be the same model
    protocol = everyone[0].protocol
    usual = ("ever", "final") if protocol["track"] == "paper" else ("final", "ever")
    contrasts = []
    for name in usual if rule is None else (rule,):
        a_RP, b_QP = outcomes(of_a, side_a.checkpoints, pairs, name), outcomes(of_b, order_b, pairs, name)
        for around in [True] if detour or detour_P.all() else [False, True]:
            kind = detour_P if around else np.ones(len(pairs), bool)
            if kind.any():
                contrasts.append(contrast(name, around, a_RP[:, kind], b_QP[:, kind], margin / 100, same_runs))
    about = (protocol["env"]["name"], protocol["track"], protocol["budget"], margin, same_runs)
    return Comparison(side_a, side_b, *about, tuple(contrasts))


def contrast(
    rule: str, detour: bool, a_RP: np.ndarray, b_QP: np.ndarray, margin: float, same_runs: bool
) -> Contrast:
    """All that is computed from outcomes of two sides; the margin is a share of 1."""
    a_P, b_P = np.round(a_RP.mean(0), 9), np.round(b_QP.mean(0), 9)
    single = len(a_RP) == len(b_QP) == 1 and bool(np.isin(np.r_[a_P, b_P], (0, 1)).all())
    p = statistics.mcnemar(a_P, b_P) if single else None
    (low, high), bound = statistics.paired_bootstrap(a_RP, b_QP, same_runs=same_runs)
    return Contrast(
        rule=rule,
        detour=detour,
        n=len(a_P),
        a=round(float(a_P.mean()), 4),
        a_interval=statistics.interval(a_RP),
        b=round(float(b_P.mean()), 4),
        b_interval=statistics.interval(b_QP),
        difference=round(float(a_P.mean() - b_P.mean()), 4),
        difference_interval=[low, high],
        bound=bound,
        no_less=bound > -margin,
        only_a=int((a_P > b_P).sum()),
        only_b=int((a_P < b_P).sum()),
        p=p,
        decided=(low > 0 or high < 0) if p is None else p < 0.05,
        needed=statistics.pairs_needed(a_RP, b_QP, same_runs=same_runs),
        needed_no_less=statistics.pairs_needed(a_RP, b_QP, same_runs=same_runs, margin=margin),
    )
