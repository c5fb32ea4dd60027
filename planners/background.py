"""MPC for a loop that may not wait: the last plan runs while the next is searched for."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from planners.errors import InputError
from planners.mpc import MPC
from planners.observations import Array, Observation
from planners.types import Plan, PlanState


@dataclass(frozen=True)
class _Running:
    """A search under way: for which rows, and whether its goal still holds."""

    future: Future[tuple[Plan, PlanState]]
    rows: Tensor
    wanted: bool = True


class BackgroundMPC(MPC):
    """`MPC` whose `act` returns at once with the running plan's action for this step.

    A search starts every `replan_every` steps from the latest observation. Until it ends the running plan goes on,
    so the search takes the actions of that time as decided (`committed`, as many as the longest of the last
    searches took) and its plan is entered at the step at which it arrives: a plan is a function of time.

        step      0    1    2    3    4    5
        plan A    a0   a1   a2   a3                      search for B starts at 2 and takes less than two steps
        plan B              a2   a3   b2   b3 ...        enters at 4: nothing jumps

    Only a first plan is waited for: when no row has one, or a row has none and the fallback is to raise. A row
    whose search fails keeps its plan; where a plan ends before the next arrives, and for a row that has none, the
    fallback acts. Results depend on the machine.

    Args:
        dt: seconds per environment step; clock: seconds, for `command`.
        options: see `MPC`.
    """

    RECENT = 5

    def __init__(
        self, *arguments: Any, dt: float, clock: Callable[[], float] = time.monotonic, **options: Any
    ) -> None:
        if dt <= 0:
            raise InputError(f"dt must be positive (seconds per environment step), got {dt}")
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="planner")
        self._running: _Running | None = None
        self._hurry = False  # the next search need not wait for its turn
        self._since = 0  # steps since the running search began
        self._took: deque[float] = deque(maxlen=self.RECENT)
        self._clock, self.dt = clock, dt
        self._now: tuple[float, Tensor, Tensor] | None = None  # when, this step's actions, the next step's
        super().__init__(*arguments, **options)

    def reset(self, goal: Any = None, rows: Any = None) -> None:
        """See `MPC.reset`. Waits for the running search; rows without a plan then wait for one, or fall back."""
        self._abandon()
        self._now = None
        super().reset(goal, rows)

    def set_goal(self, goal: Any, rows: Any = None) -> None:
        """Another goal on the run: a search for it starts at the next step; the running plan goes on meanwhile."""
        self._set_goals(goal, self._index(rows))
        self._hurry = True
        self._running = self._running and replace(self._running, wanted=False)

    @torch.no_grad()
    def act(self, observation: Observation) -> Array:
        """See `MPC.act`."""
        stamp = self._clock()
        self._arrive()
        waiting = self._cursor < 0
        if waiting.all() or (waiting.any() and self.fallback == "raise"):
            action = self._wait_for_first(observation)
            self._publish(stamp)
            return action
        frame, blind = self._observe(observation)
        due = self._hurry or waiting.any() or self._cursor.max() >= self.replan_every
        if self._running is None and due and not blind.all():
            self._start(torch.nonzero(~blind)[:, 0])
        actions = self._planned(self._cursor)
        helpless = waiting | (self._cursor >= self.planner.horizon)
        if helpless.any():
            actions[helpless] = self._without_plan(frame, helpless)
        past = self._past(torch.arange(len(actions)))
        actions = self._limits.project(actions[:, None, None], past)[:, 0, 0]  # a late plan may jump
        self._cursor[~waiting] += 1
        self._since += 1
        action = self._did(actions, blind, observation)
        self._publish(stamp)
        return action

    def command(self, *, interpolate: bool = True) -> Tensor:
        """The action (A,) or (rows, A) at this moment, for control loops faster than the camera; from any thread.

        Between two calls of `act`, from the executed action to the one planned next, which is then held.
        """
        now = self._now  # one object: never half of an old and half of a new step
        if now is None:
            raise RuntimeError("no plan yet: call act once before command")
        stamp, current, following = now
        share = min(max((self._clock() - stamp) / self.dt, 0.0), 1.0)
        action = torch.lerp(current, following, share) if interpolate else (following if share == 1.0 else current)
        return action if self.rows is not None else action[0]

    def close(self) -> None:
        """Wait for the running search and end the thread."""
        self._abandon()
        self._worker.shutdown()

    def __enter__(self) -> BackgroundMPC:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _wait_for_first(self, observation: Observation) -> Array:
        self._abandon()
        before = self.last_plan
        action = super().act(observation)
        if self.last_plan is not before:
            self._took.append(self.last_plan.timings["total"])
        return action

    def _planned(self, steps: Tensor) -> Tensor:
        """Each row's action at a step of its plan, (B, A)."""
        rows = torch.arange(len(self._plans))
        return self._plans[rows, steps.clamp(0, self.planner.horizon - 1)]

    def _publish(self, stamp: float) -> None:
        """What `command` reads. A row at the end of its plan, or without one, goes on with what it does."""
        current = self._history.past(torch.arange(len(self._plans)))[:, -1]
        held = ((self._cursor < 0) | (self._cursor >= self.planner.horizon))[:, None]
        self._now = (stamp, current, torch.where(held, current, self._planned(self._cursor)))

    def _start(self, rows: Tensor) -> None:
        """Search for these rows; what they do meanwhile is decided: their plans, or what they do now."""
        count = min(max(1, math.ceil(max(self._took) / self.dt)), self.planner.horizon)
        steps = self._cursor[rows, None] + torch.arange(count)
        meanwhile = self._plans[rows[:, None], steps.clamp(0, self.planner.horizon - 1)]
        held = ((self._cursor[rows, None] < 0) | (steps >= self.planner.horizon))[..., None]
        committed = torch.where(held, self._history.past(rows)[:, -1:], meanwhile)
        search = self._job(rows, committed, time.perf_counter())
        self._running, self._since, self._hurry = _Running(self._worker.submit(search), rows), 0, False

    def _arrive(self) -> None:
        """Enter a finished plan at the step it is for, in the rows that it did not fail."""
        if self._running is None or not self._running.future.done():
            return
        running, self._running = self._running, None
        plan, state = running.future.result()
        self._took.append(plan.timings["total"])
        if running.wanted:
            good = torch.nonzero(~plan.failed.cpu())[:, 0]
            if len(good):
                found = replace(plan, actions=plan.actions[good.to(plan.actions.device)])
                self._install(running.rows[good], found, state.take(good), age=self._since)

    def _abandon(self) -> None:
        if self._running is not None:
            wait([self._running.future])
            self._running = None
