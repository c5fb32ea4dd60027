"""Directions: of unit length, spread as they say, functions of the generator."""

import pytest
import torch

from lewm.objectives.regularisers import Independent, Orthogonal, Subspaces
from lewm.objectives.regularisers.directions import frozen_subspaces
from lewm.types import InputError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", [Independent, Orthogonal])
def test_uniform_on_the_sphere(kind):
    drawn = kind(count=50_000)(3, generator())
    torch.testing.assert_close(drawn.norm(dim=0), torch.ones(50_000), rtol=1e-5, atol=0)
    assert drawn.mean(1).abs().max() < 0.015
    assert (drawn @ drawn.T / 50_000 - torch.eye(3) / 3).abs().max() < 0.01
    assert drawn[0].pow(4).mean().item() == pytest.approx(1 / 5, rel=0.03)  # 3 / (D (D + 2))
    assert torch.equal(drawn, kind(count=50_000)(3, generator()))
    assert not torch.equal(drawn, kind(count=50_000)(3, generator(1)))


@pytest.mark.parametrize("count", [3, 8, 13])
def test_orthogonal_within_blocks(count):
    drawn = Orthogonal(count=count)(8, generator())
    assert drawn.shape == (8, count)
    for start in range(0, count, 8):
        block = drawn[:, start : start + 8]
        torch.testing.assert_close(block.T @ block, torch.eye(block.shape[1]), rtol=0, atol=1e-5)


def test_orthogonal_blocks_make_a_steadier_estimate(make):
    z = make.gaussian(32, 1, 16) * torch.linspace(0.3, 1.7, 16)
    spread = {
        name: torch.stack(
            [make.value("sigreg", z, draw, directions={"name": name, "count": 32}) for draw in range(60)]
        ).std()
        for name in ("iid", "orthogonal")
    }
    assert spread["orthogonal"] < 0.85 * spread["iid"]


def test_subspaces_stay_and_directions_in_them_change():
    sampler = Subspaces(count=24, subspaces=4, seed=3)
    frozen = frozen_subspaces(4, 12, 3)  # (4, 12, 3)
    torch.testing.assert_close(frozen.mT @ frozen, torch.eye(3).expand(4, 3, 3), rtol=0, atol=1e-5)
    first, second = sampler(12, generator(0)), sampler(12, generator(1))
    assert not torch.allclose(first, second, atol=0.1)
    for drawn in (first, second):
        torch.testing.assert_close(drawn.norm(dim=0), torch.ones(24), rtol=1e-5, atol=0)
        inside = torch.einsum("kde,dm->kem", frozen, drawn).norm(dim=1)  # 1 where direction m is in subspace k
        torch.testing.assert_close(inside.amax(0), torch.ones(24), rtol=1e-5, atol=0)
        assert (inside > 0.999).sum(1).tolist() == [6, 6, 6, 6]
    assert not torch.equal(frozen, frozen_subspaces(4, 12, 4))


def test_as_many_subspaces_as_dimensions_are_fixed_axes():
    drawn = Subspaces(count=6, subspaces=3)(3, generator())
    assert len({tuple(abs(round(x, 4)) for x in column) for column in drawn.T.tolist()}) == 3


def test_counts_that_cannot_be_are_errors():
    with pytest.raises(InputError, match="count >= 1"):
        Independent(count=0)
    with pytest.raises(InputError, match="1 to 8 subspaces"):
        Subspaces(count=8, subspaces=9)
