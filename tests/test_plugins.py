"""Encoders and objectives from outside: one decorator, then usable by name; checkpoints say what they need."""

import sys

import pytest

import lewm as toolkit
from experiments import config
from experiments.train import train
from lewm.types import InputError

SOURCE = '''
import torch
import planners
from torch import nn
from lewm import register
from lewm.objectives import Objective

@register("encoder", "pooled")
class Pooled(nn.Module):
    """Average pooling to `cells` x `cells`, flattened."""
    def __init__(self, image_size: int, *, cells: int = 4):
        super().__init__()
        self.features = 3 * cells**2
        self.pool = nn.AdaptiveAvgPool2d(cells)
    def forward(self, images):
        return self.pool(images).flatten(1)

@register("planner", "eager")
class Eager(planners.CEM):
    """CEM under another name."""

@register("objective", "doubled")
class Doubled(Objective):
    """The default with twice the regularisation."""
    def __init__(self, *, factor: float = 2.0, **options):
        super().__init__(**options)
        self.regulariser.weight *= factor
'''


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "outside_parts.py").write_text(SOURCE)
    sys.path.insert(0, str(folder))
    yield "outside_parts"
    sys.path.remove(str(folder))


def test_parts_from_outside_train_by_name(plugin, tiny_run, tmp_path):
    overrides = [
        f"plugins=[{plugin}]",
        "model/encoder=pooled",
        "model.encoder.cells=2",
        "objective=doubled",
        "objective.factor=3",
        "objective.regulariser.directions.count=16",
        "trainer.steps=2",
        "threads=1",
    ]
    settings = config.compose("train", [*overrides, f"data={tiny_run}/data", f"out={tmp_path}/run"])
    assert settings["objective"]["regulariser"]["weight"] == 6.4 and settings["objective"]["factor"] == 3
    train(settings)
    model = toolkit.load(tmp_path / "run", plugins=[plugin])
    assert model.encoder.features == 12


def test_a_checkpoint_names_the_plugin_it_needs(plugin, tiny_run, tmp_path, monkeypatch):
    overrides = [f"plugins=[{plugin}]", "model/encoder=pooled", "trainer.steps=1", "threads=1"]
    train(config.compose("train", [*overrides, f"data={tiny_run}/data", f"out={tmp_path}/run"]))
    from lewm import registry

    monkeypatch.delitem(registry._PARTS["encoder"], "pooled")
    with pytest.raises(InputError, match=rf"trained with plugins \['{plugin}'\]: pass plugins="):
        toolkit.load(tmp_path / "run")


def test_a_planner_from_outside_is_recommended_and_evaluated(plugin, compose, tiny_run, tmp_path):
    from experiments.evaluate import evaluate

    overrides = [f"plugins=[{plugin}]", "planner=eager", f"data={tiny_run}/data", f"out={tmp_path}/run"]
    train(compose("train", *overrides, without="planner="))
    summary = evaluate(compose("evaluate", f"run={tmp_path}/run", f"plugins=[{plugin}]"))
    assert summary["protocol"]["planner"]["name"] == "eager"


def test_a_report_imports_nothing_a_run_names(plugin, compose, tiny_run, tmp_path):
    """A downloaded run may name any module as its plug-in; only the person at the keyboard may import one."""
    import json
    import shutil

    from experiments.report import report

    shutil.copytree(tiny_run, tmp_path / "run")
    meta = tmp_path / "run/checkpoint/meta.json"
    content = json.loads(meta.read_text())
    content["provenance"]["plugins"] = ["this_would_be_imported"]
    meta.write_text(json.dumps(content))
    (tmp_path / "this_would_be_imported.py").write_text("raise SystemExit('code from a run was executed')")
    sys.path.insert(0, str(tmp_path))
    try:
        report(tmp_path / "run")
    finally:
        sys.path.remove(str(tmp_path))
    assert "this_would_be_imported" not in sys.modules
