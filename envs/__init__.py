"""Simulators: batched goal-reaching tasks, their gymnasium face, data policies. Numpy and gymnasium; no torch."""

from __future__ import annotations

import gymnasium

from envs.factors import Factor, Factors
from envs.policies import Actor, Expert, GoalDirected, Mixed, OrnsteinUhlenbeck, Straight, UniformHold
from envs.rollout import Recorder, record, rollout
from envs.task import GoalEnv, GoalTask, SimulatorTask
from envs.two_room import TwoRoom

__lewm__ = True

__all__ = [
    "Actor",
    "Expert",
    "Factor",
    "Factors",
    "GoalDirected",
    "GoalEnv",
    "GoalTask",
    "Mixed",
    "OrnsteinUhlenbeck",
    "Recorder",
    "SimulatorTask",
    "Straight",
    "TwoRoom",
    "UniformHold",
    "record",
    "rollout",
]

if "lewm/TwoRoom-v0" not in gymnasium.registry:
    gymnasium.register("lewm/TwoRoom-v0", entry_point="envs.two_room:make_env")
