"""Shared types: suggestions, action specifications, episodes."""

import dataclasses

import numpy as np
import pytest

from lewm.types import ActionSpec, Episode, InputError, nearest


def spec(**changes):
    return ActionSpec(**({"low": [-1, -2], "high": [1, 2], "mean": [0, 0], "std": [0.5, 0.5]} | changes))


def test_a_misspelt_name_gets_its_neighbour():
    assert "'goal_directed'" in nearest("goal_direct", ["ou", "goal_directed", "straight"])


def test_a_name_far_from_all_gets_the_list():
    message = nearest("zzz", ["straight", "ou"])
    assert "ou, straight" in message
    assert "none" in nearest("zzz", [])


def test_action_spec_holds_flat_float32_arrays():
    made = spec(low=[[-1.0, -2.0]], std=np.array([0.25, 0.5], np.float64))
    assert made.dim == 2
    for name in ("low", "high", "mean", "std"):
        array = getattr(made, name)
        assert array.dtype == np.float32
        assert array.shape == (2,)
    assert np.array_equal(made.low, [-1, -2])
    assert np.array_equal(made.std, [0.25, 0.5])


def test_action_spec_of_scalars_has_one_dimension():
    assert ActionSpec(-1.0, 1.0, 0.0, 0.5).dim == 1


@pytest.mark.parametrize("name", ["low", "high", "mean", "std"])
def test_action_spec_needs_one_length(name):
    with pytest.raises(InputError, match=f"'{name}': 3"):
        spec(**{name: [3.0, 3.0, 3.0]})


@pytest.mark.parametrize(
    "changes",
    [
        {"low": [1, -2]},
        {"low": [2, -2]},
        {"high": [np.inf, 2]},
        {"low": [-np.inf, -2]},
        {"low": [np.nan, -2]},
    ],
)
def test_action_spec_needs_finite_ordered_bounds(changes):
    with pytest.raises(InputError, match="low < high"):
        spec(**changes)


def test_steps_count_actions_not_observations():
    columns = {"action": np.zeros((4, 2)), "state": np.zeros((5, 3))}
    assert Episode(0, columns).steps == 4
    assert Episode(0, columns).facts == {}


def test_boundary_objects_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec().low = np.zeros(2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Episode(0, {}).id = 1


def test_input_errors_are_value_errors():
    assert issubclass(InputError, ValueError)
