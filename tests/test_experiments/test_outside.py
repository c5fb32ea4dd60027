"""A policy from elsewhere, as a plug-in: one function that sees pictures, in the same evaluation as the model."""

import json

import pytest

from experiments.evaluate import evaluate
from lewm.types import InputError

SOURCE = '''
import numpy as np
from experiments.evaluate.outside import policy
from lewm import register

def where(images):
    """The red disc's centre (B, 2), in pixels."""
    red = (images[..., 0] > 150) & (images[..., 1] < 120)
    y, x = (np.arange(n) for n in images.shape[1:3])
    return np.stack([(red * x).sum((1, 2)), (red * y[:, None]).sum((1, 2))], 1) / red.sum((1, 2))[:, None]

@register("agent", "chaser")
@policy
def chaser(images, goal_images, t):
    """Straight to where the disc of the goal image is."""
    return where(goal_images) - where(images)

@register("agent", "broken")
@policy
def broken(images, goal_images, t):
    return np.zeros(2)
'''


def test_a_function_of_pictures_is_an_agent(plugin, compose, tiny_run, tmp_path):
    """Against `greedy`, which does the same with true states: all goals in one room are reached."""
    plugin(SOURCE)
    settings = ["plugins=[outside]", "agents=[chaser,greedy]", "pairs=8", "budget=40", f"out={tmp_path}"]
    evaluate(compose("evaluate", f"run={tiny_run}", *settings))
    lines = [json.loads(line) for line in (tmp_path / "episodes.jsonl").read_text().splitlines()]
    final = {
        agent: [line["success_final"] for line in lines if line["policy"] == agent]
        for agent in ("chaser", "greedy")
    }
    assert final["chaser"] == final["greedy"] and {True, False} == set(final["chaser"])


def test_actions_of_another_shape_are_refused(plugin, compose, tiny_run, tmp_path):
    plugin(SOURCE)
    with pytest.raises(InputError, match=r"agent broken gave actions of shape \(2,\), expected \(4, 2\)"):
        evaluate(compose("evaluate", f"run={tiny_run}", "plugins=[outside]", "agents=[broken]", f"out={tmp_path}"))
