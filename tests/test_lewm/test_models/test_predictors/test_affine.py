"""The affine predictor against its matrices."""

import pytest
import torch

from lewm.models import Affine
from lewm.types import InputError

D, E = 6, 4


def make(rank=3):
    torch.manual_seed(0)
    predictor = Affine(D, E, rank=rank, width=8).double().eval()
    for parameter in predictor.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return predictor


def matrices(predictor, actions):
    """A(a) = I + U diag(s) V^T and b(a), (..., D, D) and (..., D)."""
    scale, shift = predictor.effect(actions).split((predictor.into.out_features, D), dim=-1)
    eye = torch.eye(D, dtype=torch.float64)
    return eye + predictor.out.weight @ torch.diag_embed(scale) @ predictor.into.weight, shift


def test_imagination_is_a_product_of_matrices():
    """z_3 = A_3 A_2 A_1 z + A_3 A_2 b_1 + A_3 b_2 + b_3."""
    predictor = make()
    z, future = torch.randn(2, 1, D, dtype=torch.float64), torch.randn(2, 5, 3, E, dtype=torch.float64)
    whole, offset = torch.eye(D, dtype=torch.float64), torch.zeros(D, dtype=torch.float64)
    for action in future.unbind(2):
        turn, shift = matrices(predictor, action)
        whole, offset = turn @ whole, (turn @ offset[..., None])[..., 0] + shift
    imagined = predictor.rollout(predictor.observe(z, torch.zeros(2, 0, E)), future)[:, :, -1]
    expected = (whole @ z[..., None])[..., 0] + offset
    torch.testing.assert_close(imagined, expected, rtol=1e-10, atol=1e-10)


def test_it_starts_as_the_identity_and_learns():
    torch.manual_seed(0)
    predictor = Affine(D, E)
    z, actions = torch.randn(2, 3, D), torch.randn(2, 3, E)
    predicted = predictor(z, actions)
    assert torch.equal(predicted, z)
    (predicted * torch.randn(2, 3, D)).sum().backward()
    assert predictor.out.weight.grad.abs().max() > 1e-3  # A
    assert predictor.effect[-1].weight.grad[-D:].abs().max() > 1e-3  # b


def test_a_rank_of_zero_is_refused():
    with pytest.raises(InputError, match="rank and width >= 1, got 0 and 8"):
        make(rank=0)
