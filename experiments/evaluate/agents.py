"""Who acts in an evaluation: the model behind its planner, the floors, and whoever registers as an `agent`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from envs import GoalTask, UniformHold
from envs.policies import Greedy, Policy
from experiments.observe import observe
from lewm import registry
from lewm.models import WorldModel
from lewm.types import InputError
from planners import MPC, Dynamics

Act = Callable[[int], np.ndarray]
Spec = Mapping[str, Any]


class Agent(Protocol):
    """Acts in a batch of episodes.

    Attributes:
        seeded: whether it is run with every seed of an evaluation, or with the first alone.
        pairs: it is run on the first so many pairs; None means all. For agents that are dear.
    """

    seeded: bool
    pairs: int | None

    def begin(self, task: GoalTask, seeds: Sequence[int], steps: int) -> Act:
        """`act(t)` gives the actions (B, A) of step `t`, each row's by its own seed and state alone."""
        ...


@dataclass(frozen=True)
class Trained:
    """What an agent may be made of.

    Attributes:
        model: the world model.
        run: where it is from; facts: what its checkpoint records.
        folder: where an agent may keep what it has learnt.
        data: folder of the training data, None where it is not known.
        env: settings of the task.
        planner, cost, replan_every: how the model plans, as chosen or as its checkpoint recommends.
    """

    model: WorldModel
    run: Path
    facts: Mapping[str, Any]
    folder: Path
    data: Path | None
    env: Mapping[str, Any]
    planner: Mapping[str, Any]
    cost: Mapping[str, Any]
    replan_every: int

    @cached_property
    def _parts(self) -> dict[str, Any]:
        return {kind: registry.build(kind, getattr(self, kind)) for kind in ("planner", "cost")}

    def controller(self, rows: int, seeds: Sequence[int], dynamics: Dynamics | None = None, **other: Any) -> MPC:
        """The MPC that plans as chosen, with the model or other dynamics; `other` replaces what MPC is given."""
        given = {**self._parts, "replan_every": self.replan_every, **other}
        return MPC(dynamics or self.model, rows=rows, seeds=seeds, **given)


@registry.register("agent", "model")
class Planning:
    """The world model behind its planner, acting on pictures."""

    seeded, pairs = True, None

    def __init__(self, trained: Trained) -> None:
        self.trained = trained

    def begin(self, task: GoalTask, seeds: Sequence[int], steps: int) -> Act:
        """See `Agent`."""
        return self.controlled(self.trained.controller(task.rows, seeds), task)

    @staticmethod
    def controlled(agent: MPC, task: GoalTask) -> Act:
        """Reset a controller to the task's goals and let it act on what its model observes."""
        columns = agent.model.columns
        agent.reset(observe(task, task.get_goal(), columns))
        return lambda t: agent.act(observe(task, task.get_state(), columns))


class Scripted:
    """A data policy, which knows true states, in the place of an agent.

    Args:
        policy: see `envs.policies.Policy`.
    """

    seeded, pairs = False, None

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def begin(self, task: GoalTask, seeds: Sequence[int], steps: int) -> Act:
        """See `Agent`."""
        act = self.policy.begin(task, [np.random.default_rng(seed) for seed in seeds], steps)
        return lambda t: act(t, task.get_state())


@registry.register("agent", "random")
def random_floor(*, hold: int = 5) -> Scripted:
    """Uniform random actions, each held for `hold` steps."""
    return Scripted(UniformHold(hold=hold))


@registry.register("agent", "greedy")
def greedy_floor() -> Scripted:
    """True positions, straight at the goal, blind to obstacles."""
    return Scripted(Greedy())


FLOORS: dict[str, Policy] = {"random": random_floor().policy, "greedy": greedy_floor().policy}


def choose_agents(
    asked: Sequence[Spec] | None, trained: Trained, task: GoalTask, state: np.ndarray, goal: np.ndarray
) -> dict[str, tuple[Spec, Agent]]:
    """Name -> (settings, agent) of the agents asked for; by default the model, and the floors that can act.

    Args:
        task: with one row; it is put into `state` (1, s) with this `goal`, and the floors try a step.

    Raises:
        InputError: an agent that was asked for is unknown, named twice, or cannot act.
    """
    chosen: dict[str, tuple[Spec, Agent]] = {}
    for spec in [{"name": name} for name in ("model", *FLOORS)] if asked is None else asked:
        agent: Agent = registry.build("agent", spec, trained=trained)
        if spec["name"] in chosen:
            raise InputError(
                f"'{spec['name']}' is named twice, with other settings, among agents=... or by what this folder "
                f"holds: {list(asked)}"
            )
        if isinstance(agent, Scripted):
            task.reset(state, goal)
            try:
                task.step(agent.begin(task, [0], 1)(0))
            except InputError:
                if asked is not None:
                    raise
                continue
        chosen[spec["name"]] = (spec, agent)
    return chosen
