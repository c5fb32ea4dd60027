"""What a search scored when it decided, overheard while an agent acts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from envs import GoalTask
from experiments.evaluate.agents import Overheard, Planning, Trained
from lewm import registry
from planners import MPC, Cost, LatentCost, Plan, PlanState, Population, Terms
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


class Listening(Overheard):
    """Remembers what its last search scored, too."""

    def plan(self, cost: Cost, state: PlanState, *given: Any, **more: Any) -> tuple[Plan, PlanState]:
        """See `planners.Planner`."""
        self.cost, self.populations = cost, list[Population]()

        def heard(candidates: Tensor) -> Tensor | Terms:
            answer = cost(candidates)
            self.populations.append(Population(candidates.detach(), mixed(answer, candidates)))
            return answer

        return self.planner.plan(heard, state, *given, **more)


class Watched(Planning):
    """The model behind its planner, one episode at a time; its decisions at some steps are kept."""

    def __init__(self, trained: Trained, steps: Collection[int]) -> None:
        super().__init__(trained)
        self.steps, self.decisions = steps, list[Decision]()

    def controller(self, rows: int, seeds: Sequence[int]) -> MPC:
        """See `Planning`."""
        ear = Listening(registry.build("planner", self.trained.planner))
        return self.trained.controller(rows, seeds, planner=ear)

    def decided(self, t: int, task: GoalTask, agent: MPC, seconds: float) -> None:
        """See `Planning`."""
        if t in self.steps:
            ear, plan = agent.planner, agent.last_plan.actions[:, None]
            wide = [found for found in ear.populations if found.costs.shape[1] > 1]  # less a final mean
            state, goal = task.get_state()[0], task.get_goal()[0]
            self.decisions.append(Decision(t, state, goal, tuple(wide or ear.populations), plan, ear.cost))


def mixed(answer: Tensor | Terms, candidates: Tensor) -> Tensor:
    """One cost (B, S) of what a cost says about candidates (B, S, H, A), as a search ranks by it."""
    if isinstance(answer, Tensor):
        answer = Terms(answer[..., None], Mixer())
    return Scored(candidates, answer.values.detach(), answer.violation, answer.mix).costs()
