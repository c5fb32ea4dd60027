"""MPC for a loop that may not wait: the last plan runs while the next is searched for."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import torch
from torch import Tensor

from planners.mpc import MPC, Array
from planners.types import Plan, PlanState


class BackgroundMPC(MPC):
    """`MPC` whose `act` returns at once with the running plan's action for this step.

    A search starts every `replan_every` steps from the latest observation. Until it ends the running plan goes on,
    so the search takes the actions of that time as decided (`committed`, as many as the longest of the last
    searches took) and its plan is entered at the step at which it arrives: a plan is a function of time.

        step      0    1    2    3    4    5
        plan A    a0   a1   a2   a3                      search for B starts at 2 and takes less than two steps
        plan B              a2   a3   b2   b3 ...        enters at 4: nothing jumps

    Only the first plan of an episode is waited for. All rows share one clock. A search that fails leaves the
    running plan in place; where a plan ends before the next arrives, the fallback acts. Results depend on the
    machine.

    Args:
        dt: seconds per environment step; clock: seconds, for `command`.
        options: see `MPC`.
    """

    RECENT = 5

    def __init__(
        self, *arguments: Any, dt: float, clock: Callable[[], float] = time.monotonic, **options: Any
    ) -> None:
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="planner")
        self._running: Future[tuple[Plan, PlanState]] | None = None
        self._since = 0  # steps since the running search began
        self._took: deque[float] = deque(maxlen=self.RECENT)
        self._clock, self._stamp, self.dt = clock, 0.0, dt
        super().__init__(*arguments, **options)

    def reset(self, goal: Any = None, rows: Any = None) -> None:
        """See `MPC.reset`; all rows then wait for a first plan again."""
        self._abandon()
        super().reset(goal, rows)

    def set_goal(self, goal: Any, rows: Any = None) -> None:
        """See `MPC.set_goal`; all rows then wait for a plan."""
        self._abandon()
        super().set_goal(goal, rows)

    @torch.no_grad()
    def act(self, observation: Array) -> Array:
        """See `MPC.act`."""
        self._stamp = self._clock()
        everyone = torch.arange(len(self._plans))
        self._arrive(everyone)
        if (self._cursor < 0).any():
            self._abandon()
            self._cursor[:] = -1
            action = super().act(observation)
            if self.last_plan is not None:
                self._took.append(self.last_plan.timings["total"])
            return action
        frame, blind = self._observe(observation)
        if self._running is None and int(self._cursor[0]) >= self.replan_every and not blind.any():
            self._start(everyone)
        stale = self._cursor >= self.planner.horizon
        actions = self._plans[everyone, self._cursor.clamp(max=self.planner.horizon - 1)]
        if stale.any():
            actions[stale] = self._without_plan(frame, stale)
        past = self._history.past(everyone).clamp(self._limits.low, self._limits.high)
        actions = self._limits.project(actions[:, None, None], past)[:, 0, 0]  # a late plan may jump
        self._cursor += 1
        self._since += 1
        return self._did(actions, blind, observation)

    def command(self, *, interpolate: bool = True) -> Tensor:
        """The running plan's action (rows, A) at this moment, for control loops faster than the camera."""
        if self.last_plan is None or (self._cursor < 0).any():
            raise RuntimeError("no plan yet: call act once before command")
        step = float(self._cursor[0]) - 1 + (self._clock() - self._stamp) / self.dt
        return self.last_plan.action(step, interpolate=interpolate)

    def close(self) -> None:
        """Wait for the running search and end the thread."""
        self._abandon()
        self._worker.shutdown()

    def __enter__(self) -> BackgroundMPC:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _start(self, everyone: Tensor) -> None:
        first = int(self._cursor[0])
        count = max(1, math.ceil(max(self._took) / self.dt))
        committed = self._plans[:, first : first + count]
        search = self._job(everyone, committed if committed.shape[1] else None, time.perf_counter())
        self._running, self._since = self._worker.submit(search), 0

    def _arrive(self, everyone: Tensor) -> None:
        """Enter a finished plan at the step it is for; one that failed in any row is dropped."""
        if self._running is None or not self._running.done():
            return
        search, self._running = self._running, None
        plan, state = search.result()
        self._took.append(plan.timings["total"])
        if not plan.failed.any():
            self._install(everyone, plan, state, age=self._since)

    def _abandon(self) -> None:
        if self._running is not None:
            wait([self._running])
            self._running = None
