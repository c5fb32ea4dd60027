"""Task + policy -> episodes. The one loop that records data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from envs.policies import Policy
from envs.task import GoalTask
from lewm.types import Episode


class Recorder(Protocol):
    """What takes in an episode while it happens: `lewm.data.Recording`, or anything like it."""

    id: int
    facts: dict[str, Any]

    def extend(self, name: str, rows: np.ndarray) -> None:
        """Append rows (n, *shape) to a column."""
        ...


def record(
    task: GoalTask,
    policy: Policy,
    into: Sequence[Recorder],
    *,
    seed: int,
    steps: int,
    frame_stride: int | None = 1,
) -> None:
    """Record one episode of `steps` steps per row of `task`; frames are handed over as they are drawn.

    Episode `i` is a function of (seed, i) alone: which rows share its batch changes nothing. Columns are `pixels`
    (steps // frame_stride + 1, h, w, 3), `state` (steps + 1, s), the task's sensors and `action` (steps, A), all
    raw. Facts say the seed, which policy acted, and the values of what varies.

    Args:
        frame_stride: a picture of every so many states is kept; None draws none, and there is no column of them.
    """
    rngs = [np.random.default_rng([seed, recorder.id]) for recorder in into]
    starts = np.stack([task.sample_state(rng) for rng in rngs])
    task.reset(starts, starts)
    act = policy.begin(task, rngs, steps)
    states = np.empty((steps + 1, task.rows, task.state_dim))
    actions = np.empty((steps, task.rows, len(task.low)), np.float32)
    for t in range(steps + 1):
        states[t] = task.get_state()
        if frame_stride and t % frame_stride == 0:
            for recorder, frame in zip(into, task.render(), strict=True):
                recorder.extend("pixels", frame[None])
        if t < steps:
            actions[t] = np.clip(act(t, states[t]), task.low, task.high)
            task.step(actions[t])
    for row, recorder in enumerate(into):
        recorder.extend("state", states[:, row])
        for name, values in task.sense(states[:, row]).items():
            recorder.extend(name, values)
        recorder.extend("action", actions[:, row])
        recorder.facts |= {"seed": [seed, recorder.id], "policy": act.names[row]}
        recorder.facts |= act.facts[row] if act.facts else {}
        if task.factors.vary:
            recorder.facts["variation"] = task.factors.facts(starts[row])


def rollout(
    task: GoalTask, policy: Policy, ids: Sequence[int], *, seed: int, steps: int, frame_stride: int | None = 1
) -> list[Episode]:
    """`record` into memory: whole episodes, for small numbers of them."""
    into = [_InMemory(i) for i in ids]
    record(task, policy, into, seed=seed, steps=steps, frame_stride=frame_stride)
    return [Episode(one.id, {k: np.concatenate(v) for k, v in one.columns.items()}, one.facts) for one in into]


class _InMemory:
    def __init__(self, id: int) -> None:
        self.id = id
        self.facts: dict[str, Any] = {}
        self.columns: dict[str, list[np.ndarray]] = {}

    def extend(self, name: str, rows: np.ndarray) -> None:
        self.columns.setdefault(name, []).append(rows.copy())
