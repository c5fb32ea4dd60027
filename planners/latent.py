"""A cost from anything that can imagine: (dynamics, context, goals) -> Cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from planners.costs import Imagined
from planners.limits import Limits
from planners.types import ActionSpec, Dynamics, Terms


class LatentCost:
    """Scores raw candidates by the latents a model imagines for them.

    Args:
        dynamics: the world model.
        context: where imagination starts, B rows (see `Dynamics.context`).
        goals_BGD: goal latents, any of which will do; None for a cost without a goal.
        term: `Imagined` -> (B, S) or `Terms`; see `costs`.
        action_spec, past_B2A: for terms on actions, see `Imagined`; the spec in place of the dynamics' own.
        autocast: precision of the imagination, torch.bfloat16 for instance; latents and costs stay float32.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        context: Any,
        goals_BGD: Tensor | None,
        term: Callable[[Imagined], Tensor | Terms],
        *,
        action_spec: ActionSpec | None = None,
        past_B2A: Tensor | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.dynamics, self.context, self.term, self.autocast = dynamics, context, term, autocast
        self.start_BD = dynamics.start(context)
        device = self.start_BD.device
        self.goals_BGD = None if goals_BGD is None else goals_BGD.to(device)
        self.past_B2A = None if past_B2A is None else past_B2A.to(device)
        self.action_spec = Limits.of(action_spec or dynamics.action_spec, device)
        # On a CPU one row at a time: the intermediate results stay in the cache, and a row's costs are the same
        # bits whichever rows share its batch (ADR 0003).
        self._at_once = 1 if device.type == "cpu" else len(self.start_BD)

    def __call__(self, actions_BSHA: Tensor) -> Tensor | Terms:
        """Raw candidates (B, S, H, A) -> cost (B, S) or terms."""
        firsts = range(0, len(actions_BSHA), self._at_once)
        costs = [self._rows(slice(first, first + self._at_once), actions_BSHA) for first in firsts]
        if isinstance(costs[0], Tensor):
            return torch.cat(costs)
        violations = [cost.violation for cost in costs]
        violation = None if violations[0] is None else torch.cat(violations)
        return replace(costs[0], values=torch.cat([cost.values for cost in costs]), violation=violation)

    def _rows(self, rows: slice, actions_BSHA: Tensor) -> Tensor | Terms:
        actions = actions_BSHA[rows].clone()  # aligned in memory: a product's bits depend on that, too
        goals, past = (None if x is None else x[rows] for x in (self.goals_BGD, self.past_B2A))
        with torch.autocast(actions.device.type, self.autocast, enabled=self.autocast is not None):
            imagined = self.dynamics.rollout(self.context[rows], actions)
        latents = imagined.to(actions.dtype)
        return self.term(Imagined(latents, self.start_BD[rows], actions, goals, self.action_spec, past))


@dataclass(frozen=True)
class StepDynamics:
    """Dynamics of your own, one environment step at a time; the state is its own observation and its own latent.

    Attributes:
        step: (states (..., D), actions (..., A)) -> next states (..., D), in torch, batched over the leading axes.
        action_spec: bounds and more; see `Limits`.
    """

    step: Callable[[Tensor, Tensor], Tensor]
    action_spec: ActionSpec

    action_block: ClassVar[int] = 1
    history: ClassVar[int] = 1
    recommendation: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def encode(self, observations: Tensor) -> Tensor:
        """States (B, D) as float32."""
        return observations.float()

    def context(self, observations: Tensor, actions: Tensor) -> Tensor:
        """The last state (B, D)."""
        return observations[:, -1].float()

    def start(self, context: Tensor) -> Tensor:
        """See `Dynamics.start`."""
        return context

    def rollout(self, context: Tensor, actions_BSHA: Tensor) -> Tensor:
        """States after every action, (B, S, H, D)."""
        state, states = context[:, None].expand(-1, actions_BSHA.shape[1], -1), []
        for action in actions_BSHA.unbind(2):
            state = self.step(state, action)
            states.append(state)
        return torch.stack(states, dim=2)


def from_step(step: Callable[[Tensor, Tensor], Tensor], action_spec: ActionSpec) -> StepDynamics:
    """Your `step(state, action)` as dynamics that `MPC` plans with."""
    return StepDynamics(step, action_spec)
