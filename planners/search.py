"""The one sampling loop: sample, project to bounds, score, update, stop. Algorithms say only how to update."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from planners.proposals import Coloured
from planners.types import ActionSpec, Cost, InputError, Plan, PlanState


class SamplingPlanner(ABC):
    """Searches action sequences by sampling around a mean.

    Args:
        horizon: H, environment steps.
        samples: S, candidates per iteration.
        iterations: of a fresh search; warm_iterations: of one that continues an earlier plan (None: the same).
        init_std: of a fresh search, in units of the action spec's std; warm_std: of a continued one.
        min_std: floor of the std, as a share of the action range.
        correlation: of the noise between neighbouring steps.
    """

    def __init__(
        self,
        *,
        horizon: int = 40,
        samples: int = 128,
        iterations: int = 4,
        warm_iterations: int | None = 1,
        init_std: float = 1.0,
        warm_std: float = 1.0,
        min_std: float = 0.01,
        correlation: float = 0.7,
    ) -> None:
        if horizon < 1 or samples < 2 or iterations < 1 or (warm_iterations is not None and warm_iterations < 1):
            raise InputError(
                "a planner needs horizon >= 1, samples >= 2, iterations >= 1; "
                f"got {horizon}, {samples}, {iterations}, warm_iterations {warm_iterations}"
            )
        if not 0 <= correlation < 1:
            raise InputError(f"correlation must be in [0, 1), got {correlation}")
        self.horizon, self.samples, self.iterations = horizon, samples, iterations
        self.warm_iterations = iterations if warm_iterations is None else warm_iterations
        self.init_std, self.warm_std, self.min_std = init_std, warm_std, min_std
        self.proposal = Coloured(correlation=correlation)

    @abstractmethod
    def update(self, mean: Tensor, std: Tensor, candidates: Tensor, costs: Tensor) -> tuple[Tensor, Tensor]:
        """Where to sample next.

        Args:
            mean, std: (B, H, A), where `candidates` (B, S, H, A) were drawn.
            costs: (B, S), +inf where a candidate must not count.

        Returns:
            New mean and std (B, H, A).
        """

    def init(
        self, rows: int, action_spec: ActionSpec, seeds: Sequence[int], device: torch.device | str = "cpu"
    ) -> PlanState:
        """A fresh state for `rows` independent rows, one seed each."""
        if len(seeds) != rows:
            raise InputError(f"one seed per row: {rows} rows, {len(seeds)} seeds")
        low, high, std = (
            torch.as_tensor(getattr(action_spec, name), dtype=torch.float32, device=device).reshape(-1)
            for name in ("low", "high", "std")
        )
        mean = torch.zeros(rows, self.horizon, len(low), device=device).clamp(low, high)
        spread = self.init_std * std
        counter = torch.zeros(rows, dtype=torch.int64, device=device)
        seeds = torch.tensor([int(s) for s in seeds], dtype=torch.int64, device=device)
        return PlanState(mean, spread.expand_as(mean), spread, low, high, seeds, counter)

    @torch.no_grad()
    def plan(self, cost: Cost, state: PlanState, deadline_s: float | None = None) -> tuple[Plan, PlanState]:
        """Search for the cheapest actions of every row.

        Args:
            cost: (B, S, H, A) -> (B, S); see `types.Cost`.
            state: from `init`, or from an earlier plan and `PlanState.shift`.
            deadline_s: stop before an iteration that would end later than this; the first always runs.

        Returns:
            The best candidate seen, and the state a warm start shifts.
        """
        begin = time.perf_counter()
        rows, horizon, dim = state.mean.shape
        budget = torch.where(state.replans > 0, self.warm_iterations, self.iterations)
        mean, std, floor = state.mean, state.std, self.min_std * (state.high - state.low)
        rest = torch.zeros_like(mean).clamp(state.low, state.high)
        best, best_cost = mean, mean.new_full((rows,), torch.inf)
        last, done = int(budget.max()), 0
        for iteration in range(last):
            elapsed = time.perf_counter() - begin
            if deadline_s is not None and iteration and elapsed * (iteration + 1) / iteration > deadline_s:
                break
            noise = self.proposal(state.seeds, state.replans, iteration, (self.samples, horizon, dim))
            candidates = torch.addcmul(mean[:, None], std[:, None], noise)
            candidates[:, 0] = mean
            if iteration == 0:
                candidates[:, 1] = rest  # doing nothing is how an agent stays at its goal
            candidates.clamp_(state.low, state.high)  # last: a mean of bounded elites can round past a bound
            costs = self._score(cost, candidates)
            active = iteration < budget
            cheapest = costs.argmin(1)
            value = costs.gather(1, cheapest[:, None])[:, 0]
            better = active & (value < best_cost)
            best = torch.where(better[:, None, None], candidates[torch.arange(rows), cheapest], best)
            best_cost = torch.where(better, value, best_cost)
            new_mean, new_std = self.update(mean, std, candidates, costs)
            usable = (active & value.isfinite())[:, None, None]
            mean, std = torch.where(usable, new_mean, mean), torch.where(usable, new_std.maximum(floor), std)
            done = iteration + 1
        plan = Plan(
            actions=best,
            cost=best_cost,
            std=std,
            failed=~best_cost.isfinite(),
            iterations=done,
            evaluations=done * self.samples,
            deadline_hit=done < last,
            seconds=time.perf_counter() - begin,
        )
        return plan, replace(state, mean=mean, std=std, replans=state.replans + 1)

    @staticmethod
    def _score(cost: Cost, candidates: Tensor) -> Tensor:
        costs = cost(candidates)
        if costs.shape != candidates.shape[:2]:
            raise InputError(f"cost must return {tuple(candidates.shape[:2])} (B, S), got {tuple(costs.shape)}")
        return torch.where(costs.isfinite(), costs, torch.inf)
