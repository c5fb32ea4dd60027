"""Simulators: batched goal-reaching tasks, their gymnasium face, data policies. Numpy and gymnasium; no torch."""

from __future__ import annotations

import gymnasium

from envs.factors import Factor, Factors
from envs.policies import Actor, Expert, GoalDirected, Mixed, OrnsteinUhlenbeck, Straight, UniformHold
from envs.push_t import PushT
from envs.push_t_expert import PushTExpert
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
    "PushT",
    "PushTExpert",
    "Recorder",
    "SimulatorTask",
    "Straight",
    "TwoRoom",
    "UniformHold",
    "record",
    "rollout",
]

IDS = {  # gymnasium id -> the registered task and its settings
    "lewm/TwoRoom-v0": ("two_room", {}),
    "lewm/PushT-v0": ("push_t", {}),
}

for _id, (_task, _settings) in IDS.items():
    if _id not in gymnasium.registry:
        gymnasium.register(_id, entry_point="envs.task:make_env", kwargs={"task": _task, **_settings})
