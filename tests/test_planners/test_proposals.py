"""Where candidates come from: variance, spectrum, interpolation, frequencies, and what a draw depends on."""

import math

import pytest
import torch
from scipy import stats

from planners import (
    PROPOSALS,
    Categorical,
    Coloured,
    InputError,
    Kernel,
    Limits,
    PowerLaw,
    Proposal,
    Spline,
    White,
    noise,
)

HORIZONS = (1, 2, 3, 5, 8, 40)
GAUSSIAN = {
    "white": White(),
    "coloured 0": Coloured(correlation=0.0),
    "coloured 0.9": Coloured(correlation=0.9),
    "power law 0": PowerLaw(beta=0.0),
    "power law 1.5": PowerLaw(beta=1.5),
    "power law 3": PowerLaw(beta=3.0),
    "spline 0": Spline(knots=4, order=0),
    "spline 1": Spline(knots=4, order=1),
    "spline 3": Spline(knots=5, order=3),
    "spline of two": Spline(knots=2, order=3),
    "kernel short": Kernel(length=0.5),
    "kernel long": Kernel(length=30.0),
}
gaussian = pytest.mark.parametrize("proposal", GAUSSIAN.values(), ids=GAUSSIAN.keys())
EVERY = GAUSSIAN | {"categorical": Categorical(), "categorical in groups": Categorical(groups=(2, 3))}


def draw(proposal, horizon, dim, key_B, samples, mean=0.0, std=1.0):
    shape = (len(key_B), horizon, dim)
    basis = proposal.basis(horizon)
    return proposal.draw(torch.full(shape, mean), torch.full(shape, std), basis, key_B, samples)


@gaussian
def test_variance_is_one_at_every_step(proposal):
    for horizon in HORIZONS:
        basis = proposal.basis(horizon)
        assert basis.shape[0] == horizon
        assert basis.dtype == torch.float32
        torch.testing.assert_close(basis.norm(dim=1), torch.ones(horizon), rtol=0, atol=1e-6)


@gaussian
def test_draws_have_the_covariance_of_the_basis(proposal):
    horizon, count = 6, 40_000
    drawn = draw(proposal, horizon, 1, noise.keys(torch.tensor([0])), count)[0, :, :, 0].double()
    basis = proposal.basis(horizon).double()
    covariance = drawn.T @ drawn / count
    assert (covariance - basis @ basis.T).abs().max() < 6 * math.sqrt(2 / count)
    assert drawn.mean(0).abs().max() < 6 / math.sqrt(count)


def test_mean_and_std_are_per_row_step_and_dimension():
    mean = torch.arange(12.0).view(2, 3, 2)
    std = 0.1 + mean / 10
    drawn = Coloured().draw(mean, std, Coloured().basis(3), noise.keys(torch.arange(2)), 20_000)
    assert drawn.shape == (2, 20_000, 3, 2)
    torch.testing.assert_close(drawn.mean(1) / std, mean / std, rtol=0, atol=6 / math.sqrt(20_000))
    torch.testing.assert_close(drawn.std(1) / std, torch.ones_like(std), rtol=0.05, atol=0)


def test_action_dimensions_and_rows_are_independent():
    drawn = draw(Coloured(correlation=0.7), 3, 2, noise.keys(torch.arange(2)), 40_000)
    flat = drawn[:, :, 1].permute(1, 0, 2).flatten(1).double()  # (sample, row x dim) of one step
    assert (flat.T @ flat / len(flat) - torch.eye(4)).abs().max() < 0.03


@pytest.mark.parametrize("correlation", [0.0, 0.4, 0.7, 0.95])
def test_coloured_has_the_stated_autocorrelation(correlation):
    basis = Coloured(correlation=correlation).basis(12).double()
    steps = torch.arange(12, dtype=torch.float64)
    torch.testing.assert_close(basis @ basis.T, correlation ** (steps[:, None] - steps).abs(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("length", [0.5, 2.0, 10.0])
def test_kernel_has_the_stated_covariance(length):
    basis = Kernel(length=length).basis(12).double()
    steps = torch.arange(12, dtype=torch.float64)
    expected = torch.exp(-0.5 * ((steps[:, None] - steps) / length) ** 2)
    torch.testing.assert_close(basis @ basis.T, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("horizon", [2, 3, 5, 8, 40])
@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0, 3.5])
def test_power_law_has_the_stated_spectrum(horizon, beta):
    """The expected periodogram E |sum_t x_t exp(-2 pi i k t / H)|^2 is exact: f* C f, with C = basis basis^T."""
    basis = PowerLaw(beta=beta).basis(horizon).double()
    waves = torch.fft.rfft(torch.eye(horizon, dtype=torch.float64), dim=0)
    power = (waves @ basis.to(waves.dtype)).abs().square().sum(1)
    frequency = torch.arange(len(power), dtype=torch.float64).clamp(min=1)
    torch.testing.assert_close(power / power[0], frequency**-beta, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("horizon", HORIZONS)
def test_power_law_without_colour_is_white(horizon):
    basis = PowerLaw(beta=0.0).basis(horizon)
    torch.testing.assert_close(basis @ basis.T, torch.eye(horizon), rtol=0, atol=1e-6)


def interpolation(spline, horizon):
    """The basis before it was scaled to variance one: interpolation weights sum to one."""
    basis = spline.basis(horizon).double()
    return basis / basis.sum(1, keepdim=True)


def test_spline_of_order_zero_is_piecewise_constant():
    weights = interpolation(Spline(knots=3, order=0), 12)
    assert torch.equal(weights, torch.eye(3, dtype=torch.float64).repeat_interleave(4, dim=0))


@pytest.mark.parametrize("order", [1, 3])
def test_spline_passes_through_its_knots(order):
    weights = interpolation(Spline(knots=5, order=order), 13)  # a knot at every third step
    torch.testing.assert_close(weights[::3], torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-6)


def test_spline_of_order_one_is_linear_between_knots():
    values = torch.tensor([0.0, 4.0, -2.0, 1.0], dtype=torch.float64)
    got = interpolation(Spline(knots=4, order=1), 13) @ values
    expected = torch.tensor([0, 1, 2, 3, 4, 2.5, 1, -0.5, -2, -1.25, -0.5, 0.25, 1], dtype=torch.float64)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    reference = torch.nn.functional.interpolate(values[None, None], 13, mode="linear", align_corners=True)
    torch.testing.assert_close(got, reference[0, 0], rtol=0, atol=1e-5)


def test_cubic_spline_reproduces_a_linear_and_a_quadratic_function():
    """Catmull-Rom is exact for both where all four knots are there, which is not so in the outer segments."""
    knots, horizon = 7, 31
    place, at = torch.linspace(0, 6, horizon, dtype=torch.float64), torch.arange(knots, dtype=torch.float64)
    inside = (place >= 1) & (place <= 5)
    weights = interpolation(Spline(knots=knots, order=3), horizon)
    for function in (lambda x: 2 * x - 3, lambda x: (x - 2) ** 2):
        torch.testing.assert_close((weights @ function(at))[inside], function(place)[inside], rtol=0, atol=1e-5)


def test_cubic_spline_is_smooth():
    """A jump of the slope would show as a second difference that does not shrink with the step."""
    knots = torch.tensor([0.0, 1.0, -1.0, 2.0, 0.5], dtype=torch.float64)
    kinks = []
    for order in (1, 3):
        curve = interpolation(Spline(knots=5, order=order), 401) @ knots
        kinks.append(curve.diff(n=2).abs().max() * 100)  # times steps per knot: the jump of the slope
    assert kinks[0] > 2.9
    assert kinks[1] < 0.2


@pytest.mark.parametrize("groups", [(), (2, 4), (3, 3)])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_categories_are_drawn_with_their_probabilities(groups, smoothing):
    sizes, samples = groups or (6,), 6_000
    generator = torch.Generator().manual_seed(1)
    parts = [torch.softmax(1.5 * torch.randn(2, 3, size, generator=generator), -1) for size in sizes]
    mean = torch.cat(parts, -1)
    proposal = Categorical(groups=groups, smoothing=smoothing)
    drawn = proposal.draw(mean, torch.ones_like(mean), proposal.basis(3), noise.keys(torch.arange(2)), samples)
    assert ((drawn == 0) | (drawn == 1)).all()
    for part, probabilities in zip(drawn.split(sizes, -1), parts, strict=True):
        assert (part.sum(-1) == 1).all()  # one choice per group
        expected = samples * ((1 - smoothing) * probabilities + smoothing / part.shape[-1])
        counts = part.sum(1)
        for row in range(2):
            for step in range(3):
                want = expected[row, step].double()
                p = stats.chisquare(counts[row, step].double(), want * samples / want.sum()).pvalue
                assert p > 1e-4


def test_groups_choose_independently():
    proposal, mean = Categorical(groups=(2, 2)), torch.full((1, 1, 4), 0.5)
    drawn = proposal.draw(mean, mean, proposal.basis(1), noise.keys(torch.tensor([3])), 20_000)[0, :, 0]
    assert abs((drawn[:, 0] * drawn[:, 2]).mean().item() - 0.25) < 6 * math.sqrt(0.25 * 0.75 / 20_000)


def test_categories_rest_is_uniform_and_their_centre_is_the_most_probable():
    limits = Limits.of(Limits(low=[0.0] * 5, high=[1.0] * 5))
    torch.testing.assert_close(Categorical().rest(limits), torch.full((5,), 0.2))
    grouped = Categorical(groups=(2, 3))
    torch.testing.assert_close(grouped.rest(limits), torch.tensor([1 / 2] * 2 + [1 / 3] * 3))
    mean = torch.tensor([[0.4, 0.6, 0.5, 0.2, 0.3]])
    assert grouped.centre(mean).tolist() == [[0, 1, 1, 0, 0]]
    with pytest.raises(InputError, match="make 4 numbers, the action has 5"):
        Categorical(groups=(2, 2)).rest(limits)


def test_gaussian_rest_is_no_action_or_the_nearest_to_it():
    limits = Limits.of(Limits(low=[-1.0, 0.5, -3.0], high=[1.0, 2.0, -1.0]))
    assert Proposal().rest(limits).tolist() == [0.0, 0.5, -1.0]


@pytest.mark.parametrize("proposal", EVERY.values(), ids=EVERY.keys())
@pytest.mark.parametrize("dim", [1, 3, 5])
def test_row_is_the_same_bits_alone_and_in_any_batch(proposal, dim):
    """Rows of odd sizes begin at addresses of any alignment, which a product of matrices can tell."""
    dim, generator = 5 if isinstance(proposal, Categorical) else dim, torch.Generator().manual_seed(2)
    for samples, horizon in ((1, 1), (7, 5), (9, 5), (21, 7), (33, 25), (128, 40)):
        mean = torch.rand(17, horizon, dim, generator=generator) + 0.1
        std, basis, keys = mean.flip(0), proposal.basis(horizon), noise.keys(torch.arange(17), 1)
        for count in (1, 2, 3, 5, 8, 17) if samples < 100 else (2, 5):
            together = proposal.draw(mean[:count], std[:count], basis, keys[:count], samples)
            for row in {0, count // 2, count - 1}:
                one = slice(row, row + 1)
                alone = proposal.draw(mean[one], std[one], basis, keys[one], samples)
                assert torch.equal(together[one], alone), (samples, horizon, count, row)


@pytest.mark.parametrize("name", PROPOSALS)
def test_draw_is_a_function_of_its_key(name):
    proposal = PROPOSALS[name]()
    before = torch.get_rng_state()
    one, again, other = (
        draw(proposal, 6, 3, noise.keys(torch.tensor([k])), 20, mean=1 / 3, std=0.5) for k in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("proposal", "options"),
    [
        (Coloured, {"correlation": 1.0}),
        (Coloured, {"correlation": -0.1}),
        (PowerLaw, {"beta": -1.0}),
        (Spline, {"knots": 1}),
        (Spline, {"order": 2}),
        (Kernel, {"length": 0.0}),
        (Categorical, {"smoothing": 1.0}),
        (Categorical, {"groups": (1, 3)}),
    ],
    ids=str,
)
def test_impossible_options_are_errors(proposal, options):
    with pytest.raises(InputError):
        proposal(**options)
