"""Rollout errors of a world z' = z + a, imagined exactly, half, and not at all."""

import math

import pytest
import torch

from lewm.diagnosis import imagination, rollout_error
from lewm.models import WorldModel, WorldModelConfig
from lewm.types import ActionSpec, InputError

STEPS = 4


def world():
    """Two trajectories that move by +1 and -1 in each of 3 dimensions: latents (2, 5, 3), actions (2, 4, 1, 3)."""
    actions = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1).expand(2, STEPS, 1, 3)
    z = torch.cat([torch.zeros(2, 1, 3), actions.squeeze(2).cumsum(1)], dim=1)
    return z, actions


def moving(share):
    def imagine(z, actions):
        future = actions[:, z.shape[1] - 1 :].sum(2)
        return z[:, -1:] + share * future.cumsum(1)

    return imagine


def test_exact_imagination_has_no_error():
    seen = rollout_error(moving(1.0), *world())
    assert seen.imagined == [0] * STEPS and seen.relative == [0] * STEPS
    assert seen.persistence == [k**2 for k in range(1, STEPS + 1)]
    assert all(math.isnan(gap) for gap in seen.action_gap)


def test_half_the_way_is_a_quarter_of_the_error():
    """With the other's actions it goes half the way in the wrong direction: (3 / 2)^2 over (1 / 2)^2."""
    seen = rollout_error(moving(0.5), *world())
    assert seen.relative == pytest.approx([0.25] * STEPS)
    assert seen.action_gap == pytest.approx([9] * STEPS)


def test_standing_still_is_the_baseline_and_ignores_actions():
    seen = rollout_error(moving(0.0), *world())
    assert seen.relative == [1] * STEPS and seen.action_gap == [1] * STEPS


def test_history_is_seen_and_not_scored():
    z, actions = world()
    assert len(rollout_error(moving(0.5), z, actions, history=3).imagined) == STEPS - 2
    assert rollout_error(moving(0.5), z, actions, history=3).relative == pytest.approx([0.25] * (STEPS - 2))


@pytest.mark.parametrize("history", [1, 2])
def test_imagination_is_what_a_planner_would_see(history):
    config = WorldModelConfig(
        encoder={"name": "conv", "channels": (4, 4, 8), "features": 8},
        predictor={"name": "residual_mlp", "history": history, "width": 8},
        image_size=32,
        latent_dim=6,
        projector_hidden=8,
        action_block=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = WorldModel(config, ActionSpec([-1.0], [1.0], [0.1], [0.5])).eval()
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (3, history, 32, 32, 3), generator=generator, dtype=torch.uint8)
    actions = torch.randn(3, history + 2, 2, 1, generator=generator)
    with torch.no_grad():
        context = model.context(pixels, actions[:, : history - 1].flatten(1, 2))
        expected = model.rollout(context, actions[:, None, history - 1 :].flatten(2, 3))[:, 0]
        torch.testing.assert_close(imagination(model)(model.encode(pixels), actions), expected)


def test_shapes_that_do_not_fit_are_said():
    z, actions = world()
    with pytest.raises(InputError, match="frames > history 5"):
        rollout_error(moving(1.0), z, actions, history=5)
    with pytest.raises(InputError, match="2 or more trajectories"):
        rollout_error(moving(1.0), z[:1], actions[:1])
