"""What a search scored when it decided, overheard while an agent acts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from envs import GoalTask
from experiments.evaluate.agents import Act, Planning, Trained
from lewm import registry
from planners import Cost, LatentCost, Plan, Planner, PlanState, Population, Terms
from planners.mixing import Mixer
from planners.population import Scored


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
        self.last: Plan | None = None

    def init(self, *arguments: Any) -> PlanState:
        """See `Planner.init`."""
        return self.planner.init(*arguments)

    def plan(
        self, cost: Cost, state: PlanState, deadline_s: float | None = None, *, committed: Tensor | None = None
    ) -> tuple[Plan, PlanState]:
        """See `Planner.plan`."""
        self.cost, self.populations = cost, []

        def heard(candidates: Tensor) -> Tensor | Terms:
            answer = cost(candidates)
            self.populations.append(Population(candidates.detach(), mixed(answer, candidates)))
            return answer

        self.last, after = self.planner.plan(heard, state, deadline_s, committed=committed)
        return self.last, after


class Watched(Planning):
    """The model behind its planner, one episode at a time; its decisions at some steps are kept."""

    def __init__(self, trained: Trained, steps: Collection[int]) -> None:
        super().__init__(trained)
        self.steps, self.decisions = steps, list[Decision]()

    def begin(self, task: GoalTask, seeds: Sequence[int], steps: int) -> Act:
        """See `Agent`."""
        ear = Listening(registry.build("planner", self.trained.planner))
        act = self.controlled(self.trained.controller(task.rows, seeds, planner=ear), task)

        def watched(t: int) -> np.ndarray:
            before, action = ear.last, act(t)
            if ear.last is not before and t in self.steps:
                wide = [found for found in ear.populations if found.costs.shape[1] > 1]  # less a final mean
                state, goal, plan = task.get_state()[0], task.get_goal()[0], ear.last.actions[:, None]
                self.decisions.append(Decision(t, state, goal, tuple(wide or ear.populations), plan, ear.cost))
            return action

        return watched


def mixed(answer: Tensor | Terms, candidates: Tensor) -> Tensor:
    """One cost (B, S) of what a cost says about candidates (B, S, H, A), as a search ranks by it."""
    if isinstance(answer, Tensor):
        answer = Terms(answer[..., None], Mixer())
    return Scored(candidates, answer.values.detach(), answer.violation, answer.mix).costs()
