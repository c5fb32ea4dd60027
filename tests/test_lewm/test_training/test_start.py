"""Fine-tuning: what is taken over from another run, and what is refused."""

import pytest
import torch
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


def test_whitened_latents_are_the_latents_scaled_by_what_changes():
    """Power 1 makes the changes white, power 0.5 has the square root of their covariance; distances follow."""
    z = 3 + torch.randn(400, 2, 4, generator=torch.Generator().manual_seed(0)).cumsum(1) * torch.tensor(
        [4, 3, 2, 1.0]
    )
    changes, images = z[:, 1] - z[:, 0], torch.randint(0, 256, (5, 8, 8, 3), dtype=torch.uint8)
    for power in (0.5, 1.0):
        plain, scaled = model(1).eval(), model(1).eval()
        whiten(scaled, changes, power)
        assert [name for name, _ in scaled.named_parameters() if not all(same(plain, scaled, name))] == [
            "projector.3.weight",
            "projector.3.bias",
        ]
        with torch.no_grad():
            before, after = plain.encode(images), scaled.encode(images)
        spread, axes = torch.linalg.eigh(changes.T.cov().double())
        weights = (axes * (spread / spread.mean()) ** (-power / 2)) @ axes.T
        torch.testing.assert_close(after.double(), before.double() @ weights, rtol=1e-4, atol=1e-5)
        if power == 1:
            white = (changes.double() @ weights).T.cov()
            torch.testing.assert_close(white, spread.mean() * torch.eye(4, dtype=white.dtype), rtol=0, atol=1e-4)
