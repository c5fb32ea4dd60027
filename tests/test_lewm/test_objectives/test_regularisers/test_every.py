"""What holds for every regulariser, those that are registered later included."""

import pytest
import torch

import lewm.objectives  # noqa: F401, registers them
from lewm import registry
from lewm.types import InputError

EVERY = registry.names("regulariser")
FEW = {"directions": {"name": "iid", "count": 7}}  # a slow check needs no more
SLICED = ("sigreg", "tc_sigreg", "rdmreg", "susreg", "visreg")
LENGTH_FREE = ("sphere_mmd", "sphere_ksd", "sphere_kl")  # they see directions only
EXACT_AT_ANY_BATCH_SIZE = ("sigreg", "exact_sigreg", "sub_jepa", "susreg", "tc_sigreg", "vicreg", "weak_sigreg")
HOLD_SCALE = ("sigreg", "exact_sigreg", "sub_jepa", "susreg", "visreg", "weak_sigreg", "spectral_floor")
ROTATION_FREE = ("exact_sigreg", "ksd", *LENGTH_FREE)


def settings(name):
    return (
        FEW if name in SLICED else {"directions": {"name": "subspaces", "count": 32}} if name == "sub_jepa" else {}
    )


def somewhere(make, *shape, seed=0):
    """Neither collapsed nor Gaussian, so that no hinge is off."""
    return 0.3 * make.gaussian(*shape, seed=seed) + 0.2


@pytest.mark.parametrize("name", EVERY)
def test_a_batch_of_one_row_is_finite_or_refused(name, make):
    """As micro-batches may be; over batch and time there always are several."""
    z = somewhere(make, 1, 3, 4)
    if name in ("ksd", "sphere_kl"):  # of pairs alone
        with pytest.raises(InputError, match=rf"{name} compares .* trainer.accumulate"):
            make.value(name, z)
    else:
        assert torch.isfinite(make.value(name, z, **settings(name)))
    if name != "none":
        assert torch.isfinite(make.value(name, z, axis="pooled", **settings(name)))


@pytest.mark.parametrize("name", sorted({*EVERY} - {"visreg"}))  # it stops a gradient on purpose
def test_gradcheck(name, make):
    z = somewhere(make, 6, 2, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda given: make.value(name, given, **settings(name)), (z,), fast_mode=True)


@pytest.mark.parametrize("name", sorted({*EVERY} - {"dysib"}))  # its noise is drawn row by row
def test_order_of_the_batch_does_not_matter(name, make):
    z = somewhere(make, 20, 3, 5)
    shuffled = z[torch.randperm(20, generator=torch.Generator().manual_seed(1))]
    values = [make.value(name, rows, **settings(name)) for rows in (z, shuffled)]
    torch.testing.assert_close(*values, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ROTATION_FREE)
def test_rotation_does_not_matter(name, make):
    z = somewhere(make, 20, 3, 5) * torch.arange(1, 6)
    rotation = torch.linalg.qr(make.gaussian(5, 5, seed=2)).Q
    torch.testing.assert_close(make.value(name, z @ rotation), make.value(name, z), rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", EVERY)
def test_two_processes_get_the_value_and_gradient_of_one(name, make):
    z = somewhere(make, 12, 3, 5)
    whole = z.clone().requires_grad_()
    expected = make.value(name, whole, **settings(name))
    (gradient,) = torch.autograd.grad(expected, whole)
    for mine in (slice(0, 6), slice(6, 12)):
        rows = z[mine].clone().requires_grad_()

        def gather(x, mine=mine):
            others = make.encode(z)
            everything = z if x.shape[-1] == z.shape[-1] else make.build(name).latents(others)
            return torch.cat([x, everything[6:]] if mine.start == 0 else [everything[:6], x])

        found = make.build(name, **settings(name))(make.encode(rows, gather=gather))
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)
        torch.testing.assert_close(torch.autograd.grad(found, rows)[0], gradient[mine], rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("name", EVERY)
def test_autocast_and_half_precision_are_computed_in_float32(name, make):
    z = somewhere(make, 16, 3, 5).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = make.value(name, z, **settings(name))
    assert inside.dtype == torch.float32
    if name != "dysib":  # its prediction is the predictor's business
        assert torch.equal(inside, make.value(name, z.float(), **settings(name)))


@pytest.mark.parametrize("name", EVERY)
def test_random_numbers_follow_the_generator_and_nothing_else(name, make):
    z = somewhere(make, 16, 3, 5)
    torch.manual_seed(0)
    first = make.value(name, z, **settings(name))
    torch.manual_seed(1)
    assert torch.equal(make.value(name, z, **settings(name)), first)


@pytest.mark.parametrize("point", [0.0, 1.0])
@pytest.mark.parametrize("name", EVERY)
def test_total_collapse_has_a_finite_gradient(name, point, make):
    z = torch.full((16, 3, 5), point).requires_grad_()
    found = make.value(name, z, **settings(name))
    assert torch.isfinite(found)
    assert torch.isfinite(torch.autograd.grad(found, z)[0]).all()


@pytest.mark.parametrize("name", sorted({*EVERY} - {"none"}))
def test_gradient_pushes_a_nearly_collapsed_batch_apart(name, make):
    """Latents that hardly differ, in a place where a law on the sphere has a direction, too."""
    frames = make.gaussian(64, 1, 8) + 0.1 * make.gaussian(64, 3, 8, seed=1)
    many = {"directions": {"name": "orthogonal", "count": 64}} if name in SLICED else {}
    z = (0.01 * frames + (1.0 if name in LENGTH_FREE else 0.0)).float().requires_grad_()
    (gradient,) = torch.autograd.grad(make.value(name, z, **many), z)
    moved = (z - 0.1 * gradient / gradient.abs().max()).detach()
    assert moved.flatten(0, 1).std(0).mean() > 1.5 * z.flatten(0, 1).std(0).mean()
    assert make.value(name, moved, **many) < make.value(name, z, **many)


@pytest.mark.parametrize("name", HOLD_SCALE)
def test_least_at_unit_scale(name, make):
    z, scales = make.gaussian(800, 1, 4), torch.arange(0.7, 1.35, 0.1)
    least = scales[torch.stack([make.value(name, scale * z) for scale in scales]).argmin()]
    assert least.item() == pytest.approx(1.0)


@pytest.mark.parametrize("name", LENGTH_FREE)
def test_laws_on_the_sphere_leave_the_length_to_the_link(name, make):
    z = somewhere(make, 20, 3, 5)
    torch.testing.assert_close(make.value(name, 7 * z), make.value(name, z), rtol=1e-10, atol=0)
    assert make.build(name).link == make.build("susreg").link == "sphere"


@pytest.mark.parametrize("name", EXACT_AT_ANY_BATCH_SIZE)
def test_the_weight_means_the_same_at_any_batch_size(name, make):
    z = somewhere(make, 12, 3, 5)
    values = [make.value(name, rows, **settings(name)) for rows in (z, z.repeat(4, 1, 1))]
    torch.testing.assert_close(*values, rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", sorted({*EVERY} - {"none"}))
def test_settings_that_make_no_sense_are_errors(name, make):
    for wrong in ({"weight": -1.0}, {"axis": "rows"}, {"centre": "mean"}, {"centre": "none", "constants": 0.1}):
        with pytest.raises(InputError):
            make.build(name, **wrong)
