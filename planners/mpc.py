"""Receding-horizon control: observation in, action out. What robot code and our evaluation both use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from planners.latent import LatentCost
from planners.parts import COSTS, PLANNERS, recommended
from planners.search import SamplingPlanner
from planners.types import Dynamics, InputError, Plan, PlannerFailure, PlanState

Array = np.ndarray | Tensor


class MPC:
    """Plans towards a goal with a world model, acts, and plans again every `replan_every` steps.

    What is not given is taken from `model.recommendation`. Each row keeps its own history, plan and clock, so a
    row acts the same alone and in any batch.

    Args:
        model: anything that meets `Dynamics`.
        goal: goal observation, (h, w, C), or (rows, h, w, C) when `rows` is given. May be set later by `reset`.
        rows: number of rows; None means one, without a batch axis in or out.
        planner, cost, replan_every: how to search, what for, and how many actions of a plan to execute.
        seeds: one per row (0, 1, ... by default).
        deadline_s: time for one plan of all rows; makes results depend on the machine.
        fallback: called with the observations (B, ...) of rows whose plan failed, returns this step's actions for
            them (B, A), clipped to the bounds; they plan again at the next step. None raises `PlannerFailure`.

    Raises:
        InputError: an observation or goal of another shape than the model takes, `act` before a goal is set.
    """

    def __init__(
        self,
        model: Dynamics,
        goal: Array | None = None,
        *,
        rows: int | None = None,
        planner: SamplingPlanner | None = None,
        cost: Callable[[Tensor, Tensor], Tensor] | None = None,
        replan_every: int | None = None,
        seeds: Sequence[int] | None = None,
        deadline_s: float | None = None,
        fallback: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.model, self.rows, self.deadline_s, self.fallback = model, rows, deadline_s, fallback
        advice = model.recommendation
        usual = {"name": "cem", "horizon": 8 * model.action_block}
        self.planner = planner or recommended(PLANNERS, advice.get("planner", usual), "planner")
        self.cost = cost or recommended(COSTS, advice.get("cost", {"name": "goal_distance"}), "cost")
        advised = advice.get("replan_every", model.action_block)
        self.replan_every = advised if replan_every is None else replan_every
        if self.planner.horizon % model.action_block:
            raise InputError(
                f"the horizon must be a multiple of the model's action_block {model.action_block}, "
                f"got {self.planner.horizon}"
            )
        if not 1 <= self.replan_every <= self.planner.horizon:
            raise InputError(
                f"replan_every must be between 1 and the horizon {self.planner.horizon}, got {self.replan_every}"
            )
        count = 1 if rows is None else rows
        self._seeds = list(range(count)) if seeds is None else list(seeds)
        if count < 1 or len(self._seeds) != count:
            raise InputError(f"MPC needs rows >= 1 and one seed per row, got rows={rows}, {len(self._seeds)} seeds")
        self._plans = torch.zeros(count, self.planner.horizon, len(model.action_spec.low))
        self._cursor = torch.full((count,), -1)  # next action of the plan; -1: no plan yet
        self._fresh = torch.ones(count, dtype=torch.bool)
        self._frames: list[Tensor] = []  # oldest first, one per environment step, as far back as history reaches
        self._actions: list[Tensor] = []  # between those frames
        self._goal: Tensor | None = None  # latents, on the model's device
        self._state: PlanState | None = None
        self._format: tuple[torch.dtype, torch.Size] | None = None  # of an observation, as of the goal
        self.last_plan: Plan | None = None
        if goal is not None:
            self.reset(goal)

    def reset(self, goal: Array | None = None, rows: Sequence[int] | None = None) -> None:
        """Forget history and plan of all or some rows (indices), and set their goal if one is given."""
        index = torch.arange(self.rows or 1) if rows is None else torch.as_tensor(rows)
        if goal is not None:
            self._set_goal(self._batch(goal, len(index), "goal"), index)
        if self._goal is None:
            raise InputError("no goal yet: reset(goal)")
        self._drop_plan(index)
        self._fresh[index] = True

    @torch.no_grad()
    def act(self, observation: Array) -> Array:
        """The next action (A,) or (rows, A) for an observation of this step; numpy in, numpy out."""
        if self._goal is None:
            raise InputError("no goal yet: MPC(model, goal=...) or reset(goal)")
        frame, before = self._batch(observation, self.rows or 1, "observation"), (self._frames, self._actions)
        self._remember(frame)
        due = torch.nonzero((self._cursor < 0) | (self._cursor >= self.replan_every))[:, 0]
        failed = self._replan(due) if len(due) else due
        if len(failed) and self.fallback is None:
            self._frames, self._actions = before  # as if this call had not been made
            self._drop_plan(failed)
            raise PlannerFailure(f"no candidate had a finite cost in rows {failed.tolist()}")
        actions = self._plans[torch.arange(len(self._plans)), self._cursor]
        self._cursor += 1
        if len(failed):
            actions[failed] = self._bounded(torch.as_tensor(self.fallback(frame[failed]), dtype=actions.dtype))
            self._drop_plan(failed)  # ask again at the next step
        self._fresh[:] = False
        self._actions = [*self._actions, actions]
        out = (actions if self.rows is not None else actions[0]).clone()
        return out if isinstance(observation, Tensor) else out.numpy()

    def _bounded(self, actions: Tensor) -> Tensor:
        return actions.clamp(self._state.low.cpu(), self._state.high.cpu())

    def _drop_plan(self, index: Tensor) -> None:
        seeds = [self._seeds[k] for k in index.tolist()]
        fresh = self.planner.init(len(index), self.model.action_spec, seeds, self._goal.device)
        self._state = fresh if self._state is None else self._state.put(index, fresh)
        self._cursor[index] = -1

    @torch.no_grad()
    def _set_goal(self, goal: Tensor, index: Tensor) -> None:
        latents = self.model.encode(goal)
        if latents.ndim != 2:
            raise InputError(f"goal: one axis too many, got shape {tuple(goal.shape)} for {len(index)} rows")
        if self._goal is None:
            if len(index) != (self.rows or 1):
                raise InputError("the first goal must be given for all rows")
            self._goal = torch.zeros_like(latents)
        self._goal = self._goal.index_copy(0, index.to(latents.device), latents)
        self._format = (goal.dtype, goal.shape[1:])

    def _replan(self, due: Tensor) -> Tensor:
        """Plan for these rows; returns those that failed."""
        state = self._state.take(due)
        started = torch.nonzero(self._cursor[due] >= 0)[:, 0]
        state = state.put(started, state.shift(self.replan_every, self.planner.warm_std).take(started))
        cost = LatentCost(self.model, self._context(due), self._goal[due], self.cost)
        plan, state = self.planner.plan(cost, state, self.deadline_s)
        self._state = self._state.put(due, state)
        self._plans = self._plans.index_copy(0, due, plan.actions.cpu())
        self._cursor[due] = 0
        self.last_plan = plan
        return due[plan.failed.cpu()]

    def _remember(self, frame: Tensor) -> None:
        """Append this step's frame; a fresh row pads its past with it and with zero actions, as in training."""
        dtype, shape = self._format
        same_kind = frame.dtype == dtype or (frame.is_floating_point() and dtype.is_floating_point)
        if frame.shape[1:] != shape or not same_kind:
            raise InputError(
                f"observation: expected {dtype} of shape {tuple(shape)} like the goal, "
                f"got {frame.dtype} {tuple(frame.shape[1:])}"
            )
        reach = (self.model.history - 1) * self.model.action_block
        if not self._frames:
            self._frames = [frame] * reach
            self._actions = [torch.zeros(len(frame), self._plans.shape[-1])] * reach
        elif self._fresh.any():
            keep = ~self._fresh
            shape = (-1,) + (1,) * (frame.ndim - 1)
            self._frames = [torch.where(keep.view(shape), old, frame) for old in self._frames]
            self._actions = [torch.where(keep[:, None], old, 0.0) for old in self._actions]
        self._frames = [*self._frames, frame][-reach - 1 :]
        self._actions = self._actions[len(self._actions) - reach :]

    def _context(self, rows: Tensor) -> Any:
        frames = torch.stack([frame[rows] for frame in self._frames[:: self.model.action_block]], dim=1)
        empty = torch.zeros(len(rows), 0, self._plans.shape[-1])
        actions = torch.stack([a[rows] for a in self._actions], dim=1) if self._actions else empty
        return self.model.context(frames, actions)

    def _batch(self, value: Array, rows: int, what: str) -> Tensor:
        tensor = value.clone() if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
        if self.rows is None:
            tensor = tensor[None]
        if tensor.ndim < 2 or len(tensor) != rows:
            raise InputError(f"{what}: expected {rows} rows, got shape {tuple(tensor.shape)}")
        return tensor
