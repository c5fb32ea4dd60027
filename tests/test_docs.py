"""The code and the commands of docs/planners.md, docs/data.md and docs/envs.md run as written."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

import envs
import planners
from lewm import registry

PAGE = (Path(__file__).parents[1] / "docs/planners.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_a_sampler_from_outside_evaluates_by_name(tiny, tiny_run, lewm, tmp_path, monkeypatch):
    (code,) = [block for block in BLOCKS if "@register" in block]
    assert len(code.splitlines()) < 60
    (tmp_path / "annealed.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    settings = ["planner=annealed", "planner.cooling=0.7", "planner.samples=8", *tiny["evaluate"]]
    code, _, err = lewm("evaluate", "plugins=[annealed]", f"run={tiny_run}", f"out={tmp_path}/out", *settings)
    assert code == 0, err
    assert (tmp_path / "out/summary.json").exists()
    assert sys.modules["annealed"].Annealed().cooling == 0.8


def test_a_proposal_from_outside_draws_for_any_planner():
    (code,) = [block for block in BLOCKS if "Proposal" in block]
    names = {}
    exec(code, names)
    seen = []

    def cost(actions):
        seen.append(actions)
        return actions.square().sum((-1, -2))

    planner = planners.CEM(horizon=8, proposal=names["Held"]())
    planner.plan(cost, planner.init(1, planners.Limits(low=[-1], high=[1]), [0]))
    held = seen[0][0, 2:].unflatten(1, (2, 4))  # behind the mean and rest
    assert torch.equal(held, held[:, :, :1].expand_as(held))
    assert held.std() > 0.1


DATA_PAGE = (Path(__file__).parents[1] / "docs/data.md").read_text()


@pytest.mark.slow
def test_the_commands_of_the_data_page_run_as_written(tiny, lewm, tmp_path, monkeypatch):
    """In order; what they take for granted (two days of data, somebody's HDF5 file) is made first."""
    monkeypatch.chdir(tmp_path)
    for day, seed in (("monday", 1), ("tuesday", 2)):
        assert lewm("collect", *tiny["collect"], f"seed={seed}", f"out=data/{day}")[0] == 0
    assert lewm("collect", "env.image_size=224", "episodes=4", "steps=30", "out=data/large")[0] == 0
    assert lewm("data", "convert", "data/large", "pusht_expert_train.h5", "--to", "swm_hdf5")[0] == 0
    blocks = re.findall(r"```bash\n(.*?)```", DATA_PAGE, re.DOTALL)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert {command[1] for command in commands} == {"collect", "train", "data"}
    for _, verb, *arguments in commands:
        code, _, err = lewm(verb, *arguments, *tiny.get(verb, []))
        assert code == 0, (verb, arguments, err)
    assert (tmp_path / "runs/pusht/checkpoint").exists()
    assert (tmp_path / "pictures/episode-7.mp4").exists()


def test_the_code_of_the_data_page_runs_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", DATA_PAGE, re.DOTALL):
        exec(block, names)
    shapes, rest = capsys.readouterr().out.splitlines()
    assert shapes == "(8, 4, 48, 64, 3) (8, 4, 7) (8, 3, 5, 7)"
    assert rest.startswith("(7,) {'operator': 'ann'} ")


ENVS = Path(__file__).parents[1] / "docs/envs.md"
ENVS_PAGE = ENVS.read_text()
ENVS_CODE = re.findall(r"```python\n(.*?)```", ENVS_PAGE, re.DOTALL)


@pytest.mark.slow
def test_the_commands_of_the_environments_page_run_as_written(tiny, lewm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(registry._PARTS, "env", dict(registry._PARTS["env"]))  # forget the pendulum afterwards
    (adapter,) = [block for block in ENVS_CODE if "from_gymnasium" in block]
    (tmp_path / "my_pendulum.py").write_text(adapter)
    monkeypatch.syspath_prepend(tmp_path)
    blocks = re.findall(r"```bash\n(.*?)```", ENVS_PAGE, re.DOTALL)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert [command[1] for command in commands] == ["collect", "collect", "collect", "train", "evaluate", "collect"]
    for _, verb, *arguments in commands:
        code, _, err = lewm(verb, *arguments, *tiny[verb])
        assert code == 0, (verb, arguments, err)
    assert (tmp_path / "data/pendulum/contact_sheet.png").exists()
    assert '"track": "heldout"' in (tmp_path / "runs/push-t/summary.json").read_text()


def test_the_code_of_the_environments_page_runs_as_written(capsys):
    for block in ENVS_CODE:
        if "from_gymnasium" not in block:
            exec(block, {})
    face, contract = capsys.readouterr().out.split("\n", 1)
    assert face == "(224, 224, 3) (224, 224, 3) False ['goal', 'goal_image', 'is_success', 'pose', 'state']"
    assert contract.rstrip().endswith("(8, 6)")


@pytest.mark.parametrize("id", envs.IDS)
def test_the_environments_page_knows_every_task(id):
    """Its row, its pictures, and each of its factors in a row of the table of factors."""
    name, settings = envs.IDS[id]
    (row,) = [line for line in ENVS_PAGE.splitlines() if f"`{id}`" in line and line.startswith("| ![]")]
    pictures = re.findall(r"\]\((envs/\w+\.(?:gif|png))\)", row)
    assert [picture[-3:] for picture in pictures] == ["gif", "png"] and f"`{name}`" in row
    assert all((ENVS.parent / picture).exists() for picture in pictures)
    task = registry.build("env", {"name": name, **settings}, rows=1)
    rows = [set(re.findall(r"`(\w+)`", line)) for line in ENVS_PAGE.splitlines() if line.startswith("| ")]
    assert any(set(task.factors.known) <= row for row in rows)
    assert f"| {round(task.fps)} |" in row
