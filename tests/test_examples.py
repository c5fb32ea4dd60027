"""The examples do what they say."""

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import envs
import lewm.models
import lewm.objectives  # noqa: F401 ours are registered before theirs
from lewm import registry

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.slow
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


@pytest.mark.slow
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


def of_my_own(name, kind, monkeypatch):
    """What an example defines; its part is forgotten afterwards."""
    monkeypatch.setitem(registry._PARTS, kind, dict(registry._PARTS[kind]))
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


def test_an_objective_of_your_own_knows_collapse_from_the_full_sphere(monkeypatch):
    of_my_own("your_own_objective", "regulariser", monkeypatch)
    term = registry.build("regulariser", {"name": "coding_rate", "eps": 0.5})
    white, one = 8**0.5 * torch.eye(8), torch.full((8, 8), 1.0)  # second moments I, and of rank one
    assert term.measure(white[None], None).item() == pytest.approx(-np.log(3))
    assert term.measure(one[None], None).item() == pytest.approx(-np.log(1 + 8 / 0.5) / 8, rel=1e-4)
    near = (1 + 0.01 * torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(0))).requires_grad_()
    (gradient,) = torch.autograd.grad(term.measure(F.normalize(near, dim=-1) * 8**0.5, None), near)
    apart = near - near.mean(1, keepdim=True)
    assert (gradient * apart).sum() < 0  # descent spreads a batch that has nearly collapsed


def test_an_objective_of_your_own_trains(monkeypatch, tiny, tmp_path):
    example = of_my_own("your_own_objective", "regulariser", monkeypatch)
    last = example["main"](tmp_path, [*example["COLLECT"], *tiny["collect"]], [*example["TRAIN"], *tiny["train"]])
    assert last["step"] == 6 and -np.log(3) <= last["regularisation"] < 0
    assert '"link": "sphere"' in (tmp_path / "checkpoint/config.json").read_text()


def test_a_predictor_of_your_own_is_causal_and_imagines_an_oscillator(monkeypatch):
    """Undamped oscillators, whose next place two frames determine, imagined as their recurrence says."""
    of_my_own("your_own_predictor", "predictor", monkeypatch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = registry.build("predictor", {"name": "arx"}, latent_dim=2, block_dim=3)
        z, actions = torch.randn(4, 5, 2), torch.randn(4, 5, 3)
    assert torch.equal(model(z, actions)[:, :3], model(z[:, :3], actions[:, :3]))
    with torch.no_grad():  # z'' = 1.8 z' - z + a
        model.of_latents.weight.copy_(torch.cat([0.8 * torch.eye(2), -torch.eye(2)], dim=1))
        model.of_latents.bias.zero_()
        model.of_actions.weight.copy_(torch.eye(2, 3))
        future = torch.zeros(4, 1, 6, 3)
        ahead = model.rollout(model.observe(z[:, :2], torch.zeros(4, 1, 3)), future)[:, 0]
    path = [z[:, 0], z[:, 1]]
    for _ in range(6):
        path.append(1.8 * path[-1] - path[-2])
    assert torch.allclose(ahead, torch.stack(path[2:], dim=1), atol=1e-5)


def test_a_predictor_of_your_own_trains_and_plans(monkeypatch, tiny, tmp_path, capsys):
    example = of_my_own("your_own_predictor", "predictor", monkeypatch)
    summary = example["main"](
        tmp_path,
        [*example["COLLECT"], *tiny["collect"]],
        [*example["TRAIN"], *(o for o in tiny["train"] if "predictor" not in o)],
        [*example["EVALUATE"], *tiny["evaluate"]],
    )
    assert summary["n"] == 6 and capsys.readouterr().out.splitlines()[-1].startswith("reached ")
