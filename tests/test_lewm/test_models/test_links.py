"""Links: where they put latents, what gradient passes, and that all a model returns has gone through them."""

import pytest
import torch
from torch.nn import functional as F

from lewm import registry
from lewm.models import WorldModel, WorldModelConfig
from lewm.types import ActionSpec

SPEC = ActionSpec([-1], [1], [0], [0.5])
LINKS = registry.names("link")


def link(name):
    return registry.build("link", {"name": name})


def points(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)


@pytest.mark.parametrize("name", LINKS)
def test_a_link_has_no_parameters_and_changes_no_more_when_applied_again(name):
    x, onto = points(5, 3, 8), link(name)
    assert not list(onto.state_dict())
    assert onto(x).shape == x.shape
    torch.testing.assert_close(onto(onto(x)), onto(x))


def test_none_is_the_identity():
    x = points(4, 8)
    assert torch.equal(link("none")(x), x)


def test_sphere_has_unit_variance_per_coordinate_and_measures_angles():
    x = points(2, 6, 8)
    z = link("sphere")(x)
    torch.testing.assert_close(z.square().mean(-1), torch.ones(2, 6, dtype=z.dtype))
    cosine = F.cosine_similarity(x[0], x[1], dim=-1)
    torch.testing.assert_close((z[0] - z[1]).square().sum(-1), 2 * 8 * (1 - cosine))


def test_sphere_passes_the_gradient_along_it():
    """Moving away from the origin changes nothing."""
    x, weight = points(6, 8), points(6, 8).detach().flip(0)
    (link("sphere")(x) * weight).sum().backward()
    torch.testing.assert_close((x.grad * x).sum(-1), torch.zeros(6, dtype=x.dtype), atol=1e-12, rtol=0)
    assert x.grad.norm(dim=-1).min() > 0.1


def test_rectified_is_relu_with_the_gradient_of_gelu():
    x, weight = points(6, 8), points(6, 8).detach().flip(0)
    z = link("rectified")(x)
    torch.testing.assert_close(z, x.relu(), rtol=0, atol=1e-15)
    (z * weight).sum().backward()
    (expected,) = torch.autograd.grad((F.gelu(x) * weight).sum(), x)
    torch.testing.assert_close(x.grad, expected)
    off = (x < 0) & (x > -0.7)
    assert off.any()
    assert (x.grad[off] != 0).all()  # what is off can come back


@pytest.mark.parametrize("name", ["sphere", "rectified"])
def test_encodings_and_imagined_latents_have_gone_through_the_link(name):
    torch.manual_seed(0)
    encoder = {"name": "conv", "channels": (4,), "features": 8}
    sizes = {"image_size": 8, "latent_dim": 6, "projector_hidden": 8, "action_block": 1}
    model = WorldModel(WorldModelConfig(encoder=encoder, link=name, **sizes), SPEC).eval()
    images = torch.randint(0, 256, (3, 1, 8, 8, 3), dtype=torch.uint8)
    with torch.no_grad():
        context = model.context(images, torch.zeros(3, 0, 1))
        imagined = model.rollout(context, torch.randn(3, 4, 2, 1))
        for z in (context.z_BTD, model.predict(context.z_BTD, torch.randn(3, 1, 1, 1)), imagined):
            torch.testing.assert_close(link(name)(z), z)
            assert z.std() > 0
