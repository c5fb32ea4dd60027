"""Behaviour cloning: what it is shown, that it learns where to go, and what it keeps; the memory it learns from."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from envs import TwoRoom
from experiments.evaluate.cloning import Cloning, Lessons
from experiments.evaluate.memory import Memory
from lewm.data import EpisodeReader, split_episodes
from lewm.types import InputError

SMALL = {"steps": 500, "batch_size": 128, "width": 64, "depth": 1, "learning_rate": 3e-3, "max_offset": 8}


def act_all(agent, starts, goals, steps):
    """The task after some steps of an agent in all rows."""
    task = TwoRoom(len(starts), image_size=16)
    task.reset(starts, goals)
    act = agent.begin(task, range(len(starts)), steps)
    for t in range(steps):
        task.step(act(t))
    return task


@pytest.mark.parametrize("stride", [1, 5])
def test_the_memory_holds_whole_training_episodes_and_no_other(walks, tmp_path, stride):
    trained = walks(tmp_path, stride)
    memory, reader = Memory.of(trained, 400), EpisodeReader(trained.data)
    training, _ = split_episodes(reader, 0.25)
    assert memory.stride == stride and len(memory.z_ND) == {1: 396, 5: 7 * len(training)}[stride]
    starts = memory.first_N.unique().tolist()
    firsts = np.concatenate([reader.column("state", k)[:1] for k in training])
    for first in starts:
        (position,) = training[np.isclose(firsts, memory.z_ND[first], atol=1e-5).all(1)]
        last = int(memory.last_N[first])
        assert np.allclose(memory.z_ND[first : last + 1], reader.column("state", position), atol=1e-5)
        actions = reader.column("action", position)[: (last - first) * stride]
        assert np.array_equal(memory.actions_NKA[first:last].flatten(0, 1), actions)
        assert not memory.actions_NKA[last].any()


def test_an_example_is_what_was_seen_done_and_reached():
    """Frames are numbered; episodes of 7 and 5 of them, two history frames that are 3 apart."""
    first, last = (torch.tensor([a] * 7 + [b] * 5) for a, b in ((0, 7), (6, 11)))
    number = torch.arange(12.0)
    memory = Memory(number[:, None], -number.view(-1, 1, 1), first, last, {})
    z, actions = Lessons(memory, history=2, back=3, reach=4).draw(np.random.default_rng(0), 3000)
    before, now, goal = z[..., 0].long().unbind(1)
    assert torch.equal(actions[:, 0], -now.float())
    assert set(now.tolist()) == {*range(6), *range(7, 11)}
    assert torch.equal(before, torch.maximum(now - 3, first[now]))
    offset = goal - now
    assert (goal <= last[now]).all() and set(offset.tolist()) == {1, 2, 3, 4}
    share = offset[now == 0].bincount(minlength=5)[1:] / (now == 0).sum()
    assert (share - 0.25).abs().max() < 4.5 * 0.433 / (now == 0).sum() ** 0.5  # uniform


def test_it_learns_to_go_where_it_is_told(walks, tmp_path):
    """Straight walks teach to head straight for a goal, whatever its direction."""
    way = np.exp(2j * np.pi * np.arange(16) / 16)
    starts = np.tile([17.0, 32.0], (16, 1))
    heading = np.stack([way.real, way.imag], 1)
    task, cosines = TwoRoom(16, image_size=16), {}
    task.reset(starts, starts + 8 * heading)
    for name, change in (("taught", {}), ("untaught", {"steps": 1})):
        action = Cloning(walks(tmp_path / name), **SMALL | change).begin(task, range(16), 1)(0)
        cosines[name] = (action * heading).sum(1) / np.linalg.norm(action, axis=1)
    assert cosines["taught"].min() > 0.9 and cosines["untaught"].mean() < 0.7


def test_it_is_taught_once_and_again_when_it_must(walks, tmp_path, monkeypatch):
    """On one thread, as another number rounds differently; other settings, or damage, and the file is made anew."""
    trained, taught = walks(tmp_path), []
    fit, threads = Cloning._fit, torch.get_num_threads
    monkeypatch.setattr(Cloning, "_fit", lambda self, *given: taught.append(threads()) or fit(self, *given))
    settings, path = SMALL | {"steps": 5}, tmp_path / "cloning.safetensors"

    def teach(**other):
        return Cloning(replace(trained), **settings | other).policy.state_dict()

    first, content = teach(), path.read_bytes()
    assert all(torch.equal(tensor, first[name]) for name, tensor in teach().items()) and len(taught) == 1
    teach(max_offset=21)
    assert len(taught) == 2
    torch.set_num_threads(2)
    teach()
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    assert len(taught) == 3 and path.read_bytes() == content
    path.write_bytes(content[:-40])
    teach()
    assert len(taught) == 4 and path.read_bytes() == content
    (trained.run / "model.safetensors").write_text("other weights")
    teach()
    assert taught == [1] * 5 and path.read_bytes() != content


def test_a_row_acts_the_same_alone_and_in_any_batch(walks, tmp_path):
    agent, rng = Cloning(walks(tmp_path), **SMALL | {"steps": 5}), np.random.default_rng(1)
    starts, goals = rng.uniform((8, 8), (26, 56), (2, 5, 2))
    together = act_all(agent, starts, goals, 8).get_state()
    alone = [act_all(agent, starts[k : k + 1], goals[k : k + 1], 8).get_state()[0] for k in range(5)]
    assert np.array_equal(together, alone)


def test_without_the_very_training_data_it_cannot_learn(walks, tmp_path):
    trained = walks(tmp_path)
    other = {"data": {"fingerprint": "another", "validation": 0.25}}
    for broken, message in (
        (replace(trained, data=None), "not at any place"),
        (replace(trained, data=tmp_path / "gone"), "not at .*gone"),
        (replace(trained, facts=other), "was trained on another"),
    ):
        with pytest.raises(InputError, match=message):
            Memory.of(broken, 100)
    with pytest.raises(InputError, match="max_offset must be at least 1"):
        Cloning(trained, max_offset=0)
