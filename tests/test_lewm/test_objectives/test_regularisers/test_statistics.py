"""Statistics of projections against naive references and closed forms."""

import math

import pytest
import torch

from lewm.objectives.regularisers import EppsPulley, Independent, Moments, Wasserstein
from lewm.types import InputError

ROOT_2PI = math.sqrt(2 * math.pi)


def naive(x_NM, knots=17, t_max=3.0):
    """EP / N as the formula says it, over the *whole* interval: O(N M K), no folding, no recurrences."""
    t = torch.linspace(-t_max, t_max, 2 * knots - 1, dtype=torch.float64)
    angle = x_NM.double()[..., None] * t  # (..., N, M, K)
    distance = torch.complex(angle.cos().mean(-3) - torch.exp(-t * t / 2), angle.sin().mean(-3)).abs() ** 2
    return torch.trapezoid(distance * torch.exp(-t * t / 2), t, dim=-1)


def test_collapsed_latents_give_the_stated_value(make):
    for dtype in (torch.float32, torch.float64):
        z = torch.zeros(64, 2, 8, dtype=dtype)
        assert make.value("sigreg", z).item() == pytest.approx(0.4020, abs=5e-5)


def test_gaussian_latents_give_the_stated_expectation(make):
    """40 000 slices of N = 16; also sum_k w_k phi_k (1 - phi_k^2), the exact expectation times N."""
    assert 16 * EppsPulley()(make.gaussian(16, 40_000)).mean().item() == pytest.approx(1.0525, rel=0.02)
    t = torch.linspace(-3, 3, 33, dtype=torch.float64)
    exact = torch.trapezoid(torch.exp(-t * t / 2) * (1 - torch.exp(-t * t)), t).item()
    assert exact == pytest.approx(1.0525, abs=5e-5)


@pytest.mark.parametrize("shape", [(9, 5), (3, 9, 5), (2, 3, 9, 5)])
@pytest.mark.parametrize(("knots", "t_max"), [(17, 3.0), (9, 2.0), (33, 5.0), (2, 1.0)])
def test_epps_pulley_equals_the_naive_reference_in_value_and_gradient(shape, knots, t_max, make):
    x = (2 * make.gaussian(*shape) + 0.3).requires_grad_()
    values = EppsPulley(knots=knots, t_max=t_max)(x), naive(x, knots, t_max)
    torch.testing.assert_close(*values, rtol=1e-10, atol=1e-10)
    gradients = [torch.autograd.grad((value * value).sum(), x)[0] for value in values]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("scale", [0.001, 0.1, 3.0])
def test_float32_follows_the_reference(scale, make):
    x = (scale * make.gaussian(256, 64)).float().requires_grad_()
    value, expected = EppsPulley()(x), naive(x)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=1e-5)
    gradients = [torch.autograd.grad(v.sum(), x)[0] for v in (value, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4 * gradients[1].abs().max().item())


@pytest.mark.parametrize("spread", [0.2, 1.0, 2.0])
def test_closed_form_of_one_slice(spread, make):
    """EP / N = sqrt(2 pi) [mean_ij exp(-(x_i - x_j)^2 / 2) - sqrt 2 mean_i exp(-x_i^2 / 4) + 1 / sqrt 3]."""
    x = spread * make.gaussian(40, 1) + 0.5
    pairs = torch.exp(-((x - x.T) ** 2) / 2).mean()
    closed = ROOT_2PI * (pairs - math.sqrt(2) * torch.exp(-(x**2) / 4).mean() + 1 / math.sqrt(3)).item()
    assert EppsPulley(knots=65, t_max=8.0)(x).item() == pytest.approx(closed, rel=1e-8)
    assert EppsPulley()(x).item() == pytest.approx(closed, rel=0.02)  # the released grid ends at 3


def test_least_at_zero_mean(make):
    shifts, x = torch.arange(-0.5, 0.55, 0.1), make.gaussian(4000, 8)
    for statistic in (EppsPulley(), Wasserstein(), Moments()):
        assert shifts[torch.stack([statistic(x + s).mean() for s in shifts]).argmin()].abs() < 1e-6


def test_wasserstein_is_the_best_of_all_pairings(make):
    """Of 4 points with 4 quantiles: all 24 orders tried."""
    x = make.gaussian(4, 3)
    quantiles = math.sqrt(2) * torch.erfinv(2 * torch.arange(1, 5, dtype=torch.float64) / 5 - 1)
    orders = torch.cartesian_prod(*[torch.arange(4)] * 4)
    orders = orders[orders.sort(-1).values.eq(torch.arange(4)).all(-1)]
    best = (x[orders] - quantiles[:, None]).square().mean(1).amin(0)
    torch.testing.assert_close(Wasserstein()(x), best)
    reference = make.gaussian(4, 3, seed=1)
    best = (x[orders] - reference).square().mean(1).amin(0)
    torch.testing.assert_close(Wasserstein()(x, reference), best)


def test_wasserstein_of_a_shift_is_its_square(make):
    x = make.gaussian(50, 3)
    torch.testing.assert_close(Wasserstein()(x + 0.7, x), torch.full((3,), 0.49, dtype=torch.float64))


def test_moments_by_hand():
    x = torch.tensor([[1.0], [5.0]])
    torch.testing.assert_close(Moments()(x), torch.tensor([9.0 + 1.0]))


@pytest.mark.parametrize("statistic", [EppsPulley(), Moments()])
def test_those_that_know_one_law_refuse_another(statistic, make):
    with pytest.raises(InputError, match="wasserstein"):
        statistic(make.gaussian(5, 2), make.gaussian(5, 2))


@pytest.mark.parametrize("wrong", [{"knots": 1}, {"t_max": 0.0}])
def test_quadrature_that_cannot_be_is_an_error(wrong):
    with pytest.raises(InputError, match="knots >= 2 and t_max > 0"):
        EppsPulley(**wrong)


def test_an_isotropic_direction_is_needed_to_see_one_bad_dimension(make):
    """One collapsed coordinate of three: invisible to a slice across it, seen on average."""
    z = make.gaussian(2000, 3) * torch.tensor([1.0, 1.0, 0.0])
    seen = EppsPulley()(z @ Independent(count=500)(3, torch.Generator().manual_seed(0)).double()).mean()
    across = EppsPulley()(z[:, :1]).mean()
    assert seen > 10 * across
