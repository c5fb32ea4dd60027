"""Simulators: batched goal-reaching tasks, their gymnasium face, data policies. Numpy and gymnasium; no torch."""

from __future__ import annotations

import gymnasium

from envs.policies import GoalDirected, Mixed, OrnsteinUhlenbeck, Straight, UniformHold
from envs.rollout import Recorder, record, rollout
from envs.task import GoalEnv, GoalTask
from envs.two_room import TwoRoom

__lewm__ = True

__all__ = [
    "GoalDirected",
    "GoalEnv",
    "GoalTask",
    "Mixed",
    "OrnsteinUhlenbeck",
    "Recorder",
    "Straight",
    "TwoRoom",
    "UniformHold",
    "record",
    "rollout",
]

if "lewm/TwoRoom-v0" not in gymnasium.registry:
    gymnasium.register("lewm/TwoRoom-v0", entry_point="envs.two_room:make_env")
