"""The real past: frames at block stride, the actions between them, gaps and restarts."""

import pytest
import torch

from planners.history import History

SEEN = torch.zeros(2, dtype=torch.bool)


def reference(frames, actions, t, start, count, block):
    """Frames t - (count - 1) block, ..., t and all actions between, padded before `start`."""
    times = range(t - (count - 1) * block, t + 1)
    seen = [frames[max(step, start)] for step in times][::block]
    done = [actions[step] if step >= start else torch.zeros(2) for step in times[:-1]]
    return torch.stack(seen), torch.stack(done) if done else torch.zeros(0, 2)


@pytest.mark.parametrize(("count", "block"), [(1, 1), (1, 3), (2, 1), (3, 2), (2, 5)])
def test_context_and_past_are_what_really_happened(count, block):
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(20, 2, 3, generator=generator)
    actions = torch.randn(20, 2, 2, generator=generator)
    history, starts = History(2, 2, count, block), [0, 0]
    for t in range(20):
        if t == 7:
            history.restart(torch.tensor([1]))
            starts[1] = 7
        history.see(frames[t], SEEN)
        seen, between = history.context(torch.tensor([0, 1]))
        for row in range(2):
            want = reference(frames[:, row], actions[:, row], t, starts[row], count, block)
            assert torch.equal(seen[row], want[0])
            assert torch.equal(between[row], want[1])
        if t >= 2:
            assert torch.equal(history.past(torch.tensor([0]))[0], actions[t - 2 : t, 0])
        history.did(actions[t], SEEN)


def test_an_unusable_frame_counts_as_the_last_good_one():
    history, everyone = History(2, 1, 2, 1), torch.tensor([0, 1])
    for t, blind in enumerate([False, True, True, False]):
        frame = torch.tensor([[10.0 + t], [torch.nan if blind else 20.0 + t]])
        unusable = torch.tensor([False, blind])
        history.see(frame, unusable)
        seen, _ = history.context(everyone)
        assert seen[0, -1] == 10 + t
        assert seen[1, -1] == (20 if blind else 20 + t)
        history.did(torch.zeros(2, 1), unusable)


def test_a_row_that_saw_nothing_yet_starts_with_its_first_good_frame():
    history = History(2, 1, 3, 1)
    for t in range(5):
        unusable = torch.tensor([False, t < 3])
        history.see(torch.full((2, 1), float(t)), unusable)
        assert history.fresh.tolist() == [t == 0, t < 4]
        if t == 3:
            seen, _ = history.context(torch.tensor([0, 1]))
            assert seen.flatten(1).tolist() == [[1.0, 2.0, 3.0], [3.0, 3.0, 3.0]]
        history.did(torch.full((2, 1), 0.1 * t), unusable)


def test_actions_done_blindly_are_still_the_past():
    """A fallback acted before the first good frame: what it did is what the next action continues."""
    history, blind = History(1, 1, 1, 1), torch.tensor([True])
    for t in range(3):
        history.see(torch.full((1, 1), torch.nan), blind)
        history.did(torch.full((1, 1), 0.5 + t), blind)
    history.see(torch.zeros(1, 1), ~blind)
    assert history.past(torch.tensor([0])).flatten().tolist() == [1.5, 2.5]


def test_seeing_again_replaces_the_frame():
    history = History(1, 1, 2, 1)
    history.see(torch.ones(1, 1), SEEN[:1])
    history.did(torch.ones(1, 1), SEEN[:1])
    for value in (5.0, 6.0):
        history.see(torch.full((1, 1), value), SEEN[:1])
    seen, done = history.context(torch.tensor([0]))
    assert seen.flatten().tolist() == [1.0, 6.0]
    assert done.flatten().tolist() == [1.0]
