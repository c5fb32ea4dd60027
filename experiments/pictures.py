"""Figures and animations as inline data, for pages that need no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import imageio.v3 as iio
import matplotlib
import numpy as np
import torch
from matplotlib import ticker
from matplotlib.figure import Figure

from envs import GoalTask
from experiments.build import build_task
from experiments.observe import encode
from experiments.records import EpisodeRecord
from lewm.models import WorldModel

matplotlib.rcParams.update(
    {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none"}
)

INK, ACCENT, QUIET = "#1f2937", "#d64534", "#94a3b8"
MAP_STATES = 1500


def loss_curves(metrics: Sequence[Mapping[str, float]]) -> Figure:
    """Prediction error, regulariser and effective rank against the step."""
    steps = [m["step"] for m in metrics]
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    panels = (
        ("prediction", "prediction error (MSE)", True),
        ("regularisation", "regulariser, before its weight", True),
        ("effective_rank", "effective rank of the latents", False),
    )
    for axis, (key, title, logarithmic) in zip(figure.subplots(1, 3), panels, strict=True):
        values = [m[key] for m in metrics]
        axis.plot(steps, values, color=ACCENT, lw=1.4)
        axis.set(title=title, xlabel="step")
        if logarithmic and min(values) > 0:  # `none` is 0, and some regularisers fall below it
            axis.set_yscale("log")
            axis.yaxis.set_minor_locator(ticker.LogLocator(subs=(2, 5)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("{x:g}")
        elif not logarithmic:
            axis.set_ylim(bottom=0)
    return figure


@torch.no_grad()
def latent_map(model: WorldModel, task: GoalTask) -> Figure:
    """The two main directions of the latent space coloured by true state, and distances to one goal.

    States are drawn from the task; the first two state dimensions are shown.
    """
    rng = np.random.default_rng(0)
    states = np.stack([task.sample_state(rng) for _ in range(MAP_STATES)])
    z = encode(model, task, states)
    centred = z - z.mean(0)
    _, spread, directions = torch.linalg.svd(centred, full_matrices=False)
    flat = (centred @ directions[:2].T).numpy()
    share = (spread[:2] ** 2 / (spread**2).sum()).numpy()
    distance = (z - z[0]).square().sum(-1).sqrt().numpy()

    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.subplots(1, 3)
    for k, axis in enumerate(axes[:2]):
        dots = axis.scatter(*flat.T, c=states[:, min(k, states.shape[1] - 1)], s=4, cmap="viridis")
        figure.colorbar(dots, ax=axis, shrink=0.8)
        axis.set(title=f"latents by state[{k}]", xlabel=f"PC 1 ({share[0]:.0%})", ylabel=f"PC 2 ({share[1]:.0%})")
    dots = axes[2].scatter(*states[:, :2].T, c=distance, s=6, cmap="magma_r")
    axes[2].scatter(*states[0, :2], marker="*", s=120, color=ACCENT, edgecolor="white", zorder=3)
    axes[2].invert_yaxis()
    axes[2].set(title="latent distance to the star", xlabel="state[0]", ylabel="state[1]", aspect="equal")
    figure.colorbar(dots, ax=axes[2], shrink=0.8)
    return figure


def success_bars(summary: Mapping[str, Any]) -> Figure:
    """Success at the end for the model and the floors, all pairs beside detour pairs, with 95 % intervals."""
    rows = [("planning", "success", "detour")]
    rows += [(floor, floor, f"{floor}_detour") for floor in ("greedy", "random") if f"{floor}_final" in summary]
    figure = Figure(figsize=(9, 0.5 + 0.55 * len(rows)), layout="constrained")
    for axis, column, title in zip(
        figure.subplots(1, 2, sharey=True), (1, 2), ("all pairs", "detour pairs"), strict=True
    ):
        for height, row in enumerate(reversed(rows)):
            rate = summary[f"{row[column]}_final"]
            if rate is None:
                continue
            low, high = summary[f"{row[column]}_final_interval"]
            axis.barh(height, rate, color=ACCENT if row[0] == "planning" else QUIET, height=0.6)
            axis.plot([low, high], [height, height], color=INK, lw=2)
            axis.text(min(high + 0.02, 1.02), height, f"{rate:.1%}", va="center", color=INK)
        axis.set(title=title, xlim=(0, 1.15), yticks=range(len(rows)), yticklabels=[r[0] for r in reversed(rows)])
        axis.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    return figure


def animation(env: Mapping[str, Any], record: EpisodeRecord, stride: int = 2, scale: int = 3) -> str:
    """A GIF of one episode beside its goal, drawn again from the recorded states; a data URI."""
    states = np.array(record.states[::stride])
    task = build_task(env, 1)
    frames = task.draw(states)
    goal = np.broadcast_to(task.draw(np.array([record.goal])), frames.shape)
    gap = np.full((*frames.shape[:2], 2, 3), 255, np.uint8)
    film = np.concatenate([frames, gap, goal], axis=2).repeat(scale, axis=1).repeat(scale, axis=2)
    buffer = io.BytesIO()
    iio.imwrite(buffer, film, extension=".gif", duration=60, loop=0)
    return _data_uri("image/gif", buffer.getvalue())


def inline_svg(figure: Figure) -> str:
    """A figure as an image tag's source; a data URI."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _data_uri("image/svg+xml", buffer.getvalue())


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
