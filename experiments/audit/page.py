"""What `lewm audit` shows: a table that ends in what to mend first, and a picture."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.audit.blame import BEYOND, EXCHANGES
from experiments.pictures import ACCENT, INK, QUIET

COLOUR = "#2563eb"
TITLE = 150  # letters in a line of the picture's title
KINDS = {"failed": ACCENT, "solved": QUIET}
JUDGES = {
    "predictor": ("predictor", "imagined cost ~ cost of what truly happens"),
    "cost": ("cost", "cost of what truly happens ~ true distance"),
    "both": ("both", "imagined cost ~ true distance"),
}
CURVE = (
    ("imagined cost", ACCENT, "--"),
    ("cost of what truly happens", ACCENT, "-"),
    ("true distance", COLOUR, "-"),
)


def table(found: Mapping[str, Any]) -> str:
    """The numbers as text, the verdict last."""
    shown = {name: seen for name, seen in found["decisions"].items() if seen}
    rows = [("", *(f"{name} ({seen['decisions']} decisions)" for name, seen in shown.items()))]
    for stage in ("first", "last"):
        rows.append((f"rank correlations, {stage} iteration", *("" for _ in shown)))
        rows += [
            (f"  {name:<11}{what}", *(_number(seen[stage][key]) for seen in shown.values()))
            for key, (name, what) in JUDGES.items()
        ]
        rows.append(
            ("  preferred to the truly best", *(_share(seen[stage]["best_percentile"]) for seen in shown.values()))
        )
    rows.append(("regret of the plan, in tolerances", *(_number(seen["regret"]) for seen in shown.values())))
    rows.append(("searches that exploit the model", *(_share([seen["exploits_model"]]) for seen in shown.values())))
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    tried = sum(found["blame"].values())
    if tried:
        parts = ", ".join(f"{name} {number}" for name, number in found["blame"].items())
        lines.append(f"\n  to blame for {tried} of {found['failed']} failed pairs: {parts}")
    if found["replays_as_recorded"] < found["replays"]:
        odd = found["replays"] - found["replays_as_recorded"]
        lines.append(
            f"  ! {odd} of {found['replays']} replays left the recorded path (another machine, or threads)"
        )
    return "\n".join([*lines, f"\n  {found['verdict']}"])


def _number(value: Sequence[float] | None) -> str:
    return "-" if value is None else "{:.2f} [{:.2f}, {:.2f}]".format(*value)


def _share(value: Sequence[float | None] | None) -> str:
    return "-" if value is None or value[0] is None else f"{value[0]:.0%}"


def picture(found: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> Figure:
    """One page: who is to blame, what the judges say, where the cost leads, and how far the agent comes."""
    scenes = [line for line in lines if line["kind"] == "landscape"][:2]
    heights = [3.6, 3.4, 2.8] if scenes else [3.6, 2.8]
    figure = Figure(figsize=(13, sum(heights) + 0.6), layout="constrained")
    said = f"{found['n'] - found['failed']} of {found['n']} pairs reach their goals. {found['verdict']}"
    figure.suptitle(textwrap.fill(said, TITLE), x=0.01, ha="left", fontsize=11)
    rows = figure.subfigures(len(heights), 1, height_ratios=heights)
    blamed, judges, search = rows[0].subplots(1, 3)
    _blame(blamed, found)
    _judges(judges, lines)
    _search(search, found)
    if scenes:
        axes = rows[1].subplots(1, 4)
        for axis, (scene, key) in zip(axes, product(scenes, ("cost", "distance")), strict=False):
            _landscape(axis, scene, key)
        for axis in axes[2 * len(scenes) :]:
            axis.set_axis_off()
    titles = {"true": "true distance from start to goal, in tolerances", "latent": "distance of their latents"}
    for axis, (name, bins) in zip(rows[-1].subplots(1, 2), found["success_by_distance"].items(), strict=True):
        _success(axis, bins, titles[name])
    return figure


def _blame(axis: Axes, found: Mapping[str, Any]) -> None:
    counts = found["blame"]
    names = [*EXCHANGES, BEYOND]
    notes = {
        "chance": "another seed",
        "search": "larger search",
        "predictor": "true simulator",
        "cost": "true distance",
    }
    for height, name in enumerate(reversed(names)):
        axis.barh(height, counts[name], color=QUIET if name == BEYOND else ACCENT, height=0.6)
        axis.text(counts[name] + 0.1, height, counts[name], va="center", color=INK)
    labels = [f"{name}\n({notes.get(name, 'nothing helps')})" for name in reversed(names)]
    axis.set_yticks(range(len(names)), labels)
    axis.set(title=f"what takes failed pairs to their goals ({sum(counts.values())} of {found['failed']})")
    axis.set(xlabel="pairs", xlim=(0, max(1, *counts.values()) * 1.15))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def _judges(axis: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    """A dot per decision, and the medians."""
    jitter = np.random.default_rng(0)
    for k, key in enumerate(JUDGES):
        for side, (kind, colour) in enumerate(KINDS.items()):
            replays = [x for x in lines if x["kind"] == "replay" and x["solved"] is (kind == "solved")]
            values = [v for x in replays for d in x["decisions"] if (v := d["last"][key]) is not None]
            if not values:
                continue
            middle = k + 0.4 * side - 0.2
            axis.plot(middle + jitter.uniform(-0.1, 0.1, len(values)), values, "o", ms=3.5, color=colour, alpha=0.5)
            axis.plot([middle - 0.16, middle + 0.16], [np.median(values)] * 2, color=INK, lw=2)
            if not k:
                axis.plot([], [], "o", color=colour, label=f"{kind} pairs")
    labels = [
        "predictor:\nimagined ~ true\nlatent cost",
        "cost:\ntrue latent cost ~\ntrue distance",
        "both:\nimagined cost ~\ntrue distance",
    ]
    axis.set_xticks(range(len(JUDGES)), labels)
    axis.axhline(0, color=QUIET, lw=0.8)
    axis.set(title="rank correlations over the last candidates", ylim=(-1.05, 1.05), xlim=(-0.5, 2.5))
    axis.legend(frameon=False, loc="lower left")


def _search(axis: Axes, found: Mapping[str, Any]) -> None:
    """What a search gains as it goes on, imagined and truly."""
    kind = next((kind for kind in KINDS if (found["decisions"][kind] or {}).get("curve")), None)
    axis.set(title="best candidate of each iteration", xlabel="iteration", ylabel="median, relative to the first")
    if kind is None:
        axis.text(0.5, 0.5, "no search of several iterations", ha="center", transform=axis.transAxes)
        return
    curve = np.array(found["decisions"][kind]["curve"])
    for values, (name, colour, style) in zip(curve.T, CURVE, strict=True):
        axis.plot(np.arange(1, len(values) + 1), values, style, marker="o", ms=4, color=colour, label=name)
    axis.set(title=f"best candidate of each iteration, {kind} pairs", ylim=(0, None))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(frameon=False)


def _landscape(axis: Axes, scene: Mapping[str, Any], key: str) -> None:
    ticks, path = scene["ticks"], np.array(scene["path"])
    values = np.array([[np.nan if value is None else value for value in row] for row in scene[key]])
    axis.set_facecolor("#e5e7eb")
    drawn = axis.pcolormesh(*ticks, values.T, cmap="viridis_r", shading="nearest")
    axis.figure.colorbar(drawn, ax=axis, shrink=0.8)
    axis.plot(*path.T, color="white", lw=1.6)
    axis.plot(*path.T, color=ACCENT, lw=0.9)
    axis.plot(*path[0], "o", color=ACCENT, mec="white", ms=6)
    axis.plot(*scene["goal"], "*", color=ACCENT, mec="white", ms=13)
    axis.invert_yaxis()
    ends, rank = "solved" if scene["solved"] else "failed", scene["spearman"]
    titles = {"cost": "latent cost", "distance": "true distance"}
    note = f"ranks of the two agree {rank:.2f}" if rank is not None and key == "cost" else ""
    axis.set_title(f"{titles[key]}, pair {scene['pair']} ({ends})\n{note}", fontsize=9)
    axis.set(xlabel=f"state[{scene['axes'][0]}]", ylabel=f"state[{scene['axes'][1]}]")


def _success(axis: Axes, bins: Sequence[Mapping[str, Any]], title: str) -> None:
    middle = [(b["from"] + b["to"]) / 2 for b in bins]
    for x, b in zip(middle, bins, strict=True):
        axis.plot([b["from"], b["to"]], [b["success"]] * 2, color=QUIET, lw=1.2)
        axis.plot([x, x], b["interval"], color=INK, lw=1.6)
        axis.text(x, b["interval"][1] + 0.02, f"n={b['n']}", ha="center", fontsize=8, color=INK)
    axis.plot(middle, [b["success"] for b in bins], "o", color=ACCENT)
    axis.set(xlabel=title, ylim=(0, 1.12), ylabel="success")
    axis.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
