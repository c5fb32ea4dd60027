"""The whole examination, of a model that is exact but for noise, in a world whose picture is its state."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from lewm.diagnosis import Sample, examine, frames_to_encode
from lewm.types import InputError


class Exact:
    """Latent: how far the bright pixel is from the middle. Imagination: adds up the actions."""

    history = 1

    def __init__(self, gain=1.0):
        def rollout(z, future):
            return z[:, -1][:, None, None] + gain * future.unflatten(-1, (2, 2)).sum(-2).cumsum(2)

        self.predictor = SimpleNamespace(observe=lambda z, past: z, rollout=rollout)

    def encode(self, seen):
        light = seen["pixels"][..., 0].float()
        axis = torch.arange(light.shape[-1]) - (light.shape[-1] - 1) / 2
        total = light.sum((-1, -2))
        return torch.stack([(light.sum(-2) * axis).sum(-1) / total, (light.sum(-1) * axis).sum(-1) / total], dim=-1)

    def normalise(self, actions):
        return actions.flatten(-2)


def sample(count, frames, seed):
    """A dot on a board of 41, moved by whole actions that are recorded with a small error."""
    generator = torch.Generator().manual_seed(seed)
    moves = torch.randint(-1, 2, (count, frames - 1, 2, 2), generator=generator)
    start = torch.randint(15, 26, (count, 1, 2), generator=generator)
    place = torch.cat([start, moves.sum(2)], dim=1).cumsum(1)
    pixels = torch.zeros(count, frames, 41, 41, 3, dtype=torch.uint8)
    rows = torch.arange(count)[:, None].expand(count, frames)
    pixels[rows, torch.arange(frames).expand(count, frames), place[..., 1], place[..., 0]] = 200
    truth = torch.cat([place.double(), torch.ones(count, frames, 1)], dim=-1)  # and something that never varies
    actions = moves + 0.05 * torch.randn(moves.shape, generator=generator)
    return Sample({"pixels": pixels}, actions, truth, torch.arange(count))


@pytest.fixture(scope="module")
def samples():
    return sample(120, 2, 0), sample(30, 7, 1)


def test_an_exact_model_is_found_to_be_one(samples):
    encoded = []
    turned = {"flip_x": [-1, 1], "rotate_90": [[0, 1], [-1, 0]], "rotate_180": [1, 1]}  # the last one is wrong
    found = examine(Exact(), *samples, turned, encoded.append)
    assert len(found.rollout.relative) == 6 and max(found.rollout.relative) < 0.01
    assert min(found.rollout.action_gap) > 10
    assert found.truth.linear == pytest.approx([1, 1], abs=1e-4) and min(found.truth.mlp) > 0.98
    assert found.truth.rank_correlation > 0.98
    assert found.truth.identifiability.latent_from_state == pytest.approx(1, abs=1e-4)
    assert found.truth.episode_share == pytest.approx(found.health.episode_share, abs=0.02)
    assert found.surprises["teleport"].ratio > 100 and found.surprises["teleport"].at == 3
    assert found.surprises["colour"].ratio == pytest.approx(1)  # grey stays grey
    assert found.equivariance["flip_x"] == pytest.approx(1, rel=1e-3)
    assert found.equivariance["rotate_90"] == pytest.approx(1, rel=1e-3) and found.equivariance["rotate_180"] > 100
    assert found.transition[0] > 0.99
    assert sum(encoded) == frames_to_encode(*samples, turned) - 4 * 30  # recoloured from the middle on only


def test_a_model_that_ignores_actions_is_found_out(samples):
    found = examine(Exact(gain=0.0), *samples)
    assert found.rollout.relative == [1] * 6 and found.rollout.action_gap == [1] * 6
    assert found.equivariance == {}


def test_a_model_that_sees_nothing_is_not_a_crash(samples):
    class Blind(Exact):
        def encode(self, seen):
            return torch.zeros(len(seen["pixels"]), 2)

    found = examine(Blind(gain=0.0), *samples, {"flip_x": [-1, 1]})
    assert found.health.complaints and math.isnan(found.straightness)
    assert math.isnan(found.rollout.relative[0]) and math.isnan(found.equivariance["flip_x"])
    assert max(found.truth.linear) < 0.1 and math.isnan(found.truth.rank_correlation)


def test_without_a_true_state_the_rest_is_told(samples):
    fitting, held = (replace(each, truth_BTP=None) for each in samples)
    assert examine(Exact(), fitting, held).truth is None
    still = [replace(each, truth_BTP=torch.ones(len(each), each.frames, 2)) for each in samples]
    assert examine(Exact(), *still).truth is None


def test_what_cannot_be_examined_is_said_before_the_work(samples):
    fitting, held = samples
    with pytest.raises(InputError, match="did you mean 'flip_x'"):
        examine(Exact(), fitting, held, {"flipx": [1, 1]})
    with pytest.raises(InputError, match="2 factors"):
        examine(Exact(), fitting, held, {"flip_x": [1]}, tick=lambda _: pytest.fail("began to encode"))
    both = [replace(each, observations={**each.observations, "touch": torch.zeros(1)}) for each in samples]
    with pytest.raises(InputError, match="more than `pixels`"):
        examine(Exact(), *both, {"flip_x": [-1, 1]})
    with pytest.raises(InputError, match="at least 3 frames"):
        examine(Exact(), fitting, sample(9, 2, 2))
