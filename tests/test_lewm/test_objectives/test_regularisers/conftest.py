"""Latents without a model, and a regulariser's value at them."""

from types import SimpleNamespace

import pytest
import torch

from lewm import registry
from lewm.objectives import Encoded


class Shrink:
    """A predictor: 0.9 z_t."""

    history = 1

    def __call__(self, z_BTD, actions_BTE):
        return 0.9 * z_BTD


def gaussian(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def encode(z_BTD, draw=0, **given):
    actions = z_BTD.new_zeros(len(z_BTD), z_BTD.shape[1] - 1, 2)
    return Encoded(z_BTD, actions, Shrink(), torch.Generator().manual_seed(draw), **given)


def build(name, **settings):
    return registry.build("regulariser", {"name": name, **settings})


def value(name, z_BTD, draw=0, **settings):
    return build(name, **settings)(encode(z_BTD, draw))


@pytest.fixture
def make():
    return SimpleNamespace(gaussian=gaussian, encode=encode, build=build, value=value)
