"""Figures as inline SVG, for pages that need no network. Their ink is the page's: they suit light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure

from envs import GoalTask

INK, ACCENT, QUIET = "#1f2937", "#d64534", "#94a3b8"
LINES = (ACCENT, "#3b82f6", "#16a34a", "#a855f7", "#d97706", "#64748b")  # legible on white and on black
PANEL = (3.6, 2.5)  # inches; narrow enough for a phone

matplotlib.rcParams.update(
    {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none"}
)
STYLE = {
    name: INK for name in ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
} | {"axes.titlesize": 9, "figure.constrained_layout.use": True}
RAMP = LinearSegmentedColormap.from_list("ramp", matplotlib.colormaps["viridis"](np.linspace(0.15, 0.93, 64)))
CYCLE = LinearSegmentedColormap.from_list("cycle", ["#e11d48", "#d97706", "#16a34a", "#2563eb", "#e11d48"])

CURVES = (
    ("prediction", "prediction error (MSE)", True),
    ("regularisation", "regulariser, before its weight", True),
    ("effective_rank", "effective rank of the latents", False),
)


class Coordinate(NamedTuple):
    """One true quantity of every state: (n,) values, radians where it is an angle."""

    name: str
    values: np.ndarray
    angle: bool

    @property
    def colours(self) -> Colormap:
        """Colours that run in a circle for an angle."""
        return CYCLE if self.angle else RAMP


def coordinates(task: GoalTask, states: np.ndarray) -> list[Coordinate]:
    """What varies in states (n, s): of the `pose`, where the task senses one, else of the state itself.

    A sine and a cosine become their angle; they are two columns whose squares add up to one in every state.
    """
    sensed = task.sense(states)
    name, values = ("pose", sensed["pose"]) if "pose" in sensed else ("state", states)
    found: list[Coordinate] = []
    paired: set[int] = set()
    varies = np.ptp(values, axis=0) > 1e-9
    for i, column in enumerate(values.T):
        if i in paired or not varies[i]:
            continue
        circle = np.abs(column[:, None] ** 2 + values[:, i + 1 :] ** 2 - 1).max(0) < 1e-6
        partner = next((j for j in np.flatnonzero(circle) + i + 1 if j not in paired and varies[j]), None)
        if partner is None:
            found.append(Coordinate(f"{name}[{i}]", column, False))
        else:
            paired.add(partner)
            angle = np.arctan2(column, values[:, partner])
            found.append(Coordinate(f"angle of {name}[{i}, {partner}]", angle, True))
    return found


def curves(runs: Mapping[str, Sequence[Mapping[str, float]]]) -> list[str]:
    """Prediction error, regulariser and effective rank against the step, a line for every run; SVG."""
    drawn = []
    for key, title, logarithmic in CURVES:
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=PANEL)
            axis = figure.subplots()
            for colour, (name, metrics) in zip(_cycled(len(runs)), runs.items(), strict=True):
                logged = [line for line in metrics if key in line]
                axis.plot([m["step"] for m in logged], [m[key] for m in logged], color=colour, lw=1.3, label=name)
            axis.set(title=title, xlabel="step")
            _scale(axis, logarithmic)
            if len(runs) > 1:
                axis.legend(frameon=False, fontsize=7)
            drawn.append(inline_svg(figure, f"{title} against the training step"))
    return drawn


def _cycled(count: int) -> list[str]:
    return [LINES[k % len(LINES)] for k in range(count)]


def _scale(axis: Axes, logarithmic: bool) -> None:
    values = np.concatenate([line.get_ydata() for line in axis.lines] or [[]])
    if logarithmic and len(values) and values.min() > 0:  # `none` is 0, and some regularisers fall below it
        axis.set_yscale("log")
        axis.yaxis.set_minor_locator(ticker.LogLocator(subs=(2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")
    elif not logarithmic:
        axis.set_ylim(bottom=0)


def latent_maps(z: np.ndarray, found: Sequence[Coordinate], *, downwards: bool = False, most: int = 5) -> list[str]:
    """The two main directions of latents (n, D) coloured by true quantities, and distances to the first; SVG.

    Args:
        found: of the same n states; at most `most` of them are shown.
        downwards: whether the second grows from the top of a picture to its bottom.
    """
    centred = z - z.mean(0)
    _, spread, directions = np.linalg.svd(centred, full_matrices=False)
    flat = centred @ directions[:2].T
    share = spread[:2] ** 2 / (spread**2).sum()
    names = [f"PC {k + 1} ({part:.0%})" for k, part in enumerate(share)]
    drawn = []
    for coordinate in found[:most]:
        with matplotlib.rc_context(STYLE):
            figure, axis = _scattered(flat, coordinate.values, coordinate.colours)
            axis.set(title=f"latents by {coordinate.name}", xlabel=names[0], ylabel=names[1])
            drawn.append(inline_svg(figure, f"two main directions of the latents, coloured by {coordinate.name}"))
    if len(found) > 1:
        with matplotlib.rc_context(STYLE):
            places = np.column_stack([found[0].values, found[1].values])
            figure, axis = _scattered(places, np.linalg.norm(z - z[0], axis=1), RAMP)
            axis.plot(*places[0], marker="*", ms=11, color=INK)
            axis.set(title="latent distance to the star", xlabel=found[0].name, ylabel=found[1].name)
            axis.yaxis.set_inverted(downwards)
            drawn.append(inline_svg(figure, "distance of the latents to that of one state, by true state"))
    return drawn


def _scattered(places: np.ndarray, values: np.ndarray, colours: Colormap) -> tuple[Figure, Axes]:
    """Coloured dots with a bar; the dots are pixels, as thousands of them would be a heavy drawing."""
    figure = Figure(figsize=PANEL, dpi=180)
    axis = figure.subplots()
    dots = axis.scatter(*places.T, c=values, s=5, cmap=colours, linewidths=0, rasterized=True)
    figure.colorbar(dots, ax=axis, shrink=0.9).outline.set_visible(False)
    return figure, axis


def inline_svg(figure: Figure, says: str) -> str:
    """A figure as an element of a page, without ids of its own; `says` describes it to those who do not see it."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": says}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    drawing = buffer.getvalue().partition("<svg")[2]
    box = re.search(r'viewBox="[^"]+"', drawing)[0]
    inside = re.sub(r"<metadata>.*?</metadata>", "", drawing.partition(">")[2], flags=re.DOTALL)
    inside = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", inside).replace(INK, "currentColor")
    return f'<svg class="figure" {box} role="img" aria-label="{escape(says)}">{inside}'
