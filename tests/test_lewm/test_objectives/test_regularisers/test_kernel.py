"""Slice-free forms against many slices, scipy and autograd."""

import pytest
import torch
from scipy.special import hyp1f1

from lewm.objectives.regularisers.kernel import kummer, squared_distances


@pytest.mark.parametrize("dim", [4, 6, 17, 192, 1024])
def test_kummer_is_1f1_in_value_and_slope(dim):
    s = torch.cat([torch.zeros(1), torch.logspace(-3, 2, 40)]).double().requires_grad_()
    value = kummer(s, dim)
    (slope,) = torch.autograd.grad(value.sum(), s)
    points = s.detach().numpy()
    expected = torch.from_numpy(hyp1f1(0.5, dim / 2, -points))
    torch.testing.assert_close(value.detach(), expected, rtol=0, atol=1e-8)
    expected = torch.from_numpy(-hyp1f1(1.5, dim / 2 + 1, -points) / dim)
    torch.testing.assert_close(slope, expected, rtol=0, atol=3e-6 / dim)
    torch.testing.assert_close(kummer(s.float(), dim).double(), value, rtol=0, atol=3e-7)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_kummer_is_good_enough_in_few_dimensions(dim):
    s = torch.logspace(-3, 2, 40).double()
    expected = torch.from_numpy(hyp1f1(0.5, dim / 2, -s.numpy()))
    torch.testing.assert_close(kummer(s, dim), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("dim", "rank"), [(3, 3), (16, 16), (16, 4)])
def test_exact_form_is_the_mean_of_16k_slices(dim, rank, make):
    z = (make.gaussian(24, 1, rank) @ make.gaussian(rank, dim, seed=1) / rank**0.5).requires_grad_()
    fine = {"name": "epps_pulley", "knots": 33, "t_max": 6.0}
    many = {"name": "orthogonal", "count": 16_384}
    values = make.value("exact_sigreg", z), make.value("sigreg", z, statistic=fine, directions=many)
    torch.testing.assert_close(*values, rtol=0.01, atol=0)
    exact, sliced = (torch.autograd.grad(v, z)[0].flatten() for v in values)
    assert torch.cosine_similarity(exact, sliced, dim=0) > 0.995
    assert exact.norm().item() == pytest.approx(sliced.norm().item(), rel=0.02)


def test_inverse_multiquadric_is_its_limit_for_many_dimensions(make):
    off = {}
    for dim in (16, 256):
        z = make.gaussian(32, 1, dim).requires_grad_()
        values = [make.value("exact_sigreg", z, form=form) for form in ("kummer", "imq")]
        exact, limit = (torch.autograd.grad(v, z)[0].flatten() for v in values)
        off[dim] = 1 - torch.cosine_similarity(exact, limit, dim=0).item()
    assert off[256] < off[16] / 10 < 0.001


def test_exact_subspaces_are_the_mean_of_sub_jepas(make):
    z = make.gaussian(24, 1, 12) * torch.linspace(0.3, 1.7, 12)
    exact = make.value("exact_sigreg", z, subspaces=4, seed=3)
    many = {"name": "subspaces", "count": 8192, "subspaces": 4, "seed": 3}
    fine = {"name": "epps_pulley", "knots": 33, "t_max": 6.0}
    torch.testing.assert_close(exact, make.value("sigreg", z, statistic=fine, directions=many), rtol=0.02, atol=0)
    assert (exact - make.value("exact_sigreg", z)).abs() > 0.02 * exact


@pytest.mark.parametrize("scale", [1e-3, 1.0])
def test_float32_far_from_the_origin_near_collapse(scale, make):
    """The distances are a millionth of the lengths: without centring float32 would have no digit of them."""
    z = 3 + scale * make.gaussian(32, 1, 16)
    found, expected = (
        torch.autograd.grad(make.value("exact_sigreg", leaf), leaf)[0].double()
        for leaf in (z.float().requires_grad_(), z.float().double().requires_grad_())
    )
    apart, apart_expected = (g - g.mean(0) for g in (found, expected))  # what separates, not what moves all
    torch.testing.assert_close(apart, apart_expected, rtol=0, atol=0.01 * apart_expected.abs().max().item())
    near = squared_distances(z.float()[:, 0][None], z.float()[:, 0][None])[0]
    torch.testing.assert_close(near.double(), torch.cdist(z[:, 0], z[:, 0]) ** 2, rtol=0.01, atol=1e-4 * scale**2)


def test_kernel_stein_is_the_stein_operator_of_its_kernel(make):
    """tr d2k/dxdy + s(x) . dk/dy + s(y) . dk/dx + s(x) . s(y) k with s(x) = -x, by autograd."""
    z = make.gaussian(5, 3)

    def stein(x, y):
        x, y = x.clone().requires_grad_(), y.clone().requires_grad_()
        kernel = (1 + (x - y).square().sum() / 3) ** -0.5
        by_x, by_y = torch.autograd.grad(kernel, (x, y), create_graph=True)
        mixed = sum(torch.autograd.grad(by_x[d], y, retain_graph=True)[0][d] for d in range(3))
        return (mixed - x @ by_y - y @ by_x + x @ y * kernel).detach()

    expected = torch.stack([stein(z[i], z[j]) for i in range(5) for j in range(5) if i != j]).mean()
    torch.testing.assert_close(make.value("ksd", z[:, None]), expected, rtol=1e-10, atol=0)


def test_kernel_stein_holds_scale_near_one(make):
    z, scales = make.gaussian(128, 1, 64), torch.arange(0.5, 1.5, 0.05)
    least = scales[torch.stack([make.value("ksd", s * z) for s in scales]).argmin()]
    assert 0.8 < least < 1.05
