"""The prefix predictor: published size, each prefix by itself, training through its rollouts."""

import math

import pytest
import torch

from lewm.models import SIZES, AdaLNTransformer, Prefix
from lewm.models.predictors.prefix import sinusoids
from lewm.types import InputError

D, E = 6, 4
SMALL = {"prefixes": 3, "depth": 2, "value_dim": 8, "hidden": 16, "encoder_depth": 2, "encoder_heads": 2}
SMALL |= {"encoder_head_dim": 4, "action_hidden": 8, "action_smoothed": 4}


def make(**options):
    torch.manual_seed(0)
    predictor = Prefix(D, E, **(SMALL | options))
    for parameter in predictor.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    return predictor.double()


def problem(blocks, rows=4, samples=2):
    generator = torch.Generator().manual_seed(1)
    sizes = ((rows, 1, D), (rows, 0, E), (rows, samples, blocks, E))
    return [torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes]


def test_published_size():
    """Fast-LeWM has 17.9 M parameters, LeWM 18.03 M (test_world_model.py); they differ in the predictor."""
    with torch.device("meta"):
        ours, theirs = (
            sum(p.numel() for p in part(SIZES["lewm"].latent_dim, 10).parameters())
            for part in (Prefix, AdaLNTransformer)
        )
    assert round((18_034_478 - theirs + ours) / 1e6, 1) == 17.9


def test_it_starts_as_what_follows_from_the_state_alone():
    torch.manual_seed(0)
    predictor = Prefix(D, E, **SMALL).double().eval()
    z, past, future = problem(3)
    expected = predictor.projector(predictor.norm(z[:, 0]))[:, None, None].expand(4, 2, 3, D)
    torch.testing.assert_close(predictor.rollout(predictor.observe(z, past), future), expected)


def test_a_prefix_is_not_a_chain():
    """Two blocks at once are not one after the other; beyond `prefixes` they are."""
    predictor = make().eval()
    z, past, future = problem(6, samples=1)
    whole = predictor.rollout(predictor.observe(z, past), future)
    first = predictor(z, future[:, 0, :1])
    torch.testing.assert_close(whole[:, 0, :1], first, rtol=1e-12, atol=1e-12)
    assert (predictor(first, future[:, 0, 1:2]) - whole[:, 0, 1:2]).abs().max() > 1e-3
    rest = predictor.rollout(predictor.observe(whole[:, 0, 2:3], past), future[:, :, 3:])
    torch.testing.assert_close(whole[:, :, 3:], rest, rtol=1e-12, atol=1e-12)


def test_training_is_one_call_over_all_prefixes():
    """With gradients, dropout, and BatchNorm over every prefix of every window."""
    predictor = make(dropout=0.0).train()
    z, past, future = problem(3, samples=1)
    z.requires_grad_()
    seen = []
    predictor.projector[1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    predictor.rollout(predictor.observe(z, past), future).square().mean().backward()
    (tokens,) = seen
    assert len(tokens) == 4 * 3
    torch.testing.assert_close(predictor.projector[1].running_mean, 0.1 * tokens.mean(0).detach())
    assert all(parameter.grad.any() for parameter in (z, *predictor.encoder.parameters()))
    predictor = make(dropout=0.5).train()
    drawn = [predictor.rollout(predictor.observe(z, past), future) for _ in range(2)]
    assert not torch.equal(*drawn)


@pytest.mark.parametrize("dim", [6, 7])
def test_positions_are_sines_and_cosines(dim):
    for position, row in enumerate(sinusoids(4, dim).tolist()):
        for k, value in enumerate(row):
            angle = position / 10_000 ** (k // 2 * 2 / dim)
            assert value == pytest.approx(math.cos(angle) if k % 2 else math.sin(angle), abs=1e-6)


def test_no_prefixes_are_refused():
    with pytest.raises(InputError, match="prefixes >= 1, got 0"):
        make(prefixes=0)
