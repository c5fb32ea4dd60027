"""Task + policy -> episodes. The one loop that records data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from envs.policies import Policy
from envs.task import GoalTask
from lewm.types import Episode


def rollout(
    task: GoalTask, policy: Policy, ids: Sequence[int], *, seed: int, steps: int, frame_stride: int = 1
) -> list[Episode]:
    """Record one episode of `steps` steps per row of `task`.

    Episode `i` is a function of (seed, i) alone: which rows share its batch changes nothing.

    Returns:
        Episodes with columns `pixels` (steps // frame_stride + 1, h, w, 3), `state` (steps + 1, s) and
        `action` (steps, A), all raw.
    """
    rngs = [np.random.default_rng([seed, i]) for i in ids]
    starts = np.stack([task.sample_state(rng) for rng in rngs])
    task.reset(starts, starts)
    act = policy.begin(task, rngs, steps)
    states = np.empty((steps + 1, task.rows, task.state_dim))
    actions = np.empty((steps, task.rows, len(task.low)), np.float32)
    frames = np.empty((steps // frame_stride + 1, task.rows, *task.image_shape), np.uint8)
    for t in range(steps + 1):
        states[t] = task.get_state()
        if t % frame_stride == 0:
            frames[t // frame_stride] = task.render()
        if t < steps:
            actions[t] = np.clip(act(t, states[t]), task.low, task.high)
            task.step(actions[t])
    return [
        Episode(i, {"pixels": frames[:, b], "state": states[:, b], "action": actions[:, b]}, {"seed": [seed, i]})
        for b, i in enumerate(ids)
    ]
