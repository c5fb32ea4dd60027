"""A comparison in words: a table for a terminal, and what may be said."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

from experiments.compare.comparison import Comparison, Contrast
from experiments.compare.sides import Side

WIDTH = 100
FEW = 20  # pairs: with fewer, sides that agree on every one may still be 17 points apart
HEADINGS = ("", "pairs", "A", "B", "A - B", "only A", "only B", "p")


def describe(comparison: Comparison) -> str:
    """The sides, the table, the verdicts of the headline rule, and what they do not cover."""
    c = comparison
    sides = [_side("A", c.a), _side("B", c.b)]
    where = f"{c.env}, track {c.track}, budget {c.budget}; success in %, 95 % intervals"
    said = [verdict(c, contrast) for contrast in c.contrasts if contrast.rule == c.contrasts[0].rule]
    text = [fill(line, WIDTH, subsequent_indent="  ") for line in [*said, *_remarks(c)]]
    return "\n".join([*sides, where, "", *_table(c.contrasts), "", *text])


def verdict(comparison: Comparison, contrast: Contrast) -> str:
    """Which side is better, or that it is noise and what would decide it; and whether A has no less success.

    Of few pairs it says no more than that, as what would decide is estimated from the same pairs.
    """
    low, high = contrast.difference_interval
    name = f"{contrast.rule}, detour" if contrast.detour else contrast.rule
    points = f"{100 * contrast.difference:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
    few = f"few pairs (n = {contrast.n})" if contrast.n < FEW else ""
    if few and not contrast.decided:
        return f"{name}: {few}, {points}. They can neither tell the sides apart nor show them alike: evaluate more."
    points += few and f", but of {few}"
    if not contrast.decided:
        return f"{name}: within noise, {points}. {_what_would_decide(contrast)} {_no_less(comparison, contrast)}"
    if contrast.difference > 0:
        return f"{name}: A is better than B, {points}."
    said = f"{name}: B is better than A, {points}."
    return said if few else f"{said} {_no_less(comparison, contrast)}"


def _what_would_decide(contrast: Contrast) -> str:
    if not contrast.difference:
        return "No difference was seen, so there is none to decide."
    if contrast.needed is None or contrast.needed <= contrast.n:
        return "The training runs differ too much for more pairs to decide: train more seeds."
    return f"About {_about(contrast.needed)} pairs would decide a difference of this size."


def _no_less(comparison: Comparison, contrast: Contrast) -> str:
    margin, bound = f"{comparison.margin:g} points", f"one-sided bound {100 * contrast.bound:+.1f}"
    claim = f"A has no less success than B, within {margin}"
    if contrast.no_less:
        return f"{claim} ({bound})."
    if 100 * contrast.difference <= -comparison.margin:
        return f"Not shown: {claim} ({bound}); the difference seen is not within them either."
    if contrast.needed_no_less is None or contrast.needed_no_less <= contrast.n:
        return f"Not shown: {claim} ({bound}); more training seeds could show it."
    return f"Not shown: {claim} ({bound}); about {_about(contrast.needed_no_less)} pairs could show it."


def _remarks(comparison: Comparison) -> list[str]:
    single = [len(side.checkpoints) == 1 for side in (comparison.a, comparison.b)]
    if not any(single) or comparison.same_runs:
        return []
    where = "both sides" if all(single) else "one side"
    return [f"One training run on {where}: the intervals do not cover how another training seed would do."]


def _side(name: str, side: Side) -> str:
    runs, first = len(side.checkpoints), side.folders[0]
    where = first if len(side.folders) == 1 else f"{first} and {len(side.folders) - 1} more"
    facts = [side.agent]
    if runs > 1:
        facts.append(f"{runs} training runs")
    if side.repeats > 1:
        facts.append(f"each pair {side.repeats} times")
    return f"{name}  {where}: {', '.join(facts)}"


def _table(contrasts: Sequence[Contrast]) -> list[str]:
    rows, rule = [HEADINGS], None
    for contrast in contrasts:
        label = f"{contrast.rule}{', detour' if contrast.detour else ''}"
        rows.append(("  detour" if contrast.rule == rule else label, *_cells(contrast)))
        rule = contrast.rule
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for label, *cells in rows:
        right = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        lines.append("  ".join([label.ljust(widths[0]), *right]))
    return lines


def _cells(c: Contrast) -> tuple[str, ...]:
    def spread(rate: float, interval: Sequence[float], sign: str = "") -> str:
        rate, low, high = (f"{100 * value:{sign}.1f}" for value in (rate, *interval))
        return f"{rate} [{low}, {high}]"

    p = "-" if c.p is None else "<0.001" if c.p < 0.001 else f"{c.p:.3f}"
    rates = spread(c.a, c.a_interval), spread(c.b, c.b_interval), spread(c.difference, c.difference_interval, "+")
    return (str(c.n), *rates, str(c.only_a), str(c.only_b), p)


def _about(count: int) -> str:
    """Two significant digits: it is an estimate."""
    return f"{round(count, 2 - len(str(count))) if count >= 100 else count:,}"
