"""Which latents are compared with each other, and what is taken off them."""

import pytest
import torch


def apart(make):
    """Two frames that are Gaussian together and not each for itself."""
    return torch.stack([make.gaussian(30, 4) - 2, make.gaussian(30, 4, seed=1) + 2], dim=1)


def test_axes_are_a_loop_over_times_all_at_once_or_a_loop_over_windows(make):
    z = apart(make)
    loops = {
        "batch": [z[:, t, None] for t in range(2)],
        "pooled": [z.flatten(0, 1)[:, None]],
        "time": [row[:, None] for row in z],
    }
    found = {axis: make.value("sigreg", z, axis=axis) for axis in loops}
    for axis, groups in loops.items():
        expected = torch.stack([make.value("sigreg", group) for group in groups]).mean()
        torch.testing.assert_close(found[axis], expected, rtol=1e-12, atol=0)
    assert (found["batch"] - found["pooled"]).abs() > 0.05


def test_centres(make):
    z = apart(make)
    for centre, mean in (("batch", z.mean(0, keepdim=True)), ("window", z.mean(1, keepdim=True))):
        centred = make.value("sigreg", z, centre=centre)
        torch.testing.assert_close(centred, make.value("sigreg", z - mean), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("constants", "spread"), [(0.0, False), (0.1, True)])
def test_what_is_constant_in_a_window_spreads_only_if_it_is_asked_to(constants, spread, make):
    """Residuals are fine, constants nearly collapsed: TC-SIGReg alone leaves them there."""
    residuals = make.gaussian(64, 4, 6)
    residuals = (residuals - residuals.mean(1, keepdim=True)) * (4 / 3) ** 0.5
    constant = (0.05 * make.gaussian(64, 1, 6, seed=1)).requires_grad_()
    found = make.value("tc_sigreg", residuals + constant, constants=constants)
    (gradient,) = torch.autograd.grad(found, constant)
    outwards = -(gradient * constant).sum()
    assert (outwards > 1e-4) == spread
    assert spread or gradient.abs().max() < 1e-12


def test_a_marginal_test_would_make_constants_collapse(make):
    """Why `constants` is about windows' means: with all of the variance in the residuals, latents look too wide."""
    residuals = make.gaussian(256, 4, 6)
    residuals = (residuals - residuals.mean(1, keepdim=True)) * (4 / 3) ** 0.5
    constant = (0.5 * make.gaussian(256, 1, 6, seed=1)).requires_grad_()
    (gradient,) = torch.autograd.grad(make.value("sigreg", residuals + constant), constant)
    assert (gradient * constant).sum() > 0


def test_none_costs_nothing(make):
    none = make.build("none")
    assert none.weight == 0
    assert none(make.encode(make.gaussian(5, 3, 4))) == 0
