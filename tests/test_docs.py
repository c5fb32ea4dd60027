"""The code of docs/planners.md runs as written, by name and as an object."""

import re
import sys
from pathlib import Path

import torch

import planners

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
