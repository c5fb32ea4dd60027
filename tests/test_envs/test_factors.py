"""Factors of variation: drawn in range, kept in the state, named in the facts."""

import json

import numpy as np
import pytest

from envs import Factor, Factors
from envs.factors import check_colours
from lewm.types import InputError

KNOWN = {
    "size": Factor(1.0, 0.5, 2.0),
    "colour": Factor((10, 20, 30), (0, 0, 100), (255, 50, 200)),
    "speed": Factor(3.0, 1.0, 5.0),
}


def test_nothing_varies_by_default_and_draws_no_randomness():
    factors, rng = Factors(KNOWN), np.random.default_rng(0)
    assert (factors.size, factors.draw(rng).shape) == (0, (0,))
    assert rng.random() == np.random.default_rng(0).random()
    states = np.arange(6.0).reshape(3, 2)
    values = factors.of(states)
    assert {name: value.tolist() for name, value in values.items()} == {
        "size": [[1.0]],
        "colour": [[10.0, 20.0, 30.0]],
        "speed": [[3.0]],
    }
    assert factors.facts(states[0]) == {}


@pytest.mark.parametrize("vary", [["colour"], ["speed", "size"], ["size", "colour", "speed"]])
def test_drawn_values_come_back_under_their_names_in_the_order_of_vary(vary):
    factors = Factors(KNOWN, vary)
    drawn = np.stack([factors.draw(np.random.default_rng(seed)) for seed in range(2000)])
    assert factors.size == sum(KNOWN[name].size for name in vary) == drawn.shape[1]
    states = np.concatenate([np.full((2000, 2), -7.0), drawn], axis=1)
    values = factors.of(states)
    assert np.array_equal(np.concatenate([values[name] for name in vary], axis=1), drawn)
    for name, factor in KNOWN.items():
        assert values[name].shape == ((2000 if name in vary else 1), factor.size)
        if name in vary:  # uniform in its range: mean and both ends
            low, high = np.ravel(factor.low), np.ravel(factor.high)
            assert ((values[name] >= low) & (values[name] <= high)).all()
            spread = (high - low) / np.sqrt(12 * 2000)
            assert (np.abs(values[name].mean(0) - (low + high) / 2) < 4.5 * spread).all()
            assert (np.ptp(values[name], axis=0) > 0.98 * (high - low)).all()
        else:
            assert values[name][0].tolist() == np.ravel(factor.value).tolist()
    facts = factors.facts(states[5])
    assert json.loads(json.dumps(facts)) == {name: values[name][5].tolist() for name in vary}


def test_the_same_seed_draws_the_same_values():
    factors = Factors(KNOWN, ["colour", "size"])
    first, again, other = (factors.draw(np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_unknown_and_repeated_names_are_errors():
    with pytest.raises(InputError, match=r"unknown factor 'colr' in vary: did you mean 'colour'\?"):
        Factors(KNOWN, ["colr"])
    with pytest.raises(InputError, match="twice"):
        Factors(KNOWN, ["size", "size"])


@pytest.mark.parametrize("vary", [["colour"], ["speed", "size"], ["size", "colour", "speed"]])
def test_states_fit_when_all_that_varies_is_within_its_range(vary):
    factors = Factors(KNOWN, vary)
    rows = np.stack([factors.draw(np.random.default_rng(seed)) for seed in range(50)])
    for end in ("low", "high"):  # which belong to the range
        rows = np.vstack([rows, np.concatenate([np.ravel(getattr(KNOWN[name], end)) for name in vary])])
    states = np.concatenate([np.full((52, 2), 1e9), rows], axis=1)  # the task's own columns do not count
    assert factors.fits(states).all()
    for column in range(2, 2 + factors.size):
        for value in (1e9, -5.0, np.nan):
            other = states.copy()
            other[7, column] = value
            assert factors.fits(other).tolist() == [row != 7 for row in range(52)]


def test_where_nothing_varies_everything_fits():
    assert Factors(KNOWN).fits(np.full((3, 2), -1.0)).tolist() == [True] * 3


def test_colours_are_distinct_when_every_two_differ_by_60_in_some_channel():
    black, known = Factor((0, 0, 0), (0, 0, 0), (255, 255, 255)), {"a": 0, "b": 0, "c": 0}
    factors = Factors(dict.fromkeys(known, black), ["a", "c"])
    states = np.array(
        [
            [0, 0, 60, 60, 0, 0],  # one channel is enough
            [0, 0, 60, 59.9, 59.9, 59.9],  # the third is like the second
            [0, 0, 60, 0, 0, 119],  # the first and the third are alike
            [59, 59, 59, 0, 0, 200],  # the first is like the second
        ],
        float,
    )
    assert factors.distinct(states, "a", "b", "c").tolist() == [True, False, False, False]
    assert factors.distinct(states, "a", "b").tolist() == [True, True, True, False]
    assert factors.distinct(states, "b").all()
    assert Factors({"a": black, "b": black}).distinct(states, "a", "b").tolist() == [False] * 4


@pytest.mark.parametrize("colour", [(1, 2), (0, 0, 256), (-1, 0, 0), 7, (np.nan, 0, 0)])
def test_what_is_no_colour_is_an_error(colour):
    check_colours((0, 0, 0), (255, 255, 255))
    with pytest.raises(InputError, match="red, green and blue"):
        check_colours((0, 0, 0), colour)
