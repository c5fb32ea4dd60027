"""Ridge probes against exact and impossible tasks."""

import pytest
import torch

from lewm.diagnosis import MLPProbe, RidgeProbe


def gaussian(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_recovers_a_linear_map_on_held_out_data():
    weight, offset = gaussian(6, 3, seed=1), torch.tensor([5.0, -2.0, 0.5])
    z, held_out = gaussian(200, 6) + 3, gaussian(50, 6, seed=2) + 3
    probe = RidgeProbe.fit(z, z @ weight + offset, strength=0.0)
    torch.testing.assert_close(probe.weight, weight, rtol=1e-9, atol=1e-9)
    target = held_out @ weight + offset
    torch.testing.assert_close(probe.predict(held_out), target, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(probe.r2(held_out, target), torch.ones(3).double(), rtol=0, atol=1e-12)


def test_noise_explains_nothing():
    z, held_out = gaussian(20_000, 4), gaussian(5_000, 4, seed=1)
    probe = RidgeProbe.fit(z, gaussian(20_000, 2, seed=2))
    assert probe.r2(held_out, gaussian(5_000, 2, seed=3)).abs().max() < 0.01


def test_half_signal_half_noise_explains_half():
    z, held_out = gaussian(20_000, 4), gaussian(20_000, 4, seed=1)
    probe = RidgeProbe.fit(z, z[:, :1] + gaussian(20_000, 1, seed=2))
    target = held_out[:, :1] + gaussian(20_000, 1, seed=3)
    assert probe.r2(held_out, target).item() == pytest.approx(0.5, abs=0.02)


def test_is_the_minimum_of_its_objective():
    z, target, strength = gaussian(40, 5), gaussian(40, 2, seed=1), 0.3
    probe = RidgeProbe.fit(z, target, strength)
    weight = probe.weight.clone().requires_grad_()
    error = (target - target.mean(0)) - (z - z.mean(0)) @ weight
    loss = error.square().sum() / 40 + strength * weight.square().sum()
    (gradient,) = torch.autograd.grad(loss, weight)
    assert gradient.abs().max() < 1e-12


def test_more_dimensions_than_data_are_fine():
    z, target = gaussian(10, 50), gaussian(10, 1, seed=1)
    assert RidgeProbe.fit(z, target).r2(z, target).item() > 0.99


def test_float32_latents_are_probed_in_float64():
    z = gaussian(100, 3).float()
    probe = RidgeProbe.fit(z, z @ torch.eye(3), strength=0.0)
    assert probe.predict(z).dtype == torch.float64
    torch.testing.assert_close(probe.predict(z), z.double(), rtol=1e-9, atol=1e-9)


def test_a_constant_target_has_nothing_to_explain():
    """Exactly constant, constant to rounding, and not constant at all."""
    z = gaussian(300, 2)
    target = torch.stack([torch.full((300,), 0.1).double(), 3 + 1e-15 * gaussian(300, seed=1), z[:, 0]], 1)
    r2 = RidgeProbe.fit(z, target).r2(z, target)
    assert r2.isnan().tolist() == [True, True, False] and r2[2] > 0.99


def test_a_network_reads_what_a_line_cannot():
    z, held_out = gaussian(1500, 4), gaussian(500, 4, seed=1)
    target, target_held = 9 + 5 * z[:, :2].square(), 9 + 5 * held_out[:, :2].square()
    assert RidgeProbe.fit(z, target).r2(held_out, target_held).max() < 0.1
    assert MLPProbe.fit(z, target, hidden=32, steps=300).r2(held_out, target_held).min() > 0.9


def test_a_network_probe_is_a_function_of_data_and_seed():
    z = gaussian(60, 3)
    with torch.no_grad():
        first = MLPProbe.fit(z, z[:, :1], hidden=8, steps=5).predict(z)
        torch.rand(1)
        assert torch.equal(first, MLPProbe.fit(z, z[:, :1], hidden=8, steps=5).predict(z))
        assert not torch.equal(first, MLPProbe.fit(z, z[:, :1], hidden=8, steps=5, seed=1).predict(z))


def test_a_network_finds_nothing_in_noise():
    z, held_out = gaussian(2000, 4), gaussian(1000, 4, seed=1)
    probe = MLPProbe.fit(z, gaussian(2000, 1, seed=2), hidden=8, steps=100)
    assert probe.r2(held_out, gaussian(1000, 1, seed=3)).abs().max() < 0.1
