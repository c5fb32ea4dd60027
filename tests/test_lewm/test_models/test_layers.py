"""The shared layers."""

import pytest
import torch
from torch.nn import functional as F

from lewm.models.layers import linear


@pytest.mark.parametrize("bias", [False, True])
def test_linear_is_linear(bias):
    x, weight = torch.randn(2, 5, 12), torch.randn(7, 12)
    offset = torch.randn(7) if bias else None
    with torch.no_grad():
        torch.testing.assert_close(linear(x, weight, offset), F.linear(x, weight, offset))
        part = torch.randn(2, 5, 30)[..., 4:16]  # not contiguous
        torch.testing.assert_close(linear(part, weight, offset), F.linear(part, weight, offset))
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(linear(x, weight, offset).sum(), x)
    torch.testing.assert_close(gradient, weight.sum(0).expand_as(x))
