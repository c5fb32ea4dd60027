"""SIGReg against a naive reference, closed forms and its symmetries."""

import math

import pytest
import torch

from lewm.objectives import sigreg
from lewm.objectives.sigreg import unit_directions

ROOT_2PI = math.sqrt(2 * math.pi)


def naive(z_ND, directions_DM, knots=17, t_max=3.0):
    """EP / N as the formula says it, over the *whole* interval: O(N M K), no folding, no recurrences."""
    t = torch.linspace(-t_max, t_max, 2 * knots - 1, dtype=torch.float64)
    angle = (z_ND.double() @ directions_DM.double())[..., None] * t  # (N, M, K)
    distance = torch.complex(angle.cos().mean(0) - torch.exp(-t * t / 2), angle.sin().mean(0)).abs() ** 2
    return torch.trapezoid(distance * torch.exp(-t * t / 2), t, dim=-1).mean()


def naive_leading(z, directions, **options):
    return torch.stack([naive(part, directions, **options) for part in z.reshape(-1, *z.shape[-2:])]).mean()


def gaussian(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def directions(dim, count, seed=0):
    return unit_directions(dim, count, torch.Generator().manual_seed(seed)).double()


def test_collapsed_latents_give_the_stated_value():
    for dtype in (torch.float32, torch.float64):
        assert sigreg(torch.zeros(64, 8, dtype=dtype), directions(8, 32)).item() == pytest.approx(0.4020, abs=5e-5)


def test_gaussian_latents_give_the_stated_expectation():
    """40 000 slices of N = 16; also sum_k w_k phi_k (1 - phi_k^2), the exact expectation times N."""
    samples = gaussian(40_000, 16, 1)
    assert 16 * sigreg(samples, torch.ones(1, 1)).item() == pytest.approx(1.0525, rel=0.02)
    t = torch.linspace(-3, 3, 33, dtype=torch.float64)
    exact = torch.trapezoid(torch.exp(-t * t / 2) * (1 - torch.exp(-t * t)), t).item()
    assert exact == pytest.approx(1.0525, abs=5e-5)


@pytest.mark.parametrize("shape", [(9, 5), (3, 9, 5), (2, 3, 9, 5)])
@pytest.mark.parametrize(("knots", "t_max"), [(17, 3.0), (9, 2.0), (33, 5.0), (2, 1.0)])
def test_equals_the_naive_reference_in_value_and_gradient(shape, knots, t_max):
    z, slices = (2 * gaussian(*shape) + 0.3).requires_grad_(), directions(5, 7)
    options = {"knots": knots, "t_max": t_max}
    values = sigreg(z, slices, **options), naive_leading(z, slices, **options)
    torch.testing.assert_close(*values, rtol=1e-10, atol=1e-10)
    gradients = [torch.autograd.grad(value, z)[0] for value in values]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


def test_float32_follows_the_reference():
    z, slices = (3 * gaussian(256, 16)).float().requires_grad_(), directions(16, 64)
    value, expected = sigreg(z, slices), naive(z, slices)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(expected.item(), rel=1e-4)
    gradients = [torch.autograd.grad(v, z)[0] for v in (value, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3 * gradients[1].abs().max().item())


def test_autocast_changes_nothing():
    z, slices = gaussian(64, 8).float(), directions(8, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = sigreg(z, slices)
    assert torch.equal(inside, sigreg(z, slices))


def test_gradcheck():
    z, slices = gaussian(6, 4).requires_grad_(), directions(4, 3)
    assert torch.autograd.gradcheck(lambda given: sigreg(given, slices), (z,))


@pytest.mark.parametrize("spread", [0.2, 1.0, 2.0])
def test_closed_form_of_one_slice(spread):
    """EP / N = sqrt(2 pi) [mean_ij exp(-(x_i - x_j)^2 / 2) - sqrt 2 mean_i exp(-x_i^2 / 4) + 1 / sqrt 3]."""
    x = spread * gaussian(40, 1) + 0.5
    pairs = torch.exp(-((x - x.T) ** 2) / 2).mean()
    closed = ROOT_2PI * (pairs - math.sqrt(2) * torch.exp(-(x**2) / 4).mean() + 1 / math.sqrt(3)).item()
    one = torch.ones(1, 1)
    assert sigreg(x, one, knots=65, t_max=8.0).item() == pytest.approx(closed, rel=1e-8)
    assert sigreg(x, one).item() == pytest.approx(closed, rel=0.02)  # the released grid ends at 3


def test_permutation_of_the_batch_changes_nothing():
    z, slices = gaussian(50, 6), directions(6, 9)
    shuffled = z[torch.randperm(50, generator=torch.Generator().manual_seed(1))]
    torch.testing.assert_close(sigreg(shuffled, slices), sigreg(z, slices), rtol=1e-12, atol=0)


def test_rotating_latents_and_directions_changes_nothing():
    z, slices = gaussian(50, 6) * torch.arange(1, 7), directions(6, 9)
    rotation = torch.linalg.qr(gaussian(6, 6, seed=2)).Q
    torch.testing.assert_close(sigreg(z @ rotation, rotation.T @ slices), sigreg(z, slices), rtol=1e-10, atol=0)


def test_rotating_latents_changes_nothing_in_expectation():
    z, many = gaussian(50, 3) * torch.tensor([0.2, 1.0, 3.0]), directions(3, 10_000)
    rotation = torch.linalg.qr(gaussian(3, 3, seed=2)).Q
    assert sigreg(z @ rotation, many).item() == pytest.approx(sigreg(z, many).item(), rel=0.03)


def test_gradient_step_pushes_a_nearly_collapsed_batch_apart():
    z, slices = (0.01 * gaussian(64, 8)).requires_grad_(), directions(8, 128)
    (gradient,) = torch.autograd.grad(sigreg(z, slices), z)
    moved = (z - 0.1 * gradient / gradient.abs().max()).detach()
    assert (moved.std(0) > 2 * z.std(0)).all()
    assert sigreg(moved, slices) < sigreg(z, slices)


def test_least_at_unit_scale_and_zero_mean():
    z, slices = gaussian(4000, 4), directions(4, 64)
    scales = torch.arange(0.5, 1.6, 0.05)
    assert scales[torch.stack([sigreg(s * z, slices) for s in scales]).argmin()].item() == pytest.approx(1.0)
    shifts = torch.arange(-0.5, 0.55, 0.1)
    assert shifts[torch.stack([sigreg(z + s, slices) for s in shifts]).argmin()].abs() < 1e-6


def test_leading_axes_are_tested_separately_and_averaged():
    """Two clusters at -1 and +1 look Gaussian when mixed with the rest; apart they do not."""
    z, slices = torch.stack([gaussian(30, 4) - 2, gaussian(30, 4, seed=1) + 2]), directions(4, 5)
    apart = (sigreg(z[0], slices) + sigreg(z[1], slices)) / 2
    torch.testing.assert_close(sigreg(z, slices), apart, rtol=1e-12, atol=0)
    assert (sigreg(z.flatten(0, 1), slices) - apart).abs() > 0.05


def test_directions_are_uniform_on_the_sphere():
    drawn = directions(3, 50_000)
    torch.testing.assert_close(drawn.norm(dim=0), torch.ones(50_000).double(), rtol=1e-6, atol=0)
    assert drawn.mean(1).abs().max() < 0.015
    assert (drawn @ drawn.T / 50_000 - torch.eye(3) / 3).abs().max() < 0.01
    assert torch.equal(drawn, directions(3, 50_000))
