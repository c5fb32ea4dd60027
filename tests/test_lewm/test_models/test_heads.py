"""Heads: shapes with any leading axes, what each form promises, and a round trip through a checkpoint."""

import pytest
import torch

from lewm import checkpoint, registry
from lewm.models import WorldModel, WorldModelConfig
from lewm.types import ActionSpec, InputError

D, E = 5, 4


def head(name, **settings):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        spec = {"name": name, "hidden": 8, **settings}
        return registry.build("head", spec, latent_dim=D, block_dim=E).double()


def latents(*shape, seed=1):
    return torch.randn(*shape, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "settings", "last"),
    [
        ("inverse", {}, (E,)),
        ("inverse", {"given": "difference"}, (E,)),
        ("inverse", {"blocks": 3}, (3 * E,)),
        ("reachability", {"horizon": 4}, (4,)),
        ("distance", {}, ()),
        ("distance", {"form": "quasimetric"}, ()),
    ],
)
def test_any_leading_axes_and_one_goal_for_all(name, settings, last):
    """A planner's (B, S, L, D) against (B, 1, 1, D) is what pair after pair gives."""
    module, start, goal = head(name, **settings), latents(2, 3, 4), latents(2, 1, 1, seed=2)
    with torch.no_grad():
        out = module(start, goal)
        assert out.shape == (2, 3, 4, *last)
        torch.testing.assert_close(out[1, 2, 3], module(start[1, 2, 3], goal[1, 0, 0]))


def test_inverse_of_a_difference_sees_nothing_else():
    before, after, shift = latents(6), latents(6, seed=2), latents(6, seed=3)
    for given, same in (("difference", True), ("both", False)):
        module = head("inverse", given=given)
        moved = module(before + shift, after + shift)
        assert torch.allclose(module(before, after), moved, atol=1e-12) == same


def test_reachability_by_budget_is_the_column_of_that_budget():
    module, start, goal = head("reachability", horizon=3), latents(4), latents(4, seed=2)
    logits = module(start, goal)
    budget = torch.tensor([1, 3, 2, 9])
    expected = logits[torch.arange(4), torch.tensor([0, 2, 1, 2])]
    torch.testing.assert_close(module.within(start, goal, budget), expected)
    torch.testing.assert_close(module.within(start, goal, torch.tensor(2)), logits[:, 1])
    with pytest.raises(InputError, match="at least 1 block, got 0"):
        module.within(start, goal, torch.tensor(0))


def test_symmetric_distance_is_symmetric_and_positive():
    module, x, y = head("distance"), latents(50), latents(50, seed=2)
    torch.testing.assert_close(module(x, y), module(y, x), rtol=0, atol=0)
    assert module(x, y).min() > 0


def test_quasimetric_is_zero_at_home_keeps_the_triangle_and_has_a_direction():
    module = head("distance", form="quasimetric")
    x, y, z = (10 * latents(200, seed=seed) for seed in (1, 2, 3))
    assert module(x, x).abs().max() == 0
    assert (module(x, z) <= module(x, y) + module(y, z) + 1e-12).all()
    assert (module(x, y) - module(y, x)).abs().max() > 1e-2


def outer(x, y):
    return torch.einsum("ni,nj->ij", x, y) / len(x)


@pytest.mark.parametrize("rate", [0.25, 1.0])
def test_moments_are_those_of_the_batch_first_and_running_means_then(rate):
    module = registry.build("head", {"name": "moments", "rate": rate}, latent_dim=D).double().train()
    cross, auto = torch.zeros(D, D), torch.zeros(D, D)
    for step in range(3):
        u, v = latents(20, seed=step), latents(20, seed=step + 10)
        weight = rate if step else 1.0
        cross = (1 - weight) * cross + weight * (outer(u, v) + outer(v, u))
        auto = (1 - weight) * auto + weight * (outer(u, u) + outer(v, v))
        for got, expected in zip(module(u, v), (cross, auto), strict=True):
            torch.testing.assert_close(got, expected)
    held = [moment.clone() for moment in module.eval()(latents(20), latents(20))]
    torch.testing.assert_close(held, [cross, auto])  # in evaluation they stay


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("inverse", {"given": "sum"}, "given in both, difference"),
        ("inverse", {"blocks": 0}, "blocks >= 1"),
        ("inverse", {"depth": 0}, "hidden and depth >= 1"),
        ("reachability", {"horizon": 0}, "horizon >= 1"),
        ("distance", {"form": "metric"}, "symmetric, quasimetric"),
    ],
)
def test_settings_out_of_range_are_refused(name, settings, message):
    with pytest.raises(InputError, match=message):
        head(name, **settings)


def test_heads_are_saved_with_the_model_and_come_back_under_their_roles(tmp_path):
    roles = {
        "inverse": {"name": "inverse", "hidden": 8, "given": "difference"},
        "reachability": {"name": "reachability", "hidden": 8, "horizon": 2},
        "distance": {"name": "distance", "hidden": 8, "form": "quasimetric"},
        "moments": {"name": "moments", "rate": 0.3},
    }
    config = WorldModelConfig(
        encoder={"name": "conv", "channels": (4, 8), "features": 16},
        predictor={"name": "residual_mlp", "width": 16},
        heads=roles,
        image_size=16,
        latent_dim=D,
        projector_hidden=16,
        action_block=2,
    )
    model = WorldModel(config, ActionSpec([-1, -2], [1, 2], [0, 0], [1, 1]))
    x, y = latents(3).float(), latents(3, seed=2).float()
    model.heads["moments"].train()(x, y)
    assert {"heads.inverse.out.weight", "heads.moments.cross", "heads.moments.updates"} <= set(model.state_dict())
    checkpoint.save(model.eval(), tmp_path / "checkpoint")
    loaded = checkpoint.load(tmp_path / "checkpoint")
    assert list(loaded.heads) == list(roles)
    with torch.no_grad():
        for role in roles:
            torch.testing.assert_close(loaded.heads[role](x, y), model.heads[role](x, y), rtol=0, atol=0)
    assert loaded.heads["moments"].updates == 1
