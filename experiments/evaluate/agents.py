"""Who acts in an evaluation: the model behind its planner, the floors, and whoever registers as an `agent`."""

from __future__ import annotations

import time
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
from planners import MPC, Cost, Dynamics, Plan, Planner, PlanState

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
        agent = self.controller(task.rows, seeds)
        columns = agent.model.columns
        agent.reset(observe(task, task.get_goal(), columns))

        def act(t: int) -> np.ndarray:
            seen, before = observe(task, task.get_state(), columns), agent.last_plan
            begin = time.perf_counter()
            action = agent.act(seen)
            if agent.last_plan is not before:
                self.decided(t, task, agent, time.perf_counter() - begin)
            return action

        return act

    def controller(self, rows: int, seeds: Sequence[int]) -> MPC:
        """What acts."""
        return self.trained.controller(rows, seeds)

    def decided(self, t: int, task: GoalTask, agent: MPC, seconds: float) -> None:
        """Told of each new plan, `agent.last_plan`, and how long it took; for those who watch."""


class Overheard:
    """A planner that searches as the one it is made of, and remembers the cost of its last search.

    What else is to be heard, a subclass listens to in `plan`.
    """

    def __init__(self, planner: Planner) -> None:
        self.planner, self.cost = planner, None
        self.horizon, self.warm_std, self.init = planner.horizon, planner.warm_std, planner.init

    def plan(self, cost: Cost, state: PlanState, *given: Any, **more: Any) -> tuple[Plan, PlanState]:
        """See `planners.Planner`."""
        self.cost = cost
        return self.planner.plan(cost, state, *given, **more)


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
        InputError: an agent that was asked for is unknown, named with two settings, or cannot act.
    """
    chosen: dict[str, tuple[Spec, Agent]] = {}
    for spec in [{"name": name} for name in ("model", *FLOORS)] if asked is None else asked:
        agent: Agent = registry.build("agent", spec, trained=trained)
        if spec["name"] in chosen:
            if _whole(spec) == _whole(chosen[spec["name"]][0]):
                continue
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


def _whole(spec: Spec) -> Spec:
    """Settings of an agent with those that were left to their defaults."""
    return {**registry.defaults("agent", spec["name"]), **spec}
