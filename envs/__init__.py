"""Simulators: batched goal-reaching tasks, their gymnasium face, data policies. Numpy and gymnasium; no torch."""

from __future__ import annotations

import gymnasium

from envs.dmc import CartPole, PointMass, Reacher
from envs.dmc_contact import BallInCup, Finger
from envs.dmc_runners import Cheetah, Walker
from envs.factors import Factor, Factors
from envs.from_gymnasium import from_gymnasium
from envs.ogbench_manipulation import Cube, Scene
from envs.ogbench_maze import AntMaze, PointMaze
from envs.ogbench_oracle import OGBenchOracle
from envs.policies import Actor, Expert, GoalDirected, Mixed, Momentum, OrnsteinUhlenbeck, Straight, UniformHold
from envs.push_t import PushT
from envs.push_t_expert import PushTExpert
from envs.rollout import Recorder, record, rollout
from envs.task import GoalEnv, GoalTask, SimulatorTask
from envs.two_room import TwoRoom
from envs.wall import Wall

__lewm__ = True

__all__ = [
    "Actor",
    "AntMaze",
    "BallInCup",
    "CartPole",
    "Cheetah",
    "Cube",
    "Expert",
    "Factor",
    "Factors",
    "Finger",
    "GoalDirected",
    "GoalEnv",
    "GoalTask",
    "Mixed",
    "Momentum",
    "OGBenchOracle",
    "OrnsteinUhlenbeck",
    "PointMass",
    "PointMaze",
    "PushT",
    "PushTExpert",
    "Reacher",
    "Recorder",
    "Scene",
    "SimulatorTask",
    "Straight",
    "TwoRoom",
    "UniformHold",
    "Walker",
    "Wall",
    "from_gymnasium",
    "record",
    "rollout",
]

IDS = {  # gymnasium id -> the registered task and its settings
    "lewm/TwoRoom-v0": ("two_room", {}),
    "lewm/Wall-v0": ("wall", {}),
    "lewm/PushT-v0": ("push_t", {}),
    "lewm/Cube-v0": ("cube", {}),
    "lewm/CubeDouble-v0": ("cube", {"cubes": 2}),
    "lewm/Scene-v0": ("scene", {}),
    "lewm/AntMaze-v0": ("antmaze", {}),
    "lewm/PointMaze-v0": ("pointmaze", {}),
    "lewm/Reacher-v0": ("reacher", {}),
    "lewm/PointMass-v0": ("point_mass", {}),
    "lewm/CartPole-v0": ("cartpole", {}),
    "lewm/BallInCup-v0": ("ball_in_cup", {}),
    "lewm/Finger-v0": ("finger", {}),
    "lewm/Cheetah-v0": ("cheetah", {}),
    "lewm/Walker-v0": ("walker", {}),
}

for _id, (_task, _settings) in IDS.items():
    if _id not in gymnasium.registry:
        gymnasium.register(_id, entry_point="envs.task:make_env", kwargs={"task": _task, **_settings})
