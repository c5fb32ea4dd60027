"""The cross-entropy method and its variants."""

import itertools

import pytest
import torch

from planners import CEM, ICEM, CategoricalCEM, InputError, Limits, Population, PowerLaw, Search

SPEC = Limits(low=[-1.0], high=[1.0])
CHOICES = Limits(low=[0.0] * 5, high=[1.0] * 5)


def search(mean, std, shape=(2, 3, 2)):
    return Search(torch.full(shape, mean), torch.full(shape, std), torch.ones(shape[-1]), None)


def test_update_is_mean_and_std_of_the_elites():
    planner = CEM(horizon=3, samples=20, elites=4, momentum=0.25)
    generator = torch.Generator().manual_seed(0)
    candidates, costs = torch.randn(2, 20, 3, 2, generator=generator), torch.rand(2, 20, generator=generator)
    after = planner.update(search(0.5, 2.0), Population(candidates, costs))
    for row in range(2):
        elites = candidates[row][costs[row].argsort()[:4]]
        torch.testing.assert_close(after.mean[row], 0.75 * elites.mean(0) + 0.25 * 0.5)
        torch.testing.assert_close(after.std[row], 0.75 * elites.std(0, unbiased=False) + 0.25 * 2.0)


def test_elites_without_a_finite_cost_have_no_weight():
    planner = CEM(horizon=3, samples=20, elites=6)
    candidates = torch.randn(1, 20, 3, 2, generator=torch.Generator().manual_seed(0))
    costs = torch.full((1, 20), torch.inf)
    costs[0, [3, 11]] = torch.tensor([1.0, 5.0])
    after = planner.update(search(0.0, 1.0, (1, 3, 2)), Population(candidates, costs))
    torch.testing.assert_close(after.mean[0], candidates[0, [3, 11]].mean(0))
    torch.testing.assert_close(after.std[0], candidates[0, [3, 11]].std(0, unbiased=False))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"samples": 128, "elites": 8, "decay": 1.25}, [128, 102, 82, 66, 52, 42]),
        ({"samples": 128, "elites": 30, "decay": 2.0}, [128, 64, 60, 60, 60, 60]),
        ({"samples": 20, "elites": 15, "decay": 2.0}, [20] * 6),
        ({"samples": 64, "elites": 8, "decay": 1.0}, [64] * 6),
        ({"elites": 8, "decay": 1.25, "schedule": (50, 20)}, [50, 20, 20, 20, 20, 20]),
    ],
    ids=str,
)
def test_population_of_icem_decays(recorder, sphere, options, expected):
    planner, cost = ICEM(horizon=3, iterations=6, **options), recorder(sphere(0.3))
    plan, _ = planner.plan(cost, planner.init(2, SPEC, [0, 1]))
    assert [candidates.shape[1] for candidates in cost.candidates] == expected
    assert plan.evaluations == sum(expected)


def test_kept_elites_take_part_without_being_scored_again(recorder, sphere):
    """The update of an iteration sees its own candidates and the best of all before; the cost sees each once."""

    class Watched(ICEM):
        def update(self, search, population):
            populations.append(population)
            return super().update(search, population)

    populations, cost = [], recorder(sphere(0.3))
    planner = Watched(horizon=4, samples=30, iterations=4, elites=5, keep=3, decay=1.0)
    plan, _ = planner.plan(cost, planner.init(2, SPEC, [0, 1]))
    assert len(cost.candidates) == 4
    assert plan.evaluations == 4 * 30
    for iteration, population in enumerate(populations):
        assert torch.equal(population.candidates[:, :30], cost.candidates[iteration])
        assert population.costs.shape[1] == 30 + (3 if iteration else 0)
        if iteration:
            before = torch.cat(cost.costs[:iteration], dim=1).sort(1).values[:, :3]
            assert torch.equal(population.costs[:, 30:], before)
            again = torch.cat(cost.candidates[:iteration], dim=1)
            for row in range(2):
                for kept in population.candidates[row, 30:]:
                    assert (again[row] == kept).all(-1).all(-1).any()


def test_keeping_elites_matters(sphere):
    kept, dropped = (ICEM(horizon=4, samples=12, iterations=4, elites=5, keep=keep, decay=1.0) for keep in (4, 0))
    plans = [planner.plan(sphere(0.3), planner.init(2, SPEC, [0, 1]))[0] for planner in (kept, dropped)]
    assert not torch.equal(plans[0].std, plans[1].std)


@pytest.mark.parametrize("carry", [0, 1, 4])
def test_carried_elites_are_tried_again_shifted(recorder, sphere, carry):
    first = recorder(sphere(0.3))
    planner = ICEM(horizon=5, samples=40, iterations=3, elites=5, carry=carry)
    plan, state = planner.plan(first, planner.init(2, SPEC, [0, 1]))
    costs = torch.cat(first.costs, dim=1).sort(1).values
    assert torch.equal(sphere(0.3)(state.kept), costs[:, :carry])
    if carry:
        assert torch.equal(state.kept[:, 0], plan.actions)
    second, shifted = recorder(sphere(0.3)), state.shift(2)
    planner.plan(second, shifted)
    tried = second.candidates[0][:, 2 : 2 + carry]  # after the mean and rest
    assert torch.equal(tried, shifted.kept)
    assert torch.equal(tried[:, :, :3], state.kept[:, :, 2:])
    assert (tried[:, :, 3:] == 0).all()


def test_fresh_rows_have_nothing_to_carry(recorder, sphere):
    cost = recorder(sphere(0.3))
    planner = ICEM(horizon=5, samples=40, iterations=1, elites=5, carry=4)
    planner.plan(cost, planner.init(1, SPEC, [0]))
    assert (
        len({tuple(c.flatten().tolist()) for c in cost.candidates[0][0, 1:]}) == 39
    )  # the mean is rest; no other twins


def test_icem_draws_power_law_noise():
    assert isinstance(ICEM(beta=1.5).proposal, PowerLaw)
    assert ICEM(beta=1.5).proposal.beta == 1.5


def test_decay_below_one_is_an_error():
    with pytest.raises(InputError, match="decay"):
        ICEM(decay=0.9)


GROUPS, STEPS = (3, 2), 4


def combinatorial_cost(actions):
    """A random quadratic form of the choices of all steps: which is best at one step depends on the others."""
    generator = torch.Generator().manual_seed(11)
    form = torch.randn(STEPS * 5, STEPS * 5, generator=generator)
    flat = actions.flatten(2)
    return ((flat @ form) * flat).sum(-1)


def all_plans():
    one_hot = [torch.cat([torch.eye(3)[i], torch.eye(2)[j]]) for i in range(3) for j in range(2)]
    return torch.stack([torch.stack(plan) for plan in itertools.product(one_hot, repeat=STEPS)])


def test_categorical_cem_finds_the_best_of_all_combinations(recorder):
    plans = all_plans()
    costs = combinatorial_cost(plans[None])[0]
    assert len(costs) == 6**STEPS
    cost = recorder(combinatorial_cost)
    planner = CategoricalCEM(horizon=STEPS, samples=150, iterations=8, elites=15, groups=GROUPS)
    plan, _ = planner.plan(cost, planner.init(3, CHOICES, [0, 1, 2]))
    assert sum(c.shape[1] for c in cost.candidates) < len(costs)  # with fewer tries than there are combinations
    torch.testing.assert_close(plan.cost, costs.min().expand(3))
    assert torch.equal(plan.actions, plans[costs.argmin()].expand(3, -1, -1))


@pytest.mark.parametrize("returns", ["best", "mean"])
def test_categorical_candidates_and_plans_are_one_hot(recorder, returns):
    """Also those carried over and shifted, whose last actions are new, and the plan of a row that failed."""

    def one_hot(actions):
        assert ((actions == 0) | (actions == 1)).all()
        for group in actions.split(GROUPS, -1):
            assert (group.sum(-1) == 1).all()

    cost = recorder(combinatorial_cost)
    options = {"horizon": STEPS, "samples": 30, "iterations": 3, "elites": 5, "groups": GROUPS}
    planner = CategoricalCEM(**options, carry=4, keep=2, returns=returns)
    state = planner.init(2, CHOICES, [0, 1])
    for _ in range(3):
        plan, state = planner.plan(cost, state)
        for actions in (*cost.candidates, plan.actions):
            one_hot(actions)
        state = state.shift(1)
    failed, _ = planner.plan(lambda actions: torch.full(actions.shape[:2], torch.nan), state)
    assert failed.failed.all()
    one_hot(failed.actions)


def test_probabilities_sum_to_one_and_sharpen():
    planner = CategoricalCEM(horizon=STEPS, samples=150, iterations=6, elites=15, groups=GROUPS)
    _, state = planner.plan(combinatorial_cost, planner.init(1, CHOICES, [0]))
    for group in state.mean.split(GROUPS, -1):
        torch.testing.assert_close(group.sum(-1), torch.ones(1, STEPS))
        assert (group.amax(-1) > 0.6).all()
