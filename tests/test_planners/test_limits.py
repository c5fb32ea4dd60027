"""Limits: bounds, rate and acceleration, and which goes first."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from planners import InputError, Limits

SHARE = st.one_of(st.none(), st.floats(0.01, 3.0))  # of the span


@st.composite
def problems(draw):
    """Limits, raw actions that ask for anything, and a past that is itself within the limits."""
    dim = draw(st.integers(1, 2))
    span = torch.tensor([draw(st.floats(0.01, 50.0)) for _ in range(dim)])
    low = torch.tensor([draw(st.floats(-20.0, 20.0)) for _ in range(dim)])
    shares = {name: draw(SHARE) for name in ("rate", "acceleration")}
    extra = {name: None if share is None else share * span for name, share in shares.items()}
    limits = Limits.of(Limits(low=low, high=low + span, **extra))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    asked = torch.rand(2, 3, draw(st.integers(1, 14)), dim, generator=generator) * 5 - 2
    switching = draw(st.booleans())  # bang-bang is the hardest to follow
    asked = limits.low + span * (asked.round() if switching else asked)
    before = limits.low + span * torch.rand(2, 1, dim, generator=generator)
    run_up = limits.low + span * (torch.rand(2, 1, 6, dim, generator=generator) * 5 - 2)
    past = limits.project(run_up, before.expand(-1, 2, -1))[:, 0, -2:]
    return limits, asked, past, span


def differences(actions, past):
    """Changes (B, S, H, A), and changes of changes, from the past on."""
    whole = torch.cat([past[:, None].expand(-1, actions.shape[1], -1, -1), actions], dim=2)
    return whole.diff(dim=2)[:, :, 1:], whole.diff(n=2, dim=2)


@settings(max_examples=150, deadline=None)
@given(problems())
def test_all_limits_hold_from_a_past_that_keeps_them(problem):
    limits, asked, past, span = problem
    kept = limits.project(asked, past)
    assert (kept >= limits.low).all()
    assert (kept <= limits.high).all()
    rounding = 1e-5 * span + 1e-6 * limits.low.abs()
    for difference, most in zip(differences(kept, past), (limits.rate, limits.acceleration), strict=True):
        if most is not None:
            assert (difference.abs() <= most + rounding).all()


@settings(max_examples=100, deadline=None)
@given(problems())
def test_what_keeps_the_limits_is_left_alone(problem):
    limits, asked, past, span = problem
    kept = limits.project(asked, past)
    again = limits.project(kept, past)
    assert ((again - kept).abs() <= 1e-4 * span + 1e-5 * limits.low.abs()).all()


def test_an_admissible_sequence_keeps_its_bits():
    limits = Limits.of(Limits(low=[-2.0], high=[2.0], rate=[0.5], acceleration=[0.25]))
    sequence = torch.tensor([0.25, 0.75, 1.0, 1.0, 0.75, 0.25, -0.25, -0.5]).view(1, 1, -1, 1)
    assert torch.equal(limits.project(sequence, torch.zeros(1, 2, 1)), sequence)


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({}, [6, 6, 6, 6, 6, 6]),
        ({"rate": [2.5]}, [2.5, 5, 6, 6, 6, 6]),
        ({"acceleration": [1.0]}, [1, 3, 5, 6, 6, 6]),  # 1, 3, 6 would run into the bound at speed 3
        ({"acceleration": [1.0], "rate": [1.5]}, [1, 2.5, 4, 5.5, 6, 6]),
        ({"acceleration": [100.0]}, [6, 6, 6, 6, 6, 6]),
    ],
)
def test_fastest_way_to_the_bound(extra, expected):
    limits = Limits.of(Limits(low=[-6.0], high=[6.0], **extra))
    for sign in (1, -1):
        path = limits.project(torch.full((1, 1, 6, 1), sign * 1e3), torch.zeros(1, 2, 1))
        torch.testing.assert_close(path[0, 0, :, 0], sign * torch.tensor(expected).float())


@pytest.mark.parametrize(
    ("past", "asked", "expected"),
    [
        ([0.0, 3.0], 3.0, 1.0),  # outside the bounds: bounds before rate (0.2) and acceleration (0.1)
        ([0.0, 1.0], 9.0, 1.0),  # at the bound at speed 1: bounds before acceleration
        ([-0.9, 0.1], 0.8, 0.3),  # at speed 1, faster than allowed: rate before acceleration
        ([0.9, -0.1], 0.8, -0.3),
    ],
)
def test_bounds_go_before_rate_and_rate_before_acceleration(past, asked, expected):
    limits = Limits.of(Limits(low=[-1.0], high=[1.0], rate=[0.2], acceleration=[0.1]))
    kept = limits.project(torch.full((1, 1, 1, 1), asked), torch.tensor(past).view(1, 2, 1))
    torch.testing.assert_close(kept.item(), expected)


@pytest.mark.parametrize("extra", [{}, {"rate": [0.3, 0.1]}, {"rate": [0.3, 0.1], "acceleration": [0.2, 0.2]}])
def test_rows_and_candidates_are_projected_each_alone(extra):
    limits = Limits.of(Limits(low=[-1.0, 0.0], high=[1.0, 0.5], **extra))
    generator = torch.Generator().manual_seed(0)
    asked, past = torch.randn(5, 7, 9, 2, generator=generator), torch.rand(5, 2, 2, generator=generator) / 2
    together = limits.project(asked, past)
    for row, sample in ((0, 0), (3, 6), (4, 2)):
        alone = limits.project(asked[row : row + 1, sample : sample + 1], past[row : row + 1])
        assert torch.equal(together[row, sample], alone[0, 0])


def test_tensors_and_defaults():
    limits = Limits.of(SimpleNamespace(low=[-1, 0], high=[1.0, 8.0], std=None))
    assert limits.std.tolist() == [0.5, 2.0]
    assert limits.low.dtype == limits.high.dtype == torch.float32
    assert limits.rate is None
    assert limits.acceleration is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"low": [1.0]},
        {"high": [torch.inf]},
        {"low": [torch.nan]},
        {"high": [1.0, 2.0]},
        {"std": [0.0]},
        {"std": [1.0, 1.0]},
        {"rate": [-1.0]},
        {"rate": [torch.nan]},
        {"acceleration": [0.0]},
        {"acceleration": [1.0, 1.0]},
    ],
    ids=str,
)
def test_impossible_limits_are_errors(wrong):
    with pytest.raises(InputError):
        Limits.of(Limits(**({"low": [-1.0], "high": [1.0]} | wrong)))
