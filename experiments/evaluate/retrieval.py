"""Nearest neighbours: do what was done where an episode led from a place like this to a place like the goal."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from envs import GoalTask
from experiments.evaluate.agents import Act, Trained
from experiments.evaluate.memory import Memory, training_data
from experiments.observe import encode
from experiments.runs import at_least
from lewm.registry import register


@register("agent", "retrieval")
class Retrieval:
    """Repeats recorded actions, those between frames i and j > i of a training episode with the least

        |z_now - z_i| + |z_goal - z_j|,

    for at most `replan_every` steps, as the model plans, then looks again.

    Args:
        horizon: environment steps from i to j at most.
        frames: of the training episodes to look among.
    """

    seeded, pairs = False, None

    def __init__(self, trained: Trained, *, horizon: int = 50, frames: int = 20_000) -> None:
        at_least({"horizon": horizon, "frames": frames}, horizon=1, frames=2)
        self.trained, self.horizon, self.frames = trained, horizon, frames
        training_data(trained)  # missing data are an error before anything is claimed

    @cached_property
    def memory(self) -> Memory:
        """Where it looks; made when it is first needed."""
        return Memory.of(self.trained, self.frames)

    @torch.no_grad()
    def begin(self, task: GoalTask, seeds: Sequence[int], steps: int) -> Act:
        """See `Agent`."""
        model, memory = self.trained.model, self.memory
        ahead = [self._ahead(goal) for goal in encode(model, task, task.get_goal())]
        queue: list[list[np.ndarray]] = [[] for _ in ahead]  # actions to do, row by row

        @torch.no_grad()
        def act(t: int) -> np.ndarray:
            due = [row for row, actions in enumerate(queue) if not actions]
            if due:
                for row, z in zip(due, encode(model, task, task.get_state()[due]), strict=True):
                    cost, best = ahead[row]
                    i = int((_distances(memory.z_ND, z) + cost).argmin())
                    done = memory.actions_NKA[i : int(best[i])].flatten(0, 1)
                    queue[row] = list(done[: self.trained.replan_every].numpy())
            return np.stack([actions.pop(0) for actions in queue])

        return act

    def _ahead(self, goal_D: Tensor) -> tuple[Tensor, Tensor]:
        """For every frame (N,): how near to the goal its episode comes within the horizon, and in which frame."""
        far = _distances(self.memory.z_ND, goal_D)
        return nearest_ahead(far, self.memory.last_N, max(1, self.horizon // self.memory.stride))


def nearest_ahead(far_N: Tensor, last_N: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """The least of the next `reach` values, up to frame `last`, and its frame; infinity where there are none."""
    count = len(far_N)
    frame = torch.arange(count)
    cost, best = torch.full_like(far_N, torch.inf), frame.clone()
    for k in range(1, min(reach, count - 1) + 1):
        later = torch.full_like(far_N, torch.inf)
        later[: count - k] = far_N[k:]
        better = (later < cost) & (frame + k <= last_N)
        cost, best = torch.where(better, later, cost), torch.where(better, frame + k, best)
    return cost, best


def _distances(z_ND: Tensor, z_D: Tensor) -> Tensor:
    """Of all frames to one latent (N,): a row at a time, so that a row's are the same bits in any batch."""
    return (z_ND.square().sum(1) - 2 * (z_ND @ z_D.clone()) + z_D.square().sum()).clamp(min=0).sqrt()
