"""A batch small enough to check by hand, with a linear predictor and whatever heads a term asks for."""

from types import SimpleNamespace

import pytest
import torch

import lewm.models.heads  # noqa: F401, registers them
from lewm import registry
from lewm.objectives import Encoded

D, E = 5, 3


class Linear(torch.nn.Module):
    """z + z W + a V, clean of any state."""

    history = 1

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.now = 0.3 * torch.randn(D, D, generator=generator, dtype=torch.float64)
        self.act = 0.3 * torch.randn(E, D, generator=generator, dtype=torch.float64)

    def forward(self, z_BTD, actions_BTE):
        return z_BTD + z_BTD @ self.now + actions_BTE @ self.act


def encoded(rows=4, frames=4, heads=None, seed=0, **given):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(rows, frames, D, generator=generator, dtype=torch.float64, requires_grad=True)
    actions = torch.randn(rows, frames - 1, E, generator=generator, dtype=torch.float64)
    draws = torch.Generator().manual_seed(5)
    given = {"z_BTD": z, "actions_BLE": actions, "predictor": Linear(), "generator": draws} | given
    return Encoded(heads=heads or {}, **given)


def heads(term):
    """The modules a term asks for, in float64."""
    facts = {"latent_dim": D, "block_dim": E}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {role: registry.build("head", spec, **facts).double() for role, spec in term.heads.items()}


@pytest.fixture
def make():
    return SimpleNamespace(encoded=encoded, heads=heads, D=D, E=E)
