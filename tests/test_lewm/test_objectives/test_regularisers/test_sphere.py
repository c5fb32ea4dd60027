"""Uniformity on the sphere: closed values at a point mass and at the uniform law, and a grid of kernels."""

import itertools
import math

import pytest
import torch

from lewm.objectives.regularisers.sphere import band, heat
from lewm.types import InputError

CASES = [*itertools.product(("mmd", "ksd"), ("heat", "band")), ("kl", "heat")]


def spread(make, rows, dim):
    return make.gaussian(rows, 1, dim)  # of directions that are uniform


@pytest.mark.parametrize(("distance", "kernel"), CASES)
@pytest.mark.parametrize("dim", [3, 24])
def test_one_at_a_point_mass_and_near_zero_when_uniform(distance, kernel, dim, make):
    options = {"distance": distance, "kernel": kernel}
    point = make.gaussian(1, 1, dim).expand(50, 1, dim)
    assert make.value("sphere_mmd", point, **options).item() == pytest.approx(1.0, abs=1e-9)
    uniform = make.value("sphere_mmd", spread(make, 400, dim), **options).item()
    expected = 0 if distance == "kl" else 1 / 400  # pairs i = j are kept in the others
    assert uniform == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("dim", [3, 24])
def test_slopes_are_those_of_the_kernels(dim):
    c = torch.linspace(-1, 1, 21, dtype=torch.float64).requires_grad_()
    for zonal in (heat(c, 1.7), band(c, dim)):
        (slope,) = torch.autograd.grad(zonal.value.sum(), c, create_graph=True)
        torch.testing.assert_close(slope, zonal.slope, rtol=1e-9, atol=1e-9)
        (curvature,) = torch.autograd.grad(slope.sum(), c, retain_graph=True)
        torch.testing.assert_close(curvature, zonal.curvature, rtol=1e-9, atol=1e-9)
    assert zonal.value[-1].item() == pytest.approx(1.0)


def test_the_circle_has_the_mean_that_a_sum_over_angles_gives(make):
    """In the plane the mean of the kernel is that over equal angles: their value is then 0."""
    angle = torch.arange(64, dtype=torch.float64) * 2 * math.pi / 64
    ring = torch.stack([angle.cos(), angle.sin()], -1)[:, None]
    for distance, kernel in (("mmd", "heat"), ("mmd", "band"), ("ksd", "heat"), ("ksd", "band")):
        assert make.value("sphere_mmd", ring, distance=distance, kernel=kernel).abs() < 1e-9


def test_band_limited_mmd_is_blind_to_what_mean_and_covariance_do_not_show(make):
    """The corners of a cross have the moments of the sphere; a sharp kernel sees that they are eight points."""
    corners = torch.cat([torch.eye(4), -torch.eye(4)]).double()[:, None]
    assert make.value("sphere_mmd", corners, kernel="band").abs() < 1e-9
    assert make.value("sphere_mmd", corners, kernel="heat", time=0.5) > 0.02


def test_kl_in_many_dimensions_does_not_underflow_in_float32(make):
    z = spread(make, 32, 2048)
    single = make.value("sphere_kl", z.float()).item()
    assert single == pytest.approx(make.value("sphere_kl", z).item(), abs=1e-4)


def test_a_kernel_that_is_negative_has_no_logarithm(make):
    with pytest.raises(InputError, match="not both kl and band"):
        make.build("sphere_mmd", distance="kl", kernel="band")
