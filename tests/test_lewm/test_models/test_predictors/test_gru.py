"""The recurrent predictor against torch's cell, and its state."""

import pytest
import torch
from torch.nn import functional as F

from lewm.models import GRU
from lewm.types import InputError

D, E = 6, 4


def make(**options):
    torch.manual_seed(0)
    return GRU(D, E, **{"width": 8, **options}).double().eval()


def draw(*sizes):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes]


def test_it_is_torchs_cell_over_frames():
    predictor = make()
    z, actions = draw((2, 5, D), (2, 5, E))
    state, expected = torch.zeros(2, 8, dtype=torch.float64), []
    for frame, action in zip(z.unbind(1), actions.unbind(1), strict=True):
        state = predictor.cell(F.silu(predictor.from_latent(frame) + predictor.from_action(action)), state)
        expected.append(frame + predictor.out(state))
    torch.testing.assert_close(predictor(z, actions), torch.stack(expected, 1), rtol=1e-12, atol=1e-12)


def test_imagination_is_a_fixed_point_of_the_teacher_forced_rule():
    """Told what it imagined itself, from the first observed frame on, it predicts just that."""
    predictor = make(history=2)
    z, past, future = draw((2, 2, D), (2, 1, E), (2, 1, 6, E))
    imagined = predictor.rollout(predictor.observe(z, past), future)[:, 0]
    told, actions = torch.cat([z, imagined[:, :-1]], 1), torch.cat([past, future[:, 0]], 1)
    torch.testing.assert_close(predictor(told, actions)[:, 1:], imagined, rtol=1e-12, atol=1e-12)


def test_the_first_observed_frame_is_never_forgotten():
    predictor = make(history=2)
    z, past, future = draw((1, 2, D), (1, 1, E), (1, 1, 6, E))
    z.requires_grad_()
    last = predictor.rollout(predictor.observe(z, past), future)[0, 0, -1]
    weights = torch.arange(1.0, D + 1, dtype=torch.float64)
    assert torch.autograd.grad(last @ weights, z)[0][0, 0].abs().max() > 1e-6


def test_settings_below_one_are_refused():
    with pytest.raises(InputError, match="history and width >= 1, got 0 and 8"):
        make(history=0)
