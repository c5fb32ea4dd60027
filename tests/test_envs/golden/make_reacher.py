"""Records transitions of stable-worldmodel's Reacher into reacher.npz beside this file.

    bash experiments/peers/setup_envs.sh PEERS
    MUJOCO_GL=egl PEERS/bin/python tests/test_envs/golden/make_reacher.py

Trajectories under random actions, some of them held on and on, into the wrist's limit. Per transition:

    state, next   (6,) joint angles, joint velocities, warm start of the constraint solver
    action        (2,) theirs, held for two control steps of the suite

and `images` (n, 64, 64, 3), drawn at 64 pixels with the model's own quality, of the joint angles `drawn` (n, 2).
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[3] / "experiments" / "peers"))
from envs_worker import load

load()
from stable_worldmodel.envs.dmcontrol.reacher import ReacherDMControlWrapper  # noqa: E402

EPISODES, STEPS, IMAGES = 12, 20, 4


def main():
    """Record, and write the file."""
    env, columns = ReacherDMControlWrapper(), {name: [] for name in ("state", "action", "next")}
    drawn, images = [], []
    for episode in range(EPISODES):
        rng = np.random.default_rng(episode)
        env.reset(seed=episode)
        data = env.env.physics.data
        if episode < IMAGES:
            drawn.append(data.qpos.copy())
            images.append(env.render(64, 64))
        action = rng.uniform(-1, 1, 2)
        for _ in range(STEPS):
            if episode % 3:
                action = rng.uniform(-1, 1, 2)
            columns["state"].append(np.concatenate([data.qpos, data.qvel, data.qacc_warmstart]))
            env.step(action)
            columns["action"].append(action)
            columns["next"].append(np.concatenate([data.qpos, data.qvel, data.qacc_warmstart]))
    np.savez_compressed(Path(__file__).with_name("reacher.npz"), **columns, drawn=drawn, images=images)


if __name__ == "__main__":
    main()
