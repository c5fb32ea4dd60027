"""Encoders: shapes, normalised images in, one feature vector per image out."""

import pytest
import torch

from lewm.models import ConvEncoder, ViTEncoder
from lewm.types import InputError

SMALL_VIT = {"patch": 8, "dim": 16, "depth": 2, "heads": 2, "hidden": 32}


def small(name):
    torch.manual_seed(0)
    if name == "conv":
        return ConvEncoder(32, channels=(4, 8, 8), features=12).eval()
    return ViTEncoder(32, **SMALL_VIT).eval()


@pytest.mark.parametrize(("name", "features"), [("conv", 12), ("vit", 16)])
def test_one_feature_vector_per_image(name, features):
    encoder = small(name)
    images = torch.randn(5, 3, 32, 32)
    out = encoder(images)
    assert out.shape == (5, features)
    assert encoder.features == features
    for k in range(5):
        torch.testing.assert_close(out[k], encoder(images[k : k + 1])[0])


@pytest.mark.parametrize("name", ["conv", "vit"])
def test_position_of_a_spot_matters(name):
    encoder = small(name)
    images = torch.zeros(2, 3, 32, 32)
    images[0, :, 4:8, 4:8] = images[1, :, 20:24, 20:24] = 5.0  # the same place in two patches
    first, second = encoder(images)
    assert (first - second).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["conv", "vit"])
def test_gradient_reaches_every_parameter(name):
    encoder = small(name)
    encoder(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


def test_vit_has_no_order_but_its_positions():
    """Without position embeddings, exchanging two patches changes nothing: attention is over a set."""
    encoder = small("vit").double()
    torch.nn.init.zeros_(encoder.position)
    images = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    swapped = images.clone()
    swapped[..., :8, :8], swapped[..., 16:24, 8:16] = images[..., 16:24, 8:16], images[..., :8, :8]
    torch.testing.assert_close(encoder(images), encoder(swapped), rtol=1e-10, atol=1e-10)


def test_parameter_counts_of_the_released_vit():
    """ViT-tiny/14 at 224: patches, CLS, 257 positions, 12 blocks, final norm."""
    dim, hidden = 192, 768
    block = 4 * (dim * dim + dim) + 2 * dim * hidden + hidden + dim + 4 * dim
    expected = (3 * 14 * 14 + 1) * dim + dim + 257 * dim + 12 * block + 2 * dim
    assert sum(p.numel() for p in ViTEncoder(224).parameters()) == expected


@pytest.mark.parametrize(("make", "unit"), [(ConvEncoder, 16), (ViTEncoder, 14)])
def test_image_size_must_be_divisible(make, unit):
    with pytest.raises(InputError, match=f"{unit}, got 65"):
        make(65)
