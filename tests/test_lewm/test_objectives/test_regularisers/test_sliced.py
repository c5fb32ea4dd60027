"""Points of the grammar: what a name stands for, VISReg's three parts, and targets that are sampled."""

import math

import pytest
import torch

from lewm.objectives.regularisers import Gaussian, Rectified
from lewm.types import InputError


def test_published_names_are_settings_of_the_same_parts(make):
    z = 0.5 * make.gaussian(32, 3, 8)
    parts = {"directions": {"name": "subspaces", "count": 256}}
    assert torch.equal(make.value("sub_jepa", z), make.value("sigreg", z, **parts))
    parts = {"axis": "pooled", "centre": "window", "constants": 0.1}
    assert torch.equal(make.value("tc_sigreg", z), make.value("sigreg", z, **parts))
    parts = {"statistic": "wasserstein", "target": "rectified"}
    assert torch.equal(make.value("rdmreg", z), make.value("sigreg", z, **parts))
    assert make.build("rdmreg").link == "rectified"


@pytest.mark.parametrize("statistic", ["epps_pulley", "wasserstein", "moments"])
def test_statistics_see_anisotropy_through_slices(statistic, make):
    z = make.gaussian(512, 1, 4)
    thin = z * torch.tensor([0.2, 1.0, 1.0, 1.0])
    assert make.value("sigreg", thin, statistic=statistic) > 3 * make.value("sigreg", z, statistic=statistic)


def test_visreg_is_the_sum_of_its_parts_by_hand(make):
    z = (2 * make.gaussian(50, 1, 4) + 0.5).requires_grad_()
    mean, sigma = z.mean(0), z.std(0, correction=0)
    white = (z - mean) / sigma.detach()
    shape = make.value("sigreg", white, statistic="wasserstein")
    values = make.value("visreg", z, shape=3.0), mean.square().mean() + (1 - sigma).square().mean() + 3 * shape
    torch.testing.assert_close(*values, rtol=1e-10, atol=0)
    gradients = [torch.autograd.grad(value, z)[0] for value in values]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-10)


def test_visregs_gradient_grows_near_collapse_and_is_bounded(make):
    def pull(scale, name):
        z = (scale * make.gaussian(64, 1, 8)).requires_grad_()
        (gradient,) = torch.autograd.grad(make.value(name, z), z)
        return gradient.norm().item()

    assert pull(1e-4, "sigreg") < 1e-2 * pull(1.0, "sigreg")  # what it is for
    assert pull(1e-2, "visreg") > 3 * pull(1.0, "visreg")
    assert pull(1e-6, "visreg") == pytest.approx(pull(1e-4, "visreg"), rel=0.1)


@pytest.mark.parametrize("exponent", [1.0, 2.0, 0.5])
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_rectified_target_has_the_mean_and_share_of_zeros_of_its_law(exponent, shift):
    """Against a sum over the density exp(-|x / s|^p) of unit variance."""
    sample = Rectified(exponent=exponent, shift=shift).sample((400, 500), torch.Generator().manual_seed(0))
    scale = math.exp((math.lgamma(1 / exponent) - math.lgamma(3 / exponent)) / 2)
    x = torch.linspace(-60, 60, 240_001, dtype=torch.float64)
    density = torch.exp(-((x.abs() / scale) ** exponent))
    density /= density.sum()
    assert (density * x**2).sum().item() == pytest.approx(1.0, rel=0.01)
    assert sample.mean().item() == pytest.approx((density * torch.relu(x + shift)).sum().item(), rel=0.02)
    assert (sample == 0).double().mean().item() == pytest.approx(density[x <= -shift].sum().item(), abs=0.005)


def test_rdmreg_is_least_on_its_own_law(make):
    law = Rectified()
    z = law.sample((600, 1, 4), torch.Generator().manual_seed(1)).double()
    own = make.value("rdmreg", z)
    for other in (0.7 * z, 1.3 * z, z + 0.3, make.gaussian(600, 1, 4)):
        assert make.value("rdmreg", other) > own


def test_targets_say_what_they_are():
    assert Gaussian().sample((3, 2), torch.Generator()) is None
    with pytest.raises(InputError, match="exponent above 0"):
        Rectified(exponent=0.0)


def test_a_sampled_target_needs_a_statistic_of_two_samples(make):
    with pytest.raises(InputError, match="statistic=wasserstein"):
        make.value("sigreg", make.gaussian(8, 2, 3), target="rectified")
