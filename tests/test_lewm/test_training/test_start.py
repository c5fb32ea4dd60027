"""Fine-tuning: what is taken over from another run, and what is refused."""

import numpy as np
import pytest
import torch
from scipy.linalg import fractional_matrix_power
from torch import nn

from lewm.models import WorldModel, WorldModelConfig
from lewm.registry import register
from lewm.training import freeze, start_from, whiten
from lewm.types import ActionSpec, InputError


@register("head", "test_line")
class Line(nn.Linear):
    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim, 1)


def model(seed, mean=0.0, **config):
    torch.manual_seed(seed)
    spec = ActionSpec(low=(-1,), high=(1,), mean=(mean,), std=(1,))
    settings = {
        "encoder": {"name": "conv", "channels": (4,), "features": 8},
        "predictor": {"name": "residual_mlp", "width": 8},
        **{"image_size": 8, "latent_dim": 4, "projector_hidden": 8, "action_block": 2},
    }
    return WorldModel(WorldModelConfig(**settings | config), spec)


def heads(*roles):
    return {"heads": {role: {"name": "test_line"} for role in roles}}


def same(one, other, prefix=""):
    other = other.state_dict()
    return [torch.equal(t, other[name]) for name, t in one.state_dict().items() if name.startswith(prefix)]


def test_weights_and_normalisers_are_taken_over():
    source, start = model(1, mean=0.5), model(2)
    assert start_from(start, source) == []
    assert all(same(start, source))
    assert start.action_mean.item() == 0.5


def test_new_heads_stay_as_they_are_and_are_named():
    source, start = model(1, **heads("line")), model(2, **heads("line", "other"))
    before = start.heads["other"].weight.clone()
    assert start_from(start, source) == ["other"]
    assert torch.equal(start.heads["other"].weight, before)
    assert all(same(source, start))


def test_parts_can_be_chosen():
    source, start = model(1), model(2, action_block=3)  # another predictor
    before = {name: t.clone() for name, t in start.state_dict().items()}
    assert start_from(start, source, ["encoder", "projector"]) == []
    assert all(same(start, source, "encoder") + same(start, source, "projector"))
    assert all(torch.equal(t, before[n]) for n, t in start.state_dict().items() if n.startswith("predictor"))


@pytest.mark.parametrize(
    ("source", "start", "only", "message"),
    [
        ({}, {"action_block": 3}, (), r"has shape .* expected .*init_only"),
        ({}, {"encoder": {"name": "conv", "channels": (4, 4), "features": 8}}, (), r"lacks \['encoder"),
        (heads("line"), {}, (), r"has \['heads.line"),
        ({}, {}, ["encoders"], "did you mean 'encoder'"),
    ],
)
def test_anything_else_is_refused(source, start, only, message):
    start = model(2, **start)
    before = {name: t.clone() for name, t in start.state_dict().items()}
    with pytest.raises(InputError, match=message):
        start_from(start, model(1, **source), only)
    assert all(torch.equal(t, before[name]) for name, t in start.state_dict().items())


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (["encoders"], "to freeze: did you mean 'encoder'"),
        (["encoder", "projector", "predictor"], "nothing is left"),
    ],
)
def test_what_cannot_be_frozen_is_an_error(parts, message):
    with pytest.raises(InputError, match=message):
        freeze(model(1), parts)


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_distances_of_whitened_latents_are_mahalanobis_distances(power):
    """Of what changes in a block; nothing but the projector's last layer is touched."""
    scale, generator = torch.tensor([8, 4, 2, 1.0]), torch.Generator().manual_seed(0)
    changes, images = scale * torch.randn(400, 4, generator=generator), torch.randint(0, 256, (5, 8, 8, 3)).byte()
    plain, scaled = model(1).eval(), model(1).eval()
    whiten(scaled, changes, power)
    touched = [name for name, t in plain.named_parameters() if not torch.equal(t, scaled.get_parameter(name))]
    assert touched == ["projector.3.weight", "projector.3.bias"]
    covariance = np.cov(changes.numpy().T)
    floored = covariance + 0.02 * np.linalg.eigvalsh(covariance).max() * np.eye(4)
    metric = np.real(fractional_matrix_power(floored / (np.trace(covariance) / 4), -power))
    before, after = (one.encode(images).detach().double().numpy() for one in (plain, scaled))
    gaps = before[1:] - before[:-1]
    by_hand = np.einsum("nd,de,ne->n", gaps, metric, gaps)
    np.testing.assert_allclose(np.square(after[1:] - after[:-1]).sum(1), by_hand, rtol=1e-3)
