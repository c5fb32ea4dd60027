"""The contracts of search. Axes: B rows, S candidates, H environment steps, A action, D latent, K cost terms.

Actions are in raw units everywhere; a candidate holds one action per environment step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from planners.errors import InputError
from planners.limits import Limits
from planners.mixing import Mixer


@dataclass(frozen=True)
class Terms:
    """A cost in parts. The search mixes them over the whole population of an iteration, kept elites included.

    Attributes:
        values: (B, S, K).
        mix: how they become one; see `mixing.Mixer`.
        violation: (B, S), how far a candidate breaks its constraints; zero where it keeps them. A candidate that
            keeps them beats any that does not. None: there are no constraints.
        penalty: weight of the violation in the objective that gradient planners descend.
    """

    values: Tensor
    mix: Mixer
    violation: Tensor | None = None
    penalty: float = 1.0


Cost = Callable[[Tensor], "Tensor | Terms"]
"""Raw candidates (B, S, H, A) -> cost (B, S) or `Terms`; lower is better, not finite counts as infinitely bad."""


class ActionSpec(Protocol):
    """Bounds and typical spread of an action in raw units, shape (A,); `Limits` is one, and has more."""

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

    def encode(self, observations: Any) -> Tensor:
        """Observations (B, ...), one tensor or several by name -> latents (B, D)."""

    def context(self, observations: Any, actions: Tensor) -> Any:
        """Observations (B, history, ...) and the actions ((history - 1) * block) between them -> context."""

    def start(self, context: Any) -> Tensor:
        """The latents (B, D) that imagination starts from."""

    def rollout(self, context: Any, actions_BSHA: Tensor) -> Tensor:
        """Imagined latents (B, S, H / block, D)."""


@dataclass(frozen=True)
class PlanState:
    """All a planner remembers between two plans. Explicit, and selectable by row.

    Attributes:
        mean, std: (B, H, A), where the next search starts.
        kept: (B, K, H, A), candidates to try again; K may be zero.
        past: (B, 2, A), the last two executed actions, which rate and acceleration limits refer to.
        seeds, replans: (B,) int64 on the CPU: the randomness of each row, and how many plans it has made.
        limits: bounds and more, as tensors; rest: (A,), the action of a row that does nothing.
        initial_std: (A,), the spread of a fresh row; basis: (H, K), see `proposals.Proposal`.
    """

    mean: Tensor
    std: Tensor
    kept: Tensor
    past: Tensor
    seeds: Tensor
    replans: Tensor
    limits: Limits
    rest: Tensor
    initial_std: Tensor
    basis: Tensor

    ROWS = ("mean", "std", "kept", "past", "seeds", "replans")

    def shift(self, steps: int, warm_std: float = 1.0, executed: Tensor | None = None) -> PlanState:
        """Warm start: drop the first `steps` actions, append rest, and widen to `warm_std` of the initial std.

        `executed` (B, n, A) are the actions done since, which rate and acceleration limits go on from.
        """

        def later(actions: Tensor) -> Tensor:
            tail = self.rest.expand_as(actions[..., :steps, :])
            return torch.cat([actions[..., steps:, :], tail], dim=-2)

        mean = later(self.mean)
        std = (warm_std * self.initial_std).expand_as(mean)
        past = self.past if executed is None else torch.cat([self.past, executed], dim=1)[:, -2:]
        return replace(self, mean=mean, std=std, kept=later(self.kept), past=past)

    def fuse(self, mean_BHA: Tensor, std_BHA: Tensor, floor: float = 0.05) -> PlanState:
        """Start from the product of this state's Gaussian and a prior's: each weighs as its precision.

        PRISM (arXiv 2606.07974): 1/s^2 = 1/s_prior^2 + 1/s_plan^2, m = s^2 (m_prior/s_prior^2 + m_plan/s_plan^2).

        Args:
            mean_BHA, std_BHA: of the prior, raw units.
            floor: least std of the prior, in units of the initial std.
        """
        mean_BHA, std_BHA = (x.to(self.mean) for x in (mean_BHA, std_BHA))
        if mean_BHA.shape != self.mean.shape or std_BHA.shape != self.mean.shape:
            raise InputError(
                f"a prior gives mean and std of shape {tuple(self.mean.shape)} (B, H, A), "
                f"got {tuple(mean_BHA.shape)} and {tuple(std_BHA.shape)}"
            )
        prior = std_BHA.maximum(floor * self.initial_std).square().reciprocal()
        own = self.std.square().reciprocal()
        mean = (prior * mean_BHA + own * self.mean) / (prior + own)
        return replace(self, mean=mean, std=(prior + own).rsqrt())

    def take(self, rows: Tensor) -> PlanState:
        """The state of some rows (indices)."""
        return replace(self, **{name: (x := getattr(self, name))[rows.to(x.device)] for name in self.ROWS})

    def put(self, rows: Tensor, other: PlanState) -> PlanState:
        """This state with some rows (indices) replaced by those of `other`."""
        new = {
            name: (x := getattr(self, name)).index_copy(0, rows.to(x.device), getattr(other, name))
            for name in self.ROWS
        }
        return replace(self, **new)


@dataclass(frozen=True)
class Plan:
    """What a search found.

    Attributes:
        actions: (B, H, A) raw, within all limits.
        cost: (B,), of exactly these actions: what the cost said, or its terms mixed over the last population; of an
            infeasible plan, its rank behind the feasible ones.
        std: (B, H, A), the spread of the search when it stopped.
        failed: (B,) bool, rows without any finite candidate; their actions are the start of the search.
        feasible: (B,) bool, whether the actions keep the constraints of the cost.
        converged: (B,) bool, rows that stopped because their spread was small enough.
        iterations: done; evaluations: candidates scored per row; deadline_hit: whether time cut it short.
        timings: seconds of each phase, and of the whole as `total`. On an accelerator, where a search does not
            wait, those of a phase are of handing out its work.
    """

    actions: Tensor
    cost: Tensor
    std: Tensor
    failed: Tensor
    feasible: Tensor
    converged: Tensor
    iterations: int
    evaluations: int
    deadline_hit: bool
    timings: Mapping[str, float]

    def action(self, step: float, *, interpolate: bool = False) -> Tensor:
        """The plan as a function of time: the action (B, A) at `step` (environment steps, may be a fraction).

        Args:
            step: beyond the last action, the last action.
            interpolate: linearly between two actions; else the action is held until the next.
        """
        last = self.actions.shape[1] - 1
        first = min(int(step), last)
        weight = min(step - first, 1.0) if interpolate else 0.0
        return torch.lerp(self.actions[:, first], self.actions[:, min(first + 1, last)], weight)
