"""One planner after another: a wide search first, then a descent from what it found."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from planners.cem import CEM
from planners.errors import InputError
from planners.gradient import LBFGS
from planners.search import Planner
from planners.types import ActionSpec, Cost, Plan, PlanState


class Chain:
    """Plans with `first`, then with `then` from the plan found, which is its first candidate.

    The warm start is that of `first`, around what `then` made of its plan.

    Args:
        first, then: planners of the same horizon.
        share: of a deadline that is `first`'s.
    """

    def __init__(self, *, first: Planner | None = None, then: Planner | None = None, share: float = 0.7) -> None:
        self.first = CEM() if first is None else first
        self.then = LBFGS(horizon=self.first.horizon, samples=1, iterations=10) if then is None else then
        if self.first.horizon != self.then.horizon or not 0 < share < 1:
            raise InputError(
                f"a chain needs planners of one horizon and 0 < share < 1, got {self.first.horizon}, "
                f"{self.then.horizon} and {share}"
            )
        self.share, self.horizon, self.warm_std = share, self.first.horizon, self.first.warm_std

    def init(
        self, rows: int, action_spec: ActionSpec, seeds: Sequence[int], device: torch.device | str = "cpu"
    ) -> PlanState:
        """See `Planner.init`."""
        return self.first.init(rows, action_spec, seeds, device)

    def plan(
        self, cost: Cost, state: PlanState, deadline_s: float | None = None, *, committed: Tensor | None = None
    ) -> tuple[Plan, PlanState]:
        """See `Planner.plan`."""
        begin = time.perf_counter()
        early = None if deadline_s is None else self.share * deadline_s
        wide, after = self.first.plan(cost, state, early, committed=committed)
        left = None if deadline_s is None else max(0.0, deadline_s - (time.perf_counter() - begin))
        fresh = self.then.init(len(wide.cost), state.limits, state.seeds.tolist(), state.mean.device)
        start = replace(fresh, mean=wide.actions, past=state.past, replans=state.replans)
        deep, _ = self.then.plan(cost, start, left, committed=committed)
        better = ~deep.failed  # its first candidate is the plan it starts from
        plan = replace(
            wide,
            actions=torch.where(better[:, None, None], deep.actions, wide.actions),
            cost=torch.where(better, deep.cost, wide.cost),
            feasible=torch.where(better, deep.feasible, wide.feasible),
            failed=wide.failed & deep.failed,
            iterations=wide.iterations + deep.iterations,
            evaluations=wide.evaluations + deep.evaluations,
            deadline_hit=wide.deadline_hit or deep.deadline_hit,
            timings={
                **{f"first.{phase}": seconds for phase, seconds in wide.timings.items()},
                **{f"then.{phase}": seconds for phase, seconds in deep.timings.items()},
                "total": time.perf_counter() - begin,
            },
        )
        return plan, replace(after, mean=torch.where(better[:, None, None], deep.actions, after.mean))
