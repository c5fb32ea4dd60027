"""Receding-horizon control: observation in, action out. What robot code and our evaluation both use."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from planners.chain import Chain
from planners.costs import Imagined
from planners.errors import InputError, PlannerFailure
from planners.history import History
from planners.latent import LatentCost
from planners.limits import Limits
from planners.observations import Array, Observation, batch, blind, check, each, formats, parts, pick
from planners.parts import recommended
from planners.search import Planner
from planners.types import ActionSpec, Dynamics, Plan, PlanState, Terms

Fallback = Literal["raise", "hold"] | Callable[[Any], Tensor]
Prior = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]
Job = Callable[[], tuple[Plan, PlanState]]


@dataclass(frozen=True)
class Latents:
    """A goal that is already a latent, in the place of a goal observation: z (D,), or (rows, D)."""

    z: Array


Goal = Observation | Latents | Sequence[Observation | Latents]


class MPC:
    """Plans towards a goal with a world model, acts, and plans again every `replan_every` steps.

    What is not given is taken from `model.recommendation`. Each row keeps its own history, plan and clock, so a
    row acts the same alone and in any batch.

    Args:
        model: anything that meets `Dynamics`; `from_step` makes one of a function.
        goal: observation, (h, w, C) for instance, or (rows, h, w, C) when `rows` is given, or several by name; or
            `Latents`; or a list of those, any of which will do. May be set later by `reset`, and left out where the
            cost needs none. Of later observations, names that the goal does not have are ignored.
        rows: number of rows; None means one, without a batch axis in or out.
        planner, cost, replan_every: how to search, what for, and how many actions of a plan to execute.
        seeds: one per row (0, 1, ... by default).
        deadline_s: time for one plan of all rows, encoding included; makes results depend on the machine.
        fallback: who acts for rows that cannot plan (no finite candidate, or an observation that is not finite):
            `hold` repeats their last action, a callable gets their observations (B, ...) and returns actions (B,
            A), both within the limits; `raise` raises. They plan again at the next step.
        limits: bounds, rate and acceleration in place of the model's own bounds; see `Limits`.
        prior: (start latents (B, D), goals (B, G, D) or None) -> mean and std (B, H, A), fused into every search.
        autocast: precision of the imagination; see `LatentCost`.

    Raises:
        InputError: an observation or goal of another shape than the model takes.
        PlannerFailure: see `fallback`. The call has then changed nothing and may be repeated.
    """

    USUAL_HORIZON = 40  # environment steps, rounded up to whole blocks, where neither caller nor model says

    def __init__(
        self,
        model: Dynamics,
        goal: Goal | None = None,
        *,
        rows: int | None = None,
        planner: Planner | Chain | None = None,
        cost: Callable[[Imagined], Tensor | Terms] | None = None,
        replan_every: int | None = None,
        seeds: Sequence[int] | None = None,
        deadline_s: float | None = None,
        fallback: Fallback = "raise",
        limits: ActionSpec | None = None,
        prior: Prior | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.model, self.rows, self.deadline_s, self.prior, self.autocast = model, rows, deadline_s, prior, autocast
        if not (callable(fallback) or fallback in ("raise", "hold")):
            raise InputError(f"fallback is 'raise', 'hold' or a callable, got {fallback!r}")
        self.fallback = fallback
        block = model.action_block
        advice, usual = model.recommendation, {"name": "cem", "horizon": -(-self.USUAL_HORIZON // block) * block}
        if isinstance(planner, type):
            raise InputError(f"planner is a class; give an object: planner={planner.__name__}(...)")
        self.planner = planner or recommended("planner", advice.get("planner", usual))
        self.cost = cost or recommended("cost", advice.get("cost", {"name": "goal_distance"}))
        advised = advice.get("replan_every", block)
        self.replan_every = advised if replan_every is None else replan_every
        if self.planner.horizon % block:
            raise InputError(
                f"the horizon must be a multiple of the model's action_block {block}, got {self.planner.horizon}"
            )
        if not 1 <= self.replan_every <= self.planner.horizon:
            raise InputError(
                f"replan_every must be between 1 and the horizon {self.planner.horizon}, got {self.replan_every}"
            )
        count = 1 if rows is None else rows
        self._seeds = list(range(count)) if seeds is None else list(seeds)
        if count < 1 or len(self._seeds) != count:
            raise InputError(f"MPC needs rows >= 1 and one seed per row, got rows={rows}, {len(self._seeds)} seeds")
        self._limits = Limits.of(model.action_spec)
        if limits is not None:
            unscaled = getattr(limits, "std", None) is None  # a narrower range is no other scale of the data
            self._limits = replace(Limits.of(limits), **{"std": self._limits.std} if unscaled else {})
        dim = len(self._limits.low)
        self._plans = torch.zeros(count, self.planner.horizon, dim)
        self._cursor = torch.full((count,), -1)  # next action of the plan; -1: no plan yet
        self._history = History(count, dim, model.history, model.action_block)
        self._goals: Tensor | None = None  # latents (B, G, D), on the model's device
        self._state: PlanState | None = None
        self._blank: PlanState | None = None
        self._format: Any = None  # of an observation, see `formats`
        self.last_plan: Plan | None = None
        if goal is not None:
            self.reset(goal)

    def reset(self, goal: Goal | None = None, rows: Sequence[int] | None = None) -> None:
        """Begin a new episode in all or some rows (indices), at rest: history and plan are forgotten.

        The goal stays if none is given.
        """
        index = self._index(rows)
        if goal is not None:
            self._set_goals(goal, index)
        self._cursor[index] = -1
        self._history.restart(index)

    def set_goal(self, goal: Goal, rows: Sequence[int] | None = None) -> None:
        """Another goal on the run: the plan is made anew, history and rate limits go on."""
        index = self._index(rows)
        self._set_goals(goal, index)
        self._cursor[index] = -1

    @torch.no_grad()
    def act(self, observation: Observation) -> Array:
        """The next action (A,) or (rows, A) for an observation of this step; numpy in, numpy out."""
        frame, unseen = self._observe(observation)
        due = (self._cursor < 0) | (self._cursor >= self.replan_every)
        helpless = due & unseen
        plannable = torch.nonzero(due & ~unseen)[:, 0]
        if len(plannable):
            begin = time.perf_counter()
            plan, state = self._job(plannable, None, begin)()
            self._install(plannable, plan, state)
            helpless[plannable] = plan.failed.cpu()
        actions = self._plans[torch.arange(len(self._plans)), self._cursor.clamp(0, self.planner.horizon - 1)]
        if helpless.any():
            self._cursor[helpless] = -1  # plan again at the next step
            actions[helpless] = self._without_plan(frame, helpless)
        self._cursor[~helpless] += 1
        return self._did(actions, unseen, observation)

    def _index(self, rows: Sequence[int] | None) -> Tensor:
        """Row indices from indices, a mask, or None for all."""
        index = torch.arange(self.rows or 1) if rows is None else torch.as_tensor(rows)
        return torch.nonzero(index)[:, 0] if index.dtype == torch.bool else index

    def _observe(self, observation: Observation) -> tuple[Any, Tensor]:
        """This step's frame (B, ...), and which rows of it (B,) are not finite."""
        frame = batch(pick(observation, self._format), self.rows, self.rows or 1, "observation")
        if self._format is not None:
            check(frame, self._format)
        unseen = blind(frame)
        self._history.see(frame, unseen)
        return frame, unseen

    def _did(self, actions: Tensor, unseen: Tensor, like: Observation) -> Array:
        """Book the actions as executed, and hand them out in the kind of the observation."""
        self._history.did(actions, unseen)
        self._format = self._format or self._history.format
        out = (actions if self.rows is not None else actions[0]).clone()
        first = parts(like)[0]
        return out.to(first.device) if isinstance(first, Tensor) else out.numpy()

    def _job(self, due: Tensor, committed: Tensor | None, begin: float) -> Job:
        """A search for these rows, from the present on, that no longer needs this object's state."""
        frames, actions = self._history.context(due)
        goals = None if self._goals is None else self._goals[due.to(self._goals.device)]
        past = self._past(due)
        state, age = self._state, self._cursor[due].clone()

        @torch.no_grad()
        def job() -> tuple[Plan, PlanState]:
            context = self.model.context(frames, actions)
            cost = LatentCost(
                self.model,
                context,
                goals,
                self.cost,
                action_spec=self._limits,
                past_B2A=past,
                autocast=self.autocast,
            )
            start = self._fresh(cost.start_BD.device).take(due)
            for steps in age.unique().tolist():
                if steps >= 0:  # these rows continue an earlier plan
                    rows = torch.nonzero(age == steps)[:, 0]
                    start = start.put(rows, state.take(due[rows]).shift(steps, self.planner.warm_std))
            start = replace(start, past=past.to(start.mean))
            if self.prior is not None:
                start = start.fuse(*self.prior(cost.start_BD, goals))
            before = time.perf_counter() - begin
            left = None if self.deadline_s is None else max(0.0, self.deadline_s - before)
            plan, after = self.planner.plan(cost, start, left, committed=committed)
            timings = {"context": before, **plan.timings, "total": time.perf_counter() - begin}
            return replace(plan, timings=timings), after

        return job

    def _fresh(self, device: torch.device) -> PlanState:
        """The state of all rows before any plan."""
        if self._blank is None:
            self._blank = self.planner.init(len(self._plans), self._limits, self._seeds, device)
        return self._blank

    def _install(self, due: Tensor, plan: Plan, state: PlanState, age: int = 0) -> None:
        """Make a finished search these rows' plan, `age` steps after it began."""
        self._state = (self._state or self._fresh(state.mean.device)).put(due, state)
        self._plans[due] = plan.actions.cpu()
        self._cursor[due] = age
        self.last_plan = plan

    def _without_plan(self, frame: Any, helpless: Tensor) -> Tensor:
        """What the fallback does in these rows (mask): actions (b, A) within the limits."""
        rows = torch.nonzero(helpless)[:, 0]
        if self.fallback == "raise":
            raise PlannerFailure(
                f"rows {rows.tolist()} have no plan: no candidate had a finite cost, or the observation is not "
                "finite; give MPC a fallback to act without one"
            )
        past = self._past(rows)
        seen = each(lambda part: part[rows], frame)
        action = past[:, -1] if self.fallback == "hold" else torch.as_tensor(self.fallback(seen)).to(past)
        if action.shape != past[:, -1].shape or not action.isfinite().all():
            raise PlannerFailure(
                f"the fallback must return finite actions of shape {tuple(past[:, -1].shape)} (rows, A), got "
                f"{action.tolist()}"
            )
        return self._limits.project(action[:, None, None], past)[:, 0, 0]

    def _past(self, rows: Tensor) -> Tensor:
        """What limits go on from, (b, 2, A)."""
        return self._history.past(rows).clamp(self._limits.low, self._limits.high)

    @torch.no_grad()
    def _set_goals(self, goal: Goal, index: Tensor) -> None:
        choices = goal if isinstance(goal, list | tuple) else [goal]
        if not choices:
            raise InputError("goal: an empty list")
        goals = torch.stack([self._goal_latents(choice, len(index)) for choice in choices], dim=1)
        if not goals.isfinite().all():
            raise InputError("goal: its latent is not finite; check the image, or the values given")
        if self._goals is None:
            if len(index) != (self.rows or 1):
                raise InputError("the first goal must be given for all rows")
            self._goals = goals
            return
        most = max(goals.shape[1], self._goals.shape[1])
        goals, kept = (g[:, torch.arange(most).clamp(max=g.shape[1] - 1)] for g in (goals, self._goals))
        self._goals = kept.index_copy(0, index.to(kept.device), goals)

    def _goal_latents(self, goal: Observation | Latents, count: int) -> Tensor:
        """(count, D)."""
        if isinstance(goal, Latents):
            latents = batch(goal.z, self.rows, count, "goal").float()
            latents = latents if self._goals is None else latents.to(self._goals.device)
        else:
            observation = batch(goal, self.rows, count, "goal")
            latents = self.model.encode(observation)
            self._format = formats(observation)
        if latents.ndim != 2:
            raise InputError(
                f"goal: one axis too many, got latents of shape {tuple(latents.shape)} for {count} rows"
            )
        return latents
