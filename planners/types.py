"""The contracts of search. Axes: B rows, S candidates, H environment steps, A action, D latent.

Actions are in raw units everywhere; a candidate holds one action per environment step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

Cost = Callable[[Tensor], Tensor]
"""Raw candidates (B, S, H, A) -> cost (B, S), lower is better. Not finite counts as infinitely bad."""


class InputError(ValueError):
    """Something given from outside cannot be used; the message says got, expected and what to do."""


class PlannerFailure(RuntimeError):
    """No candidate of a row had a finite cost."""


class ActionSpec(Protocol):
    """Bounds and typical spread of an action in raw units; arrays or tensors of shape (A,)."""

    low: Any
    high: Any
    std: Any


class Dynamics(Protocol):
    """What a latent planner needs of a world model. Observations and contexts are opaque to planners.

    `action_block` environment steps make one latent step; `history` frames at that stride start a rollout. A
    context can be indexed by a slice of rows. `recommendation` may be empty.
    """

    action_spec: ActionSpec
    action_block: int
    history: int
    recommendation: Mapping[str, Any]

    def encode(self, observations: Tensor) -> Tensor:
        """Observations (B, ...) -> latents (B, D)."""

    def context(self, observations: Tensor, actions: Tensor) -> Any:
        """Observations (B, history, ...) and the actions ((history - 1) * block) between them -> context."""

    def rollout(self, context: Any, actions_BSHA: Tensor) -> Tensor:
        """Imagined latents (B, S, H / block, D)."""


@dataclass(frozen=True)
class PlanState:
    """All a planner remembers between two plans. Explicit, and selectable by row.

    Attributes:
        mean, std: (B, H, A), where the next search starts.
        initial_std: (A,), the spread of a fresh row; low, high: (A,) bounds.
        seeds: (B,) int64, the randomness of each row.
        replans: (B,) int64, how many plans each row has made.
    """

    mean: Tensor
    std: Tensor
    initial_std: Tensor
    low: Tensor
    high: Tensor
    seeds: Tensor
    replans: Tensor

    ROWS = ("mean", "std", "seeds", "replans")

    def shift(self, steps: int, warm_std: float = 1.0) -> PlanState:
        """Warm start: drop the first `steps` actions, append zeros, and widen to `warm_std` of the initial std."""
        tail = torch.zeros_like(self.mean[:, :steps]).clamp(self.low, self.high)
        mean = torch.cat([self.mean[:, steps:], tail], dim=1)
        return replace(self, mean=mean, std=(warm_std * self.initial_std).expand_as(mean))

    def take(self, rows: Tensor) -> PlanState:
        """The state of some rows (indices)."""
        rows = rows.to(self.mean.device)
        return replace(self, **{name: getattr(self, name)[rows] for name in self.ROWS})

    def put(self, rows: Tensor, other: PlanState) -> PlanState:
        """This state with some rows (indices) replaced by those of `other`."""
        rows = rows.to(self.mean.device)
        new = {name: getattr(self, name).index_copy(0, rows, getattr(other, name)) for name in self.ROWS}
        return replace(self, **new)


@dataclass(frozen=True)
class Plan:
    """What a search found.

    Attributes:
        actions: (B, H, A) raw, within bounds; cost: (B,), of exactly these actions.
        std: (B, H, A), the spread of the search when it stopped.
        failed: (B,) bool, rows without any finite candidate; their actions are the start of the search.
        iterations: done; evaluations: candidates scored per row; deadline_hit: whether time cut it short.
        seconds: wall time of the whole search.
    """

    actions: Tensor
    cost: Tensor
    std: Tensor
    failed: Tensor
    iterations: int
    evaluations: int
    deadline_hit: bool
    seconds: float
