"""Encoders and objectives from outside: one decorator, then usable by name; checkpoints say what they need."""

import sys

import pytest

import lewm as toolkit
from experiments import config
from experiments.train import train
from lewm.types import InputError

SOURCE = '''
import torch
from torch import nn
from lewm import register
from lewm.objectives import LeJEPA

@register("encoder", "pooled")
class Pooled(nn.Module):
    """Average pooling to `cells` x `cells`, flattened."""
    def __init__(self, image_size: int, *, cells: int = 4):
        super().__init__()
        self.features = 3 * cells**2
        self.pool = nn.AdaptiveAvgPool2d(cells)
    def forward(self, images):
        return self.pool(images).flatten(1)

@register("objective", "doubled")
class Doubled(LeJEPA):
    """LeJEPA with twice the regularisation."""
    def __init__(self, *, factor: float = 2.0, **options):
        super().__init__(**options)
        self.weight *= factor
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
        "objective.directions=16",
        "trainer.steps=2",
        "threads=1",
    ]
    settings = config.compose("train", [*overrides, f"data={tiny_run}/data", f"out={tmp_path}/run"])
    assert settings["objective"]["weight"] == 6.4 and settings["objective"]["factor"] == 3
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
