"""Where planning has to go: the cost of being somewhere, and success against how far away the goal is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from envs import GoalTask
from experiments.audit.measures import Truth, spearman
from experiments.audit.parts import Parts, mixed
from experiments.records import EpisodeRecord
from experiments.statistics import wilson
from lewm.types import InputError
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


def landscape(
    task: GoalTask, parts: Parts, line: EpisodeRecord, axes: Sequence[int], box: np.ndarray, points: int
) -> dict[str, Any]:
    """The agent's cost of being at states on a grid, and their true distance to the goal, as JSON values.

    What the grid does not vary is as in the goal.

    Args:
        box: (2, 2), lowest and highest value of each axis.
        points: of the grid, along each axis.
    """
    if len(set(axes)) != 2 or not all(0 <= axis < task.state_dim for axis in axes):
        raise InputError(f"axes are two different ones of the state's {task.state_dim}, got {list(axes)}")
    ticks = [np.linspace(low, high, points) for low, high in box]
    goal = np.array(line.goal)
    states = np.repeat(goal[None], points * points, axis=0)
    states[:, axes[0]], states[:, axes[1]] = (x.ravel() for x in np.meshgrid(*ticks, indexing="ij"))
    possible = task.possible(states)
    here = torch.from_numpy(states[possible])
    metric = Truth(task, parts).dynamics.metric
    far = metric(here[None, :, None], torch.from_numpy(goal)[None, None])[0, :, 0].numpy()
    target, start = (parts.encode(task, np.array([state])) for state in (line.goal, line.start))
    still = torch.zeros(1, len(here), parts.dynamics.action_block, len(task.low))
    z_BSLD = _encode(task, parts, here.numpy())[None, :, None].float()
    cost = mixed(parts.cost(Imagined(z_BSLD, start, still, target[:, None], parts.limits)), still)[0]
    grids = {"cost": cost.double().numpy(), "distance": far}
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


def distances(task: GoalTask, parts: Parts, starts: np.ndarray, goals: np.ndarray) -> dict[str, np.ndarray]:
    """From starts to goals (n, s): true, in tolerances, and between latents; (n,) each."""
    metric = Truth(task, parts).dynamics.metric
    here, there = (torch.from_numpy(x)[:, None] for x in (starts, goals))
    z_here, z_there = (_encode(task, parts, states) for states in (starts, goals))
    return {
        "true": metric(here[:, :, None], there)[:, 0, 0].numpy(),
        "latent": (z_here - z_there).square().sum(-1).sqrt().double().numpy(),
    }


def _encode(task: GoalTask, parts: Parts, states: np.ndarray) -> torch.Tensor:
    """Latents (B, D), some pictures at a time."""
    return torch.cat([parts.encode(task, states[k : k + AT_ONCE]) for k in range(0, len(states), AT_ONCE)])
