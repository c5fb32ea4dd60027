"""The learning rate at every step."""

import math
from itertools import pairwise

import pytest

from lewm.training import warmup_cosine


def test_warm_up_is_linear_and_reaches_one():
    assert [warmup_cosine(step, 100, 4) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_cosine_falls_from_one_to_zero():
    steps, warmup = 104, 4
    values = [warmup_cosine(step, steps, warmup) for step in range(warmup, steps)]
    assert values[0] == 1.0
    assert values[50] == pytest.approx(0.5)
    assert values[25] == pytest.approx(0.5 + math.sqrt(2) / 4)
    assert all(earlier > later for earlier, later in pairwise(values))
    assert 0 < values[-1] < 0.001
    assert warmup_cosine(steps, steps, warmup) == 0.0


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (10, 0), (10, 10), (5, 50), (600, 50)])
def test_factor_is_always_above_zero_and_at_most_one(steps, warmup):
    assert all(0 < warmup_cosine(step, steps, warmup) <= 1 for step in range(steps))


def test_cosine_may_end_above_zero():
    assert warmup_cosine(104, 104, 4, final=0.1) == pytest.approx(0.1)
    assert warmup_cosine(54, 104, 4, final=0.1) == pytest.approx(0.1 + 0.9 / 2)
    assert warmup_cosine(2, 104, 4, final=0.1) == 0.75
