"""The symmetric information bottleneck: its two informations, each against what is known of it."""

import math

import pytest
import torch


def test_complexity_is_the_divergence_of_the_posteriors(make):
    """The difference of two prices is KL(N(mu, s^2) | N(0, 1)) per dimension, of predictions and of latents."""
    z, std = make.gaussian(40, 3, 6), 0.4
    free, dear = (make.value("dysib", z, complexity=price, std=std) for price in (0.0, 2.0))
    normal = torch.distributions.Normal(0.0, 1.0)
    kl = [
        torch.distributions.kl_divergence(torch.distributions.Normal(mean, std), normal).mean()
        for mean in (0.9 * z[:, :-1], z[:, 1:])
    ]
    torch.testing.assert_close(dear - free, 2 * sum(kl), rtol=1e-10, atol=0)


def test_information_is_log_n_when_predictions_tell_all_and_zero_when_they_tell_nothing(make):
    options = {"complexity": 0.0, "std": 1e-3, "temperature": 0.01}
    same = make.gaussian(32, 1, 6).expand(32, 3, 6)
    assert make.value("dysib", same, **options).item() == pytest.approx(-math.log(32), rel=1e-3)
    nothing = torch.zeros(32, 3, 6).double()
    assert make.value("dysib", nothing, **options).item() == pytest.approx(0.0, abs=0.01)


def test_collapse_is_repelled_only_below_the_stated_price(make):
    z = (0.02 * make.gaussian(256, 1, 8).expand(256, 2, 8)).clone().requires_grad_()
    for complexity, apart in ((1.0, True), (3.0, True), (40.0, False)):
        options = {"complexity": complexity, "temperature": 0.5, "std": 0.01}
        (gradient,) = torch.autograd.grad(make.value("dysib", z, **options), z)
        assert ((gradient * z).sum() < 0) == apart
