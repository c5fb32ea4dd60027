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


def test_any_prefix_holds_both_kinds():
    detour = draw_pairs(TwoRoom(1), 40, seed=1).detour
    assert 4 <= detour[:10].sum() <= 6


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
