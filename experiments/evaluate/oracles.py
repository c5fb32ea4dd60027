"""Oracles: the model's own planner in the true simulator, to tell what keeps the model from succeeding.

`oracle_latent` is simulator + picture + encoder + latent cost: what the model lacks to it is its predictor's fault.
`oracle_state` is simulator + the task's way to the goal: what `oracle_latent` lacks to it is the representation's
fault, and what it lacks to 100 % itself the search's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from envs import GoalTask
from experiments.evaluate.agents import Act, Trained
from experiments.runs import at_least
from experiments.simulator import SimulatorDynamics
from lewm.models import WorldModel
from lewm.registry import register
from planners import MPC, GoalDistance

WEIGHTS = {"running", "terminal", "softmin", "temperature", "discount"}  # settings of a cost that say how


class Oracle(ABC):
    """Plans as the model does, with what truly happens in the place of what it imagines.

    Args:
        pairs: it is run on the first so many, as simulating every candidate is dear; null: on all.
    """

    seeded = True

    def __init__(self, trained: Trained, *, pairs: int | None = 30) -> None:
        self.trained, self.pairs = trained, pairs
        if pairs is not None:
            at_least({"pairs": pairs}, pairs=1)

    @abstractmethod
    def controller(self, task: GoalTask, seeds: Sequence[int]) -> MPC:
        """What acts on states of the task."""

    def begin(self, task: GoalTask, seeds: Sequence[int], steps: int) -> Act:
        """See `Agent`."""
        agent = self.controller(task, seeds)
        agent.reset(task.get_goal())
        return lambda t: agent.act(task.get_state())

    def dynamics(self, task: GoalTask, encoder: WorldModel | None) -> SimulatorDynamics:
        """The task, with candidates spread as the model's, and seen where the model would see them."""
        model = self.trained.model
        return SimulatorDynamics(task, std=model.action_spec.std, block=model.action_block, encoder=encoder)


@register("agent", "oracle_latent")
class LatentOracle(Oracle):
    """True simulator, the model's encoder and its cost."""

    def controller(self, task: GoalTask, seeds: Sequence[int]) -> MPC:
        """See `Oracle`."""
        return self.trained.controller(task.rows, seeds, self.dynamics(task, self.trained.model))


@register("agent", "oracle_state")
class StateOracle(Oracle):
    """True simulator, and `GoalTask.travel` at the ends of action blocks as the distance to the goal.

    It is weighed along the path as the model's cost weighs its own; of a cost that is no `goal_distance`, the mean.
    """

    def controller(self, task: GoalTask, seeds: Sequence[int]) -> MPC:
        """See `Oracle`."""
        dynamics, spec = self.dynamics(task, None), self.trained.cost
        weights = {key: spec[key] for key in WEIGHTS & spec.keys()} if spec["name"] == "goal_distance" else {}
        cost = GoalDistance(**weights, metric=dynamics.metric)
        return self.trained.controller(task.rows, seeds, dynamics, cost=cost)
