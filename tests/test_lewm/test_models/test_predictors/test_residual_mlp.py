"""The residual MLP against its formula."""

import pytest
import torch

from lewm.models import ResidualMLP
from lewm.types import InputError

D, E = 6, 4


def make(history=1):
    torch.manual_seed(0)
    return ResidualMLP(D, E, history=history, width=16, depth=2).double().eval()


def test_residual_mlp_is_its_formula():
    predictor = make()
    z, actions = torch.randn(2, 3, D, dtype=torch.float64), torch.randn(2, 3, E, dtype=torch.float64)
    hidden = torch.nn.functional.silu(predictor.from_latent(z) + actions @ predictor.from_action.weight.T)
    for block in predictor.blocks:
        hidden = hidden + block(hidden)
    torch.testing.assert_close(predictor(z, actions), z + predictor.out(hidden), rtol=1e-10, atol=1e-10)


def test_history_two_adds_what_changed_to_the_formula():
    """A frame without one before gets nothing."""
    predictor, plain = make(2), make()
    plain.load_state_dict({k: v for k, v in predictor.state_dict().items() if not k.startswith("from_past")})
    z, actions = torch.randn(2, 3, D, dtype=torch.float64), torch.randn(2, 3, E, dtype=torch.float64)
    torch.testing.assert_close(predictor(z, actions)[:, 0], plain(z, actions)[:, 0], rtol=1e-10, atol=1e-10)
    past = torch.cat([z[:, 1:] - z[:, :-1], actions[:, :-1], torch.ones(2, 2, 1, dtype=torch.float64)], dim=-1)
    given = predictor.from_action(actions[:, 1:]) + past @ predictor.from_past.weight.T
    torch.testing.assert_close(
        predictor(z, actions)[:, 1:], predictor._step(z[:, 1:], given), rtol=1e-10, atol=1e-10
    )
    with pytest.raises(InputError, match="history 1 or 2"):
        ResidualMLP(D, E, history=3)
