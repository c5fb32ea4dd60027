"""Factors of variation: drawn in range, kept in the state, named in the facts."""

import json

import numpy as np
import pytest

from envs import Factor, Factors
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
