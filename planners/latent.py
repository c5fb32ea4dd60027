"""A cost from anything that can imagine: (dynamics, context, goal) -> Cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from planners.types import Dynamics


class LatentCost:
    """Scores raw candidates by the latents a model imagines for them.

    Args:
        dynamics: the world model.
        context: where imagination starts, B rows (see `Dynamics.context`).
        goal_BD: goal latents.
        terms: (z_BSLD, goal_BD) -> (B, S).
        rows_per_call: rows imagined at once. One on a CPU: the intermediate results stay in the cache, and a row's
            costs are the same bits whichever rows share its batch. All rows on an accelerator.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        context: Any,
        goal_BD: Tensor,
        terms: Callable[[Tensor, Tensor], Tensor],
        rows_per_call: int | None = None,
    ) -> None:
        self.dynamics, self.context, self.goal_BD, self.terms = dynamics, context, goal_BD, terms
        on_cpu = goal_BD.device.type == "cpu"
        self.rows_per_call = rows_per_call or (1 if on_cpu else len(goal_BD))

    def __call__(self, actions_BSHA: Tensor) -> Tensor:
        """Raw candidates (B, S, H, A) -> cost (B, S)."""
        costs = []
        for first in range(0, len(actions_BSHA), self.rows_per_call):
            rows = slice(first, first + self.rows_per_call)
            imagined = self.dynamics.rollout(self.context[rows], actions_BSHA[rows])
            costs.append(self.terms(imagined, self.goal_BD[rows]))
        return torch.cat(costs)
