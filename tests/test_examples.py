"""The examples do what they say."""

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import envs
from lewm import registry

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_pendulum_swings_up_without_a_simulator():
    code = (
        "import runpy, sys; main = runpy.run_path(sys.argv[1])['main']; error = main(); "
        "print(f'{error:.1f}', sorted({'gymnasium', 'mujoco', 'hydra', 'lewm', 'envs'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, EXAMPLES / "plan_your_own_dynamics.py"],
        cwd=EXAMPLES.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    error, loaded = done.stdout.splitlines()[-1].split(" ", 1)
    assert float(error) < 5  # degrees from upright
    assert loaded == "[]"


@pytest.fixture
def arm(monkeypatch):
    """What examples/your_own_env.py defines; its environment is forgotten afterwards."""
    assert envs.GoalTask  # ours are registered before theirs
    monkeypatch.setitem(registry._PARTS, "env", dict(registry._PARTS["env"]))
    return runpy.run_path(str(EXAMPLES / "your_own_env.py"))


def test_an_environment_of_your_own_is_collected_trained_and_planned_on(arm, tiny, tmp_path, capsys):
    summary = arm["main"](
        tmp_path,
        [*arm["COLLECT"], *tiny["collect"]],
        [*arm["TRAIN"], *tiny["train"]],
        [*arm["EVALUATE"], *tiny["evaluate"]],
    )
    assert capsys.readouterr().out.splitlines()[-1].startswith("reached ")
    assert summary["n"] == 6 and summary["protocol"]["env"]["name"] == "arm"
    assert len(summary["probe_r2"]) == 4  # sine and cosine of both joints


def test_the_arm_is_drawn_where_its_joints_say(arm):
    task = registry.build("env", {"name": "arm", "image_size": 200}, rows=4)
    states = np.array([[0.0, 0.0], [np.pi / 2, 0.0], [0.0, np.pi / 2], [-np.pi / 2, np.pi / 2]])
    hands = np.array([[0.9, 0.0], [0.0, 0.9], [0.5, 0.4], [0.4, -0.5]])
    task.reset(states, states[::-1])
    for image, (x, y) in zip(task.render(), hands, strict=True):
        column, line = (int((value + 1) * 100) for value in (x, y))
        assert image[line, column].tolist() == [220, 90, 50]
        assert image[100, 100].tolist() == [60, 90, 160] and image[5, 5].tolist() == [240, 240, 240]
    assert np.allclose(task.distance(states, states[::-1]) * 0.2, np.pi / 2)
    for _ in range(40):
        task.step(np.full((4, 2), 0.15))
    assert np.array_equal(task.get_state(), np.tile([1.6, 2.4], (4, 1)))  # as far as they go
