"""The blocks of the AdaLN transformer against their formulas."""

import pytest
import torch
from torch.nn import functional as F

from lewm.models.adaln import AdaLNBlock, Value, attend
from lewm.models.layers import Attention

D = 6


def make(attention):
    """A block whose modulation is not zero."""
    torch.manual_seed(0)
    block = AdaLNBlock(D, attention, 16, 0.0)
    torch.nn.init.normal_(block.modulation.weight, std=0.5)
    return block.double().eval()


def test_adaln_block_is_the_published_formula():
    """x + gate * f(LN(LN(x) * (1 + scale) + shift)), attention then MLP; six parts of Linear(SiLU(c))."""
    block = make(Attention(D, 2, 4, qkv_bias=False, causal=True))
    x, condition = (torch.randn(2, 3, D, dtype=torch.float64) for _ in range(2))
    parts = block.modulation(condition * torch.sigmoid(condition)).split(D, dim=-1)
    expected = x
    for branch, (shift, scale, gate) in ((block.attention, parts[:3]), (block.mlp, parts[3:])):
        centred = expected - expected.mean(-1, keepdim=True)
        normal = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        expected = expected + gate * branch(normal * (1 + scale) + shift)
    torch.testing.assert_close(block(x, condition), expected, rtol=1e-10, atol=1e-10)


def test_a_value_is_attention_over_one_token():
    attention, value = Attention(D, 2, 4, qkv_bias=False, causal=True), Value(D, 8, 0.0)
    value.value.weight.data = attention.qkv.weight.data[16:]
    value.out.load_state_dict(attention.out.state_dict())
    one, other = make(attention), make(value)
    x, condition = (torch.randn(7, 1, D, dtype=torch.float64) for _ in range(2))
    torch.testing.assert_close(other(x, condition), one(x, condition), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tokens", [1, 4, 5, 40])
def test_a_value_joins_its_products_for_many_tokens(tokens):
    value = Value(D, 8, 0.0).double()
    x = torch.randn(tokens, D, dtype=torch.float64)
    torch.testing.assert_close(value(x), value.out(value.value(x)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tokens", [1, 2, 3, 5])
def test_attention_by_hand_is_scaled_dot_product_attention(tokens):
    query = torch.randn(2, 3, 4, 8, dtype=torch.float64)
    shared = torch.randn(2, 1, 2, 4, 8, dtype=torch.float64)  # broadcast over the samples
    given = [shared, *torch.randn(tokens - 1, 2, 3, 2, 4, 8, dtype=torch.float64)]
    keys, values = torch.stack([token.expand(2, 3, 2, 4, 8) for token in given], dim=-2).unbind(2)
    expected = F.scaled_dot_product_attention(query.unsqueeze(-2), keys, values).squeeze(-2)
    torch.testing.assert_close(attend(query, given).expand_as(expected), expected, rtol=1e-12, atol=1e-12)
