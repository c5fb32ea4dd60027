"""What `lewm diagnose` shows: a table that explains itself, and a picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.pictures import ACCENT, INK, QUIET
from lewm.diagnosis import Diagnosis

SIGNIFICANT = 0.01
KNOWN = 0.5  # correlation from which a direction counts as predictable
COLOUR = "#2563eb"


class Row(NamedTuple):
    """A number, what it means, what is healthy, and whether it is: None where nobody can say."""

    name: str
    value: str
    meaning: str
    healthy: str
    good: bool | None


def table(found: Diagnosis, latent_dim: int, p_values: Mapping[str, float]) -> str:
    """The numbers as text, marked with `!` where one is not healthy."""
    rows = [*_latents(found, latent_dim), *_truth(found), *_dynamics(found, p_values)]
    name, value = (max(len(row[k]) for row in rows) for k in (0, 1))
    meaning = max(len(row.meaning) for row in rows)
    lines = [f"    {'':<{name}}  {'':>{value}}  {'what it says':<{meaning}}  healthy"]
    for row in rows:
        mark = "!" if row.good is False else " "
        lines.append(
            f"  {mark} {row.name:<{name}}  {row.value:>{value}}  {row.meaning:<{meaning}}  {row.healthy}".rstrip()
        )
    return "\n".join([*lines, *(f"  ! {complaint}" for complaint in found.health.complaints)])


def _latents(found: Diagnosis, latent_dim: int) -> Iterator[Row]:
    """Rows about the cloud of latents."""
    seen, truth = found.health, found.truth
    leak, dimension = seen.episode_share, seen.two_nn
    yield Row("latent std", f"{seen.std:.2f}", "spread per dimension; 0 is collapse", "about 1", 0.5 < seen.std < 2)
    yield Row("smallest std", f"{seen.std_min:.2f}", "of the least used dimension", "above 0.1", seen.std_min > 0.1)
    yield Row(
        "effective rank",
        f"{seen.effective_rank:.1f}",
        f"linear directions in use, of {latent_dim}",
        "above 3",
        seen.effective_rank > 3,
    )
    yield Row("participation ratio", f"{seen.participation_ratio:.1f}", "the same, large ones count more", "", None)
    yield Row("condition", f"{seen.condition:.1g}", "largest over smallest used variance", "lower is rounder", None)
    yield Row(
        "two-NN dimension",
        f"{dimension:.1f}",
        "curved dimensions in use; sees folding",
        f"near the true state's {truth.two_nn:.1f}" if truth else "at least the world's freedoms",
        dimension > 0.75 * min(truth.two_nn, 5) if truth else None,
    )
    yield Row(
        "Epps-Pulley", f"{seen.epps_pulley:.1f}", "distance to a Gaussian, in sampling noise", "1 is Gaussian", None
    )
    yield Row(
        "constant in episode",
        f"{leak:.0%}",
        "share of variance that names the episode",
        f"the true state's {truth.episode_share:.0%}, or less" if truth else "low",
        leak < truth.episode_share + 0.2 if truth and not math.isnan(leak) else None,
    )


def _truth(found: Diagnosis) -> Iterator[Row]:
    """Rows that need the true state."""
    truth = found.truth
    if truth is None:
        return
    linear, mlp, linearly = min(truth.linear), min(truth.mlp), truth.identifiability
    yield Row(
        "linear probe R2", f"{linear:.4f}", "true state read off linearly, worst axis", "above 0.9", linear > 0.9
    )
    yield Row(
        "MLP probe R2", f"{mlp:.4f}", "the same by a small network", "above 0.9; the linear one near it", mlp > 0.9
    )
    yield Row(
        "state -> latent R2",
        f"{linearly.latent_from_state:.2f}",
        "latent variance linear in the state",
        "1 is linear; curved is common",
        None,
    )
    yield Row(
        "orthogonality error",
        f"{linearly.orthogonality:.2f}",
        "how unevenly that map scales directions",
        "0 is a rotation",
        None,
    )
    yield Row(
        "distance order",
        f"{truth.rank_correlation:.2f}",
        "rank correlation of latent and true distances",
        "higher; 1 is the same order",
        None,
    )


def _dynamics(found: Diagnosis, p_values: Mapping[str, float]) -> Iterator[Row]:
    """Rows about the predictor."""
    relative, gap, last = found.rollout.relative, found.rollout.action_gap, len(found.rollout.relative)
    for k in sorted({1, last}):
        yield Row(
            f"rollout error, {k} block{'s' * (k > 1)}",
            f"{relative[k - 1]:.3f}",
            "imagined error over that of standing still",
            "well below 1",
            relative[k - 1] < 0.7,
        )
    yield Row(
        "action gap", f"{gap[0]:.1f}", "error with wrong actions over right ones", "well above 1", gap[0] > 1.5
    )
    yield Row("straightness", f"{found.straightness:.2f}", "cosine of consecutive latent steps", "0 or more", None)
    known = sum(value > KNOWN for value in found.transition)
    yield Row(
        "predictable directions", f"{known}", f"of the next latent, correlation above {KNOWN}", "as it needs", None
    )
    for name, seen in found.surprises.items():
        p = p_values[name]
        noticed = p < SIGNIFICANT and seen.ratio > 1
        yield Row(
            f"surprise, {name}",
            f"{seen.ratio:.1f}x",
            f"error at the impossible frame, p {p:.1g} (n {seen.pairs})",
            "above 1, p below 0.01",
            noticed if name == "teleport" else None,
        )
    for name, ratio in found.equivariance.items():
        yield Row(
            f"equivariance, {name}",
            f"{ratio:.1f}x",
            "error on turned pictures and actions",
            "1, if so trained",
            None,
        )


def picture(found: Diagnosis, block: int) -> Figure:
    """Transition spectrum, rollout error by horizon, probes and surprise."""
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    (spectrum, rollout), (probes, surprise) = figure.subplots(2, 2)
    spectrum.axhline(0, color=QUIET, lw=0.8)
    spectrum.plot(range(1, len(found.transition) + 1), found.transition, color=ACCENT, marker=".", ms=3, lw=0.8)
    spectrum.set(
        title="How predictable is the next latent?",
        xlabel="direction, best first",
        ylabel="held-out correlation",
        xscale="log",
        ylim=(-0.3, 1.05),
    )
    _rollout_panel(found, block, rollout)
    _probe_panel(found, probes)
    _surprise_panel(found, surprise)
    return figure


def _rollout_panel(found: Diagnosis, block: int, axis: Axes) -> None:
    seen = found.rollout
    blocks = range(1, len(seen.imagined) + 1)
    curves = (
        ("wrong actions", seen.shuffled, QUIET, "--"),
        ("standing still", seen.persistence, INK, ":"),
        ("imagined", seen.imagined, ACCENT, "-"),
    )
    for name, values, colour, style in curves:
        axis.plot(blocks, values, color=colour, ls=style, marker=".", label=name)
    axis.set(title="How far can it imagine?", ylabel="squared error", yscale="log")
    axis.set_xlabel(f"blocks ahead ({block} environment steps each)")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(frameon=False)


def _probe_panel(found: Diagnosis, axis: Axes) -> None:
    """What probes leave unexplained, as R2 of 0.99 and 0.999 look alike."""
    axis.set(title="What does it not know of the true state?")
    if found.truth is None:
        axis.text(0.5, 0.5, "no true state was recorded", ha="center", transform=axis.transAxes, color=QUIET)
        axis.set_axis_off()
        return
    places = range(len(found.truth.linear))
    unexplained = [[max(1 - r2, 1e-6) for r2 in scores] for scores in (found.truth.linear, found.truth.mlp)]
    for name, scores, colour, aside in (
        ("linear probe", unexplained[0], ACCENT, -0.1),
        ("MLP probe", unexplained[1], INK, 0.1),
    ):
        axis.bar([k + aside for k in places], scores, 0.2, color=colour, label=name)
    axis.set(xlabel="axis of the state", ylabel="unexplained variance, 1 - R2", yscale="log")
    axis.set_xlim(-0.5, len(places) - 0.5)
    axis.set_ylim(min(map(min, unexplained)) / 5, max(1.0, *map(max, unexplained)))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(frameon=False)


def _surprise_panel(found: Diagnosis, axis: Axes) -> None:
    for (name, seen), colour in zip(found.surprises.items(), (ACCENT, COLOUR), strict=True):
        axis.plot(range(len(seen.disturbed)), seen.disturbed, color=colour, marker=".", label=name)
    seen = next(iter(found.surprises.values()))
    axis.plot(range(len(seen.usual)), seen.usual, color=INK, ls=":", label="undisturbed")
    axis.axvline(seen.at, color=QUIET, lw=0.8, zorder=0)
    axis.set(title="Does it notice the impossible?", xlabel="predicted frame", ylabel="squared error")
    axis.set_yscale("log")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(frameon=False)
