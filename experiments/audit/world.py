"""Where planning has to go: the cost of being somewhere, and success against how far away the goal is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from envs import GoalTask
from experiments.audit.measures import spearman
from experiments.audit.watch import mixed
from experiments.evaluate.agents import Trained
from experiments.observe import encode
from experiments.records import EpisodeRecord
from experiments.statistics import wilson
from lewm import registry
from lewm.models import WorldModel
from planners import Imagined

AT_ONCE = 256  # pictures that are drawn and encoded at once
BINS = 4


def choose_axes(task: GoalTask, starts: np.ndarray, goals: np.ndarray) -> list[int]:
    """The two state axes that take a goal farthest away when they alone are those of a start, in their order."""
    away = []
    for axis in range(task.state_dim):
        states = goals.copy()
        states[:, axis] = starts[:, axis]
        away.append(np.median(task.distance(states, goals)))
    return sorted(np.argsort(away, kind="stable")[-2:].tolist())


@torch.no_grad()
def landscape(
    task: GoalTask, trained: Trained, line: EpisodeRecord, axes: Sequence[int], box: np.ndarray, points: int
) -> dict[str, Any]:
    """The agent's cost of being at states on a grid, and their true distance to the goal, as JSON values.

    What the grid does not vary is as in the goal.

    Args:
        box: (2, 2), lowest and highest value of each axis.
        points: of the grid, along each axis.
    """
    ticks = [np.linspace(low, high, points) for low, high in box]
    goal = np.array(line.goal)
    states = np.repeat(goal[None], points * points, axis=0)
    states[:, axes[0]], states[:, axes[1]] = (x.ravel() for x in np.meshgrid(*ticks, indexing="ij"))
    possible = task.possible(states)
    here = states[possible]
    far, model = task.travel(here, np.repeat(goal[None], len(here), axis=0)), trained.model
    start, target = _encode(model, task, np.array([line.start, line.goal]))[:, None]
    still = torch.zeros(1, len(here), model.action_block, len(task.low))
    z_BSLD = _encode(model, task, here)[None, :, None].float()
    term = registry.build("cost", trained.cost)
    said = term(Imagined(z_BSLD, start, still, target[:, None], model.action_spec))
    grids = {"cost": mixed(said, still)[0].double().numpy(), "distance": far}
    return {
        "axes": list(axes),
        "ticks": [x.round(5).tolist() for x in ticks],
        "path": [[round(state[axis], 5) for axis in axes] for state in line.states],
        "goal": [round(line.goal[axis], 5) for axis in axes],
        "spearman": spearman(grids["cost"], far),
        **{name: _grid(values, possible, points) for name, values in grids.items()},
    }


def _grid(values: np.ndarray, possible: np.ndarray, points: int) -> list[list[float | None]]:
    """Rows of the first axis; None where no state can be."""
    whole: list[float | None] = [None] * len(possible)
    for place, value in zip(np.flatnonzero(possible), values, strict=True):
        whole[place] = float(f"{value:.5g}")
    return [whole[k : k + points] for k in range(0, len(whole), points)]


def by_distance(far: np.ndarray, success: np.ndarray, bins: int = BINS) -> list[dict[str, Any]]:
    """Success rates in bins of equally many pairs, near to far.

    Args:
        far: (n,) distances from start to goal; success: (n,) bool.
    """
    found = []
    for chosen in np.array_split(np.argsort(far, kind="stable"), min(bins, len(far))):
        reached = int(success[chosen].sum())
        found.append(
            {
                "from": round(float(far[chosen].min()), 4),
                "to": round(float(far[chosen].max()), 4),
                "n": len(chosen),
                "success": round(reached / len(chosen), 4),
                "interval": wilson(reached, len(chosen)),
            }
        )
    return found


@torch.no_grad()
def distances(task: GoalTask, model: WorldModel, starts: np.ndarray, goals: np.ndarray) -> dict[str, np.ndarray]:
    """From starts to goals (n, s): the true way, in tolerances, and between latents; (n,) each."""
    between = _encode(model, task, starts) - _encode(model, task, goals)
    return {"true": task.travel(starts, goals), "latent": between.square().sum(-1).sqrt().double().numpy()}


def _encode(model: WorldModel, task: GoalTask, states: np.ndarray) -> torch.Tensor:
    """Latents (B, D), some pictures at a time."""
    return torch.cat([encode(model, task, states[k : k + AT_ONCE]) for k in range(0, len(states), AT_ONCE)])
