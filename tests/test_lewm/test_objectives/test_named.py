"""Named objectives: each builds, trains and can be taken apart from the command line."""

import pytest
import torch

from lewm import registry
from lewm.models import WorldModel, WorldModelConfig
from lewm.objectives import Encoded
from lewm.objectives.named import NAMED
from lewm.types import ActionSpec


def tiny(objective):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = WorldModelConfig(
            encoder={"name": "conv", "channels": (4,), "features": 8},
            predictor={"name": "residual_mlp", "width": 8},
            heads=objective.heads,
            link=objective.link,
            image_size=8,
            latent_dim=6,
            projector_hidden=8,
            action_block=1,
        )
        return WorldModel(config, ActionSpec([-1, -1], [1, 1], [0, 0], [1, 1])).train()


@pytest.mark.parametrize("name", NAMED)
def test_one_name_builds_an_objective_that_trains_every_part_of_the_model(name):
    objective = registry.build("objective", {"name": name, **registry.defaults("objective", name)})
    model, generator = tiny(objective), torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (6, 4, 8, 8, 3), dtype=torch.uint8, generator=generator)
    encoded = Encoded(
        z_BTD=model.encode(pixels),
        actions_BLE=torch.randn(6, 3, 2, generator=generator),
        predictor=model.predictor,
        generator=generator,
        heads=model.heads,
        episodes_B=torch.tensor([0, 0, 1, 2, 3, 4]),
        starts_B=torch.tensor([0, 2, 0, 0, 0, 0]),
    )
    terms = objective(encoded)
    assert terms.total.isfinite()
    terms.total.backward()
    untouched = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert untouched == []


@pytest.mark.parametrize("name", NAMED)
def test_a_name_is_its_parts(name):
    named, plain = registry.defaults("objective", name), registry.defaults("objective", "lejepa")
    assert named.keys() == plain.keys()
    assert named == plain | NAMED[name]
