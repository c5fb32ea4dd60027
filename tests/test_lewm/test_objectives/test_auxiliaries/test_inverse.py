"""Which actions led from one latent to another: by hand, a perfect head, and what a collapse costs."""

import math

import pytest
import torch

from lewm import registry
from lewm.types import InputError


def perfect(batch, blocks=1):
    """A head that knows: the actions of the transitions it is asked for."""
    actions = batch.actions_BLE
    answers = torch.cat([actions[:, k : actions.shape[1] - blocks + 1 + k] for k in range(blocks)], dim=-1)
    return {"inverse": lambda before, after: answers}


@pytest.mark.parametrize("name", ["inverse_dynamics", "latent_difference"])
@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_error_is_that_of_each_run_of_blocks_one_after_the_other(make, name, blocks):
    term = registry.build("auxiliary", {"name": name, "blocks": blocks})
    batch = make.encoded(heads=make.heads(term))
    head, errors = batch.heads["inverse"], []
    for z, actions in zip(batch.z_BTD, batch.actions_BLE, strict=True):
        for t in range(4 - blocks):
            errors.append((head(z[t], z[t + blocks]) - torch.cat(list(actions[t : t + blocks]))).square().mean())
    torch.testing.assert_close(term(batch), torch.stack(errors).mean())
    assert term(make.encoded(heads=perfect(batch, blocks))) == 0


def test_the_same_displacement_is_the_same_action_to_latent_difference(make):
    term = registry.build("auxiliary", {"name": "latent_difference"})
    batch = make.encoded(heads=make.heads(term))
    elsewhere = make.encoded(heads=batch.heads, z_BTD=batch.z_BTD + 5)
    torch.testing.assert_close(term(elsewhere), term(batch))
    assert (term.weight, term.heads["inverse"]["given"]) == (10.0, "difference")


def test_more_blocks_than_the_window_has_are_refused(make):
    term = registry.build("auxiliary", {"name": "inverse_dynamics", "blocks": 4})
    with pytest.raises(InputError, match="over 4 blocks needs 5 frames, got 4"):
        term(make.encoded(heads=make.heads(term)))


def test_action_nce_is_the_cross_entropy_of_the_right_action(make):
    term = registry.build("auxiliary", {"name": "action_nce", "temperature": 0.5})
    batch = make.encoded(rows=2, frames=3, heads=make.heads(term))
    said = batch.heads["inverse"](batch.z_BTD[:, :-1], batch.z_BTD[:, 1:]).reshape(4, -1)
    done, loss = batch.actions_BLE.reshape(4, -1), 0.0
    for i in range(4):
        scores = [math.exp(-(said[i] - done[j]).square().mean().item() / 0.5) for j in range(4)]
        loss -= math.log(scores[i] / sum(scores)) / 4
    assert term(batch).item() == pytest.approx(loss, rel=1e-10)


def test_action_nce_of_collapsed_latents_is_at_least_log_n_and_of_a_perfect_head_nearly_zero(make):
    term = registry.build("auxiliary", {"name": "action_nce", "temperature": 0.01})
    batch = make.encoded(rows=5, frames=5, heads=make.heads(term))
    for constant in (batch.z_BTD * 0, batch.z_BTD * 0 + 3):
        collapsed = make.encoded(rows=5, frames=5, heads=batch.heads, z_BTD=constant)
        assert term(collapsed) >= math.log(20)
    assert term(make.encoded(rows=5, frames=5, heads=perfect(batch))) < 1e-3


def test_action_nce_needs_a_temperature():
    with pytest.raises(InputError, match="temperature > 0, got 0"):
        registry.build("auxiliary", {"name": "action_nce", "temperature": 0.0})
