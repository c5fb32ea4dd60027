"""What holds for every auxiliary term, regularisers under their own names included."""

from dataclasses import replace

import pytest
import torch

from lewm import registry
from lewm.objectives import Objective
from lewm.types import InputError

NAMES = registry.names("auxiliary")
OWN = [name for name in NAMES if name not in registry.names("regulariser")]


@pytest.mark.parametrize("frames", range(2, 7))
@pytest.mark.parametrize("name", OWN)
def test_is_a_finite_scalar_with_gradient_into_latents_and_heads(make, name, frames):
    term = registry.build("auxiliary", {"name": name})
    heads = make.heads(term)
    batch = make.encoded(frames=frames, heads=heads)
    if name == "straightening" and frames == 2:
        with pytest.raises(InputError, match="needs 3 frames, got 2"):
            term(batch)
        return
    value = term(batch)
    assert value.shape == ()
    assert value.isfinite()
    value.backward()
    assert batch.z_BTD.grad.isfinite().all()
    assert batch.z_BTD.grad.abs().amax(-1).min() > 0  # of every frame of every row
    for parameter in torch.nn.ModuleDict(heads).parameters():
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().max() > 0


@pytest.mark.parametrize("name", OWN)
def test_gradient_is_that_of_the_value(make, name):
    settings = {"peira": {"rate": 1.0}}.get(name, {})  # running means lag behind the value
    term = registry.build("auxiliary", {"name": name, **settings})
    batch = make.encoded(rows=3, frames=3, heads=make.heads(term))

    def value(z):
        return term(replace(batch, z_BTD=z, generator=torch.Generator().manual_seed(5)))

    assert torch.autograd.gradcheck(value, batch.z_BTD)


@pytest.mark.parametrize("name", OWN)
def test_two_processes_see_the_statistics_of_the_whole_batch(make, name):
    """With `gather` giving the whole batch, each half says what one would; means over rows average to it."""
    term = registry.build("auxiliary", {"name": name})
    heads = make.heads(term)
    facts = {"episodes_B": torch.tensor([0, 1, 1, 2]), "starts_B": torch.tensor([0.0, 0.0, 3.0, 1.0])}
    whole = make.encoded(heads=heads, **facts)
    alone = term(whole)
    z, actions = whole.z_BTD, whole.actions_BLE
    shared = [z, actions, whole.predicted_BLD, *facts.values()]
    if name == "action_nce":
        shared += term.decoded(whole)

    def gather(x):
        """The tensor of four rows whose first or last two these are."""
        halves = (
            (y, half) for y in shared for half in (y[:2], y[2:]) if (half.shape, half.dtype) == (x.shape, x.dtype)
        )
        return next(y for y, half in halves if torch.allclose(half, x))

    halves = []
    for rows in (slice(0, 2), slice(2, 4)):
        part = {key: value[rows] for key, value in facts.items()}
        local = {"z_BTD": z[rows], "actions_BLE": actions[rows], "gather": gather, **part}
        halves.append(term(make.encoded(heads=make.heads(term), **local)))
    torch.testing.assert_close(torch.stack(halves).mean(), alone)
    if name in ("action_nce", "peira", "reachability", "within_episode"):  # rows meet
        torch.testing.assert_close(halves, [alone, alone])


@pytest.mark.parametrize("name", OWN)
def test_half_precision_stays_inside_the_heads(make, name):
    term = registry.build("auxiliary", {"name": name})
    batch = make.encoded(heads={role: head.float() for role, head in make.heads(term).items()})
    predictor = batch.predictor
    predictor.now, predictor.act = predictor.now.float(), predictor.act.float()
    batch = replace(batch, z_BTD=batch.z_BTD.detach().float(), actions_BLE=batch.actions_BLE.float())
    exact = term(batch)
    fresh = {role: head.float() for role, head in make.heads(term).items()}
    with torch.autocast("cpu", torch.bfloat16):
        rounded = term(replace(batch, heads=fresh, generator=torch.Generator().manual_seed(5)))
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.03, atol=0)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OWN])
def test_a_regulariser_beside_another_is_the_same_measure_under_its_own_name(make, name):
    term = registry.build("auxiliary", {"name": name, "weight": 0.5})
    assert (term.label, term.weight) == (name, 0.5)
    single = registry.build("regulariser", {"name": name})
    batches = [make.encoded(rows=6, heads=make.heads(single)) for _ in range(2)]
    assert torch.equal(term(batches[0]), single(batches[1]))
    assert registry.defaults("auxiliary", name) == registry.defaults("regulariser", name)


def test_terms_add_up_and_are_logged_by_name(make):
    objective = Objective(
        regulariser={"name": "sigreg", "weight": 2.0},
        auxiliary=["straightening", {"name": "inverse_dynamics", "weight": 3.0}, {"name": "vicreg", "weight": 0.5}],
    )
    assert set(objective.heads) == {"inverse"}
    terms = objective(make.encoded(heads=make.heads(objective)))
    weights = {"prediction": 1, "regularisation": 2, "straightening": 0.05, "inverse_dynamics": 3, "vicreg": 0.5}
    assert terms.parts.keys() == weights.keys()
    torch.testing.assert_close(terms.total, sum(w * terms.parts[label] for label, w in weights.items()))


@pytest.mark.parametrize("name", OWN)
def test_a_negative_weight_is_refused(name):
    with pytest.raises(InputError, match=f"the weight of {name} must be at least 0"):
        registry.build("auxiliary", {"name": name, "weight": -1.0})
