"""Nearest neighbours: the search against brute force, and the way back to what was recorded."""

import numpy as np
import pytest
import torch

from envs import TwoRoom
from experiments.evaluate.retrieval import Retrieval, nearest_ahead
from lewm.data import EpisodeReader, split_episodes


def test_the_nearest_frame_ahead_is_the_nearest():
    rng = np.random.default_rng(0)
    lengths = [7, 1, 12, 2]
    last = np.repeat(np.cumsum(lengths) - 1, lengths)
    far = rng.uniform(size=len(last))
    for reach in (1, 3, 50):
        cost, best = nearest_ahead(torch.from_numpy(far), torch.from_numpy(last), reach)
        for i in range(len(far)):
            ahead = range(i + 1, min(i + reach, last[i]) + 1)
            assert cost[i] == min((far[j] for j in ahead), default=np.inf)
            assert not ahead or best[i] == min(ahead, key=lambda j: far[j])


@pytest.mark.parametrize("stride", [1, 5])
def test_a_recorded_way_is_walked_again(walks, tmp_path, stride):
    """From a recorded place to one of the same training episode, by the very actions; in looks of five steps."""
    trained = walks(tmp_path, stride)
    reader = EpisodeReader(trained.data)
    episodes = split_episodes(reader, 0.25)[0][:6]
    task = TwoRoom(len(episodes), image_size=16)
    states = np.stack([reader.column("state", k) for k in episodes])
    frames = {1: (4, 14), 5: (1, 3)}[stride]
    task.reset(states[:, frames[0]], states[:, frames[1]])
    act, done = Retrieval(trained, horizon=20).begin(task, range(len(episodes)), 10), []
    for t in range(10):
        done.append(act(t))
        task.step(done[-1])
    moving = np.ptp(states[:, frames[0] : frames[1] + 1], axis=1).max(1) > 5  # at rest, many frames are as near
    assert moving.sum() >= 2
    recorded = np.stack([reader.column("action", k) for k in episodes])[:, frames[0] * stride :][:, :10]
    assert np.allclose(task.get_state()[moving], task.get_goal()[moving], atol=2.1)
    assert np.array_equal(np.stack(done, 1)[moving][:, 0], recorded[moving][:, 0])


def test_a_row_acts_the_same_alone_and_in_any_batch(walks, tmp_path):
    agent, rng = Retrieval(walks(tmp_path), horizon=10), np.random.default_rng(1)
    starts, goals = rng.uniform((8, 8), (26, 56), (2, 5, 2))

    def walk(rows):
        task = TwoRoom(len(rows), image_size=16)
        task.reset(starts[rows], goals[rows])
        act = agent.begin(task, rows, 12)
        for t in range(12):
            task.step(act(t))
        return task.get_state()

    assert np.array_equal(walk(range(5)), np.concatenate([walk([k]) for k in range(5)]))
