"""Several terms to one cost, and feasibility before cost."""

import itertools

import numpy as np
import pytest
import torch

from planners import CEM, InputError, Limits, Terms, mixing

GENERATOR = torch.Generator().manual_seed(0)
VALUES = torch.randn(3, 40, 3, generator=GENERATOR) * torch.tensor([1.0, 100.0, 0.01]) + torch.tensor(
    [5.0, 0.0, 1.0]
)
VALID = torch.rand(3, 40, generator=GENERATOR) > 0.2
WEIGHTS = (0.5, 2.0, 3.0)
EVERY = pytest.mark.parametrize("name", ["sum", "z_score", "std_ratio"])


def reference(name, values, valid, weights):
    """One row in numpy."""
    values, weights = values.double().numpy(), np.asarray(weights)
    mean, std = values[valid.numpy()].mean(0), values[valid.numpy()].std(0)
    scaled = {"sum": values, "z_score": (values - mean) / std, "std_ratio": values * std[0] / std}[name]
    return torch.from_numpy(scaled @ weights)


@EVERY
@pytest.mark.parametrize("weights", [(), WEIGHTS])
def test_mixers_in_closed_form(name, weights):
    got = mixing.Mixer(name, weights)(VALUES, VALID)
    for row in range(3):
        expected = reference(name, VALUES[row], VALID[row], weights or (1.0,) * 3)
        torch.testing.assert_close(got[row].double(), expected, rtol=1e-4, atol=1e-4)


@EVERY
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf, 1e30])
def test_candidates_that_do_not_count_change_nothing(name, bad):
    mixer, spoilt = mixing.Mixer(name, WEIGHTS), torch.where(VALID[..., None], VALUES, bad)
    assert torch.equal(mixer(spoilt, VALID)[VALID], mixer(VALUES, VALID)[VALID])


@EVERY
@pytest.mark.parametrize("constant", [0.0, 0.1, -7.0, 1e6])
def test_a_constant_term_does_not_change_the_order(name, constant):
    values = VALUES.clone()
    values[..., 1] = constant
    mixed = mixing.Mixer(name)(values, torch.ones_like(VALID))
    assert mixed.isfinite().all()
    rest = mixing.Mixer(name)(values[..., [0, 2]], torch.ones_like(VALID))
    centred = [x.double() - x.double().mean(1, keepdim=True) for x in (mixed, rest)]
    torch.testing.assert_close(*centred, rtol=0, atol=0.2 if constant == 1e6 else 1e-3)


@EVERY
@pytest.mark.parametrize("count", [0, 1])
def test_hardly_any_candidate_that_counts(name, count):
    valid = torch.zeros(3, 40, dtype=torch.bool)
    valid[:, :count] = True
    assert mixing.Mixer(name)(VALUES, valid)[valid].isfinite().all()


@EVERY
def test_rows_are_the_same_bits_alone_and_in_any_batch(name):
    values = torch.randn(17, 137, 3, generator=torch.Generator().manual_seed(1))
    valid, mixer = values[..., 0] > -1, mixing.Mixer(name, WEIGHTS)
    for rows in (1, 2, 3, 5, 8, 17):
        together = mixer(values[:rows], valid[:rows])
        for row in {0, rows // 2, rows - 1}:
            one = slice(row, row + 1)
            assert torch.equal(together[one], mixer(values[one], valid[one])), (rows, row)


@EVERY
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_gradient_of_a_candidate_is_that_of_its_own_terms(name, spread):
    """Statistics are constants to a descent: else z-scores, whose sum is zero, have no slope."""
    x = (torch.arange(6.0) * spread).view(1, 6).requires_grad_()
    values = torch.stack([2 * x, torch.relu(-1 - x)], dim=-1)  # the second is zero, and without slope
    valid = torch.ones(1, 6, dtype=torch.bool)
    (slope,) = torch.autograd.grad(mixing.Mixer(name)(values, valid).sum(), x)
    std = (2 * x).std(unbiased=False).item() or 1.0
    expected = 2 / std if name == "z_score" else 2.0
    torch.testing.assert_close(slope, torch.full((1, 6), expected))


def test_unknown_mixer_is_an_error():
    with pytest.raises(InputError, match="z_score"):
        mixing.Mixer("product")


@pytest.mark.parametrize("scale", [1e-6, 1.0, -1.0, 1e6])
def test_feasible_before_infeasible_and_those_by_violation(scale):
    cost = scale * torch.tensor([[4.0, 5.0, 3.0, -100.0, -200.0, 0.0]])
    violation = torch.tensor([[0.0, 0.0, 0.0, 2.0, 0.5, 1.0]])
    valid = torch.tensor([[True, True, True, True, True, True]])
    ranked = mixing.rank(cost, valid, violation)
    feasible = cost[0, :3].argsort().tolist()
    assert ranked.argsort(1)[0].tolist() == [*feasible, 4, 5, 3]
    assert torch.equal(ranked[:, :3], cost[:, :3])  # feasible ones keep their cost


def test_without_a_feasible_candidate_the_least_violation_wins():
    ranked = mixing.rank(
        torch.tensor([[-50.0, 3.0]]), torch.ones(1, 2, dtype=torch.bool), torch.tensor([[0.2, 0.1]])
    )
    assert ranked.argmin() == 1


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_last(bad):
    valid = torch.tensor([[True, True, False, True]])
    for violation in (None, torch.tensor([[0.0, 0.0, 0.0, 0.3]])):
        ranked = mixing.rank(torch.tensor([[bad, 5.0, -9.0, -9.0]]), valid, violation)
        assert ranked[0, [0, 2]].tolist() == [torch.inf, torch.inf]
        assert ranked[0].argmin() == (3 if violation is None else 1)


@pytest.mark.parametrize("name", ["sum", "z_score", "std_ratio"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_candidate_with_one_bad_term_never_wins(name, bad):
    def cost(actions):
        first = actions[..., 0, 0]
        spoilt = torch.where(first > 0.5, bad, 0.1 * first.square())
        return Terms(torch.stack([(first - 0.9).abs(), spoilt], dim=-1), mixing.Mixer(name))

    planner = CEM(horizon=2, samples=64, iterations=6, elites=8)
    plan, _ = planner.plan(cost, planner.init(2, Limits(low=[-1], high=[1]), [0, 1]))
    assert not plan.failed.any()
    assert (plan.actions[:, 0, 0] <= 0.5).all()
    if name == "sum":
        assert (plan.actions[:, 0, 0] > 0.45).all()


def test_the_best_so_far_is_mixed_again_with_every_new_population():
    """Costs mixed over different populations do not compare, so the mixer must see old and new side by side."""
    seen = []

    def mix(values, valid):
        seen.append(values.clone())
        return mixing.Mixer("z_score")(values, valid)

    def cost(actions):
        return Terms(actions.flatten(2)[..., :2].square(), mix)

    planner = CEM(horizon=2, samples=16, iterations=3, elites=4, keep=3)
    plan, _ = planner.plan(cost, planner.init(1, Limits(low=[-1], high=[1]), [0]))
    assert [values.shape[1] for values in seen] == [16, 16 + 3, 16 + 3]
    for before, after in itertools.pairwise(seen):
        ranked = mixing.Mixer("z_score")(before, torch.ones(before.shape[:2], dtype=torch.bool)).argsort(1)[0, :3]
        assert torch.equal(after[0, 16:], before[0, ranked])
    final = mixing.Mixer("z_score")(seen[-1], torch.ones(1, 19, dtype=torch.bool))
    assert plan.cost.item() == final.min().item()
