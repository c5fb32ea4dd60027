"""What plans, in parts that can be exchanged, and what a search scored when it decided."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from envs import GoalTask
from experiments.evaluate.agents import Act
from experiments.observe import observe
from planners import (
    MPC,
    ActionSpec,
    Cost,
    Dynamics,
    Imagined,
    LatentCost,
    Plan,
    Planner,
    PlanState,
    Population,
    Terms,
)
from planners.mixing import Mixer
from planners.observations import each
from planners.population import Scored


@dataclass(frozen=True)
class Parts:
    """An agent of an evaluation, whose parts can be exchanged one by one.

    Attributes:
        dynamics: what imagines.
        planner, cost, replan_every: how it searches, and what for.
        limits: bounds and spread of the actions, the same whatever imagines.
        columns: what `dynamics` observes of a state; None means the state itself.
    """

    dynamics: Dynamics
    planner: Planner
    cost: Callable[[Imagined], Tensor | Terms]
    replan_every: int
    limits: ActionSpec
    columns: tuple[str, ...] | None = None

    seeded: ClassVar[bool] = True
    pairs: ClassVar[int | None] = None

    def begin(self, task: GoalTask, seeds: Sequence[int], steps: int) -> Act:
        """See `experiments.evaluate.agents.Agent`."""
        agent = MPC(
            self.dynamics,
            rows=task.rows,
            planner=self.planner,
            cost=self.cost,
            replan_every=self.replan_every,
            limits=self.limits,
            seeds=seeds,
        )
        agent.reset(self.see(task, task.get_goal()))
        return lambda t: agent.act(self.see(task, task.get_state()))

    def see(self, task: GoalTask, states: np.ndarray) -> Any:
        """What `dynamics` observes of states (B, s)."""
        return states if self.columns is None else observe(task, states, self.columns)

    @torch.no_grad()
    def encode(self, task: GoalTask, states: np.ndarray) -> Tensor:
        """Latents (B, D) of states (B, s)."""
        return self.dynamics.encode(each(torch.from_numpy, self.see(task, states)))


@dataclass(frozen=True)
class Decision:
    """One search in the course of an episode.

    Attributes:
        step: of the episode; state, goal: (s,) each, the true ones.
        populations: what each iteration scored, one row each, with the costs the search went by.
        actions: (1, 1, H, A), the plan it returned.
        cost: what it minimised; can score more candidates of this decision.
    """

    step: int
    state: np.ndarray
    goal: np.ndarray
    populations: tuple[Population, ...]
    actions: Tensor
    cost: LatentCost


class Listening:
    """A planner that remembers what its last search scored; it plans as the planner it is made of."""

    def __init__(self, planner: Planner) -> None:
        self.planner = planner
        self.horizon, self.warm_std = planner.horizon, planner.warm_std
        self.cost: Cost | None = None
        self.populations: list[Population] = []
        self.plans = 0

    def init(self, *arguments: Any) -> PlanState:
        """See `Planner.init`."""
        return self.planner.init(*arguments)

    def plan(
        self, cost: Cost, state: PlanState, deadline_s: float | None = None, *, committed: Tensor | None = None
    ) -> tuple[Plan, PlanState]:
        """See `Planner.plan`."""
        self.cost, self.populations = cost, []
        self.plans += 1

        def heard(candidates: Tensor) -> Tensor | Terms:
            answer = cost(candidates)
            self.populations.append(Population(candidates.detach(), mixed(answer, candidates)))
            return answer

        self.last, after = self.planner.plan(heard, state, deadline_s, committed=committed)
        return self.last, after


@dataclass(frozen=True)
class Watched:
    """An agent that acts as its parts do, one episode at a time, and keeps its decisions at some steps."""

    parts: Parts
    steps: Collection[int]
    decisions: list[Decision] = field(default_factory=list)

    seeded: ClassVar[bool] = True
    pairs: ClassVar[int | None] = None

    def begin(self, task: GoalTask, seeds: Sequence[int], steps: int) -> Act:
        """See `experiments.evaluate.agents.Agent`."""
        ear = Listening(self.parts.planner)
        act = replace(self.parts, planner=ear).begin(task, seeds, steps)

        def watched(t: int) -> np.ndarray:
            before, action = ear.plans, act(t)
            if ear.plans > before and t in self.steps:
                state, goal = task.get_state()[0], task.get_goal()[0]
                wide = [found for found in ear.populations if found.costs.shape[1] > 1]  # less a final mean
                populations = tuple(wide or ear.populations)
                self.decisions.append(Decision(t, state, goal, populations, ear.last.actions[:, None], ear.cost))
            return action

        return watched


def mixed(answer: Tensor | Terms, candidates: Tensor) -> Tensor:
    """One cost (B, S) of what a cost says about candidates (B, S, H, A), as a search ranks by it."""
    if isinstance(answer, Tensor):
        answer = Terms(answer[..., None], Mixer())
    return Scored(candidates, answer.values.detach(), answer.violation, answer.mix).costs()
