"""Records transitions of stable-worldmodel's Push-T, the published task, into push_t.npz beside this file.

    bash experiments/peers/setup_envs.sh PEERS
    PEERS/bin/python tests/test_envs/golden/make_push_t.py

Trajectories of an agent that wanders, or that pushes. Per transition:

    state, next   (7,) agent xy, block xy, block angle, agent velocity xy
    action        (2,) given to them as float64, for they would compute in its precision
    contacts      contact points, summed over the step's ten physics steps

Their observation of the block lags: what the last contacts left to move, its pose takes on at the begin of the next
physics step. `state` and `next` hold that pose. `images` (n, 96, 96, 3) are of the observed states `drawn` (n, 7),
their fixed green target included.
"""

import sys
from pathlib import Path

import numpy as np
import pymunk

sys.path.insert(0, str(Path(__file__).parents[3] / "experiments" / "peers"))
from envs_worker import load

load()
from stable_worldmodel.envs.pusht.env import PushT  # noqa: E402

EPISODES, STEPS, IMAGES = 24, 26, 6


def actions(rng, pushing, env):
    """One action after another: a random walk, or towards the middle of the block with some noise."""
    walk = np.zeros(2)
    for _ in range(STEPS):
        walk = 0.8 * walk + 0.6 * rng.standard_normal(2)
        aim = np.array(env.block.local_to_world((0, 45))) - np.array(env.agent.position)
        wanted = 0.5 * aim / np.linalg.norm(aim) + 0.15 * walk if pushing else 0.5 * walk
        yield np.clip(wanted, -1, 1).astype(np.float32).astype(np.float64)


def trajectory(env, observation, chosen):
    """States, block poses taken on by the first physics step of each step, actions and contacts."""
    poses = []

    def move(body, dt):
        pymunk.Body.update_position(body, dt)
        poses.append([*body.position, body.angle % (2 * np.pi)])

    env.block.position_func = move
    rows = []
    for action in chosen:
        begin = len(poses)
        state = observation["state"]
        observation, *_ = env.step(action)
        state[2:5] = poses[begin]
        rows.append((state, action, env.n_contact_points))
    states, acted, contacts = (np.array(column) for column in zip(*rows, strict=True))
    return {"state": states[:-1], "action": acted[:-1], "next": states[1:], "contacts": contacts[:-1]}


def main():
    """Record, and write the file."""
    env, recorded, drawn, images = PushT(resolution=96), [], [], []
    for episode in range(EPISODES):
        observation, _ = env.reset(seed=episode)
        if episode < IMAGES:
            drawn.append(observation["state"].copy())
            images.append(env.render())
        chosen = actions(np.random.default_rng(episode), episode % 4 > 0, env)
        recorded.append(trajectory(env, observation, chosen))
    arrays = {name: np.concatenate([one[name] for one in recorded]) for name in recorded[0]}
    np.savez_compressed(Path(__file__).with_name("push_t.npz"), **arrays, drawn=drawn, images=images)


if __name__ == "__main__":
    main()
