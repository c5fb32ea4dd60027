"""The true simulator as dynamics: our planners search in the task itself.

It says what a planner with a perfect model would do (the oracles of an evaluation), and makes a scripted expert out
of any task whose state can be set (the data policy `search`). It lives here because `envs` knows no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs import Actor, GoalTask, OrnsteinUhlenbeck
from envs.policies import Rngs
from experiments.observe import encode
from lewm.models import WorldModel
from lewm.registry import register
from lewm.types import InputError
from planners import CEM, MPC, GoalDistance, Limits


class SimulatorDynamics:
    """What `planners.Dynamics` asks for, answered by a task. Observations are its states (B, s), float64.

    Latents are the states themselves, or `encoder`'s latents of their pictures.

    Args:
        task: any number of rows; its own current states are not touched.
        std: (A,), spread of the candidates; half the action range by default.
        block: environment steps between two latents that a cost sees.
        encoder: a world model whose latents stand for the states.
    """

    history = 1
    recommendation: Mapping[str, Any] = MappingProxyType({})

    def __init__(
        self, task: GoalTask, *, std: np.ndarray | None = None, block: int = 1, encoder: WorldModel | None = None
    ) -> None:
        self.task, self.action_block, self.encoder = task, block, copy(encoder)
        if self.encoder is not None:
            self.encoder.chunk = 64  # candidates are many: twice as fast as the model's own
        spread = (task.high - task.low) / 2 if std is None else std
        self.action_spec = Limits(low=task.low, high=task.high, std=spread)

    def encode(self, observations: Tensor) -> Tensor:
        """States (B, s) -> latents (B, D)."""
        if self.encoder is None:
            return observations.double()
        return encode(self.encoder, self.task, observations.double().numpy())

    def context(self, observations: Tensor, actions: Tensor) -> Tensor:
        """The last state (B, s)."""
        return observations[:, -1].double()

    def start(self, context: Tensor) -> Tensor:
        """Latents (B, D) of the states that candidates start from."""
        return self.encode(context)

    def rollout(self, context: Tensor, actions_BSHA: Tensor) -> Tensor:
        """What truly happens: latents (B, S, H / block, D)."""
        samples, horizon = actions_BSHA.shape[1:3]
        states = np.repeat(context.numpy(), samples, axis=0)
        actions = (
            actions_BSHA.flatten(0, 1).double().clamp(*(torch.from_numpy(x).double() for x in self._bounds)).numpy()
        )
        latents = []
        for t in range(horizon):
            states = self.task.advance(states, actions[:, t])
            if (t + 1) % self.action_block == 0:
                latents.append(self.encode(torch.from_numpy(states)).unflatten(0, (-1, samples)))
        return torch.stack(latents, dim=2)

    @property
    def _bounds(self) -> tuple[np.ndarray, np.ndarray]:
        return self.task.low, self.task.high

    def metric(self, z_BSLD: Tensor, goals_BGD: Tensor) -> Tensor:
        """The task's own way from states to the nearest goal (B, S, L), for `GoalDistance(metric=...)`."""
        states = z_BSLD.double().numpy()
        far = [self._travel(states, goal[:, None, None].double().numpy()) for goal in goals_BGD.unbind(1)]
        return torch.from_numpy(np.minimum.reduce(far)).to(z_BSLD.dtype)

    def _travel(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        goals = np.broadcast_to(goals, states.shape)
        flat = self.task.travel(states.reshape(-1, states.shape[-1]), goals.reshape(-1, states.shape[-1]))
        return flat.reshape(states.shape[:-1])


@register("policy", "search")
class Search:
    """Plans in the true simulator towards one drawn goal after another: an expert for any task, and a dear one.

    Goals are drawn as the task draws them, so that a row may be at one already: it is left for another within a
    step, and counts in `goals_reached` like any other.

    Args:
        noise, correlation: of the autocorrelated noise on top, as in `ou`, in half action ranges.
        horizon, samples, iterations: of the cross-entropy search, in environment steps; `std`: spread of its
            candidates, in half action ranges; replan_every: steps of a plan that are executed.
        patience: steps after which the first goal is given up; each later one gets a step more.
    """

    def __init__(
        self,
        *,
        noise: float = 0.0,
        correlation: float = 0.7,
        horizon: int = 20,
        samples: int = 64,
        iterations: int = 3,
        std: float = 0.5,
        replan_every: int = 5,
        patience: int = 60,
    ) -> None:
        if patience < 1 or not std > 0:
            raise InputError(f"search needs patience >= 1 and std > 0, got {patience} and {std}")
        self.wander = OrnsteinUhlenbeck(correlation=correlation, scale=noise)
        self.planner = CEM(
            horizon=horizon,
            samples=samples,
            iterations=iterations,
            warm_iterations=iterations,
            elites=max(2, samples // 8),
        )
        self.std, self.replan_every, self.patience = std, replan_every, patience

    def begin(self, task: GoalTask, rngs: Rngs, steps: int) -> Actor:
        """See `envs.policies.Policy`."""
        noise = self.wander.begin(task, rngs, steps)
        seeds = [int(rng.integers(2**31)) for rng in rngs]
        streams = [np.random.default_rng(rng.integers(2**63)) for rng in rngs]  # of goals, drawn as they are needed
        dynamics = SimulatorDynamics(task, std=self.std * (task.high - task.low) / 2)
        agent = MPC(
            dynamics,
            rows=len(rngs),
            planner=self.planner,
            cost=GoalDistance(metric=dynamics.metric),
            replan_every=self.replan_every,
            seeds=seeds,
        )
        goals: np.ndarray | None = None
        since = np.zeros(len(rngs), int)
        facts: list[dict[str, Any]] = [{"goals_reached": 0} for _ in rngs]

        def act(t: int, states: np.ndarray) -> np.ndarray:
            nonlocal goals
            if goals is None:
                goals = np.stack([task.sample_goal(rng, state) for rng, state in zip(streams, states, strict=True)])
                agent.reset(goals)
            reached = task.distance(states, goals) <= 1
            leave = np.flatnonzero(reached | (since >= self.patience))
            since[:] += 1
            for row in leave:
                facts[row]["goals_reached"] += int(reached[row])
                goals[row], since[row] = task.sample_goal(streams[row], states[row]), 0
            if len(leave):
                agent.set_goal(goals[leave], rows=leave.tolist())
            middle = (task.low + task.high) / 2
            return np.clip(agent.act(states) + noise(t, states) - middle, task.low, task.high)

        return Actor(act, ["search"] * len(rngs), facts)
