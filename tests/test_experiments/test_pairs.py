"""Evaluation pairs: fair, frozen, unsolved."""

import numpy as np
import pytest

from envs import TwoRoom
from experiments.pairs import draw_pairs
from lewm.types import InputError


def test_half_are_detours_and_none_is_solved_at_the_start():
    pairs = draw_pairs(TwoRoom(1), 200, seed=0)
    task = TwoRoom(200)
    task.reset(pairs.starts, pairs.goals)
    assert not task.success().any()
    assert (task.detour(pairs.starts, pairs.goals) == pairs.detour).all()
    assert pairs.detour.sum() == 100
    assert pairs.presolved > 0


def test_pairs_are_a_function_of_their_seed():
    first, again, other = (draw_pairs(TwoRoom(1), 20, seed=seed) for seed in (3, 3, 4))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert (first.starts == again.starts).all()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.5, 1.0])
def test_any_prefix_has_the_share_of_detours_and_is_what_a_shorter_draw_gives(share):
    pairs = draw_pairs(TwoRoom(1), 40, seed=1, share=share)
    for count in range(1, 41):
        assert 0 <= pairs.detour[:count].sum() - share * count < 1
    short = draw_pairs(TwoRoom(1), 11, seed=1, share=share)
    assert np.array_equal(short.starts, pairs.starts[:11]) and np.array_equal(short.goals, pairs.goals[:11])


def test_the_published_demo_has_these_pairs():
    """What docs/results/two_room_demo says of them: drawing must not change under it."""
    pairs = draw_pairs(TwoRoom(1), 200, seed=0)
    assert (pairs.fingerprint, pairs.presolved) == ("3c3339c7b52ca01d", 5)


class Open(TwoRoom):
    """Two-Room that does not know what a detour is."""

    def detour(self, states, goals):
        return np.zeros(len(states), bool)


def test_a_task_without_detours_gets_plain_pairs():
    pairs = draw_pairs(Open(1), 30, seed=0)
    assert len(pairs) == 30 and not pairs.detour.any()


def test_a_task_that_is_always_solved_is_an_error():
    with pytest.raises(InputError, match="unsolved pairs"):
        draw_pairs(TwoRoom(1, tolerance=1000.0), 5, seed=0)
