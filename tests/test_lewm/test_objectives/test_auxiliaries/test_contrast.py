"""Negatives by episode: which frames a prediction is compared with, and what that makes of slow noise."""

import math

import pytest
import torch

from lewm import registry
from lewm.types import InputError

# Rows 0 and 2 are windows of one episode that share the frame of block 1; row 1 is of another. Row 0 begins a block
# before its episode, where the first frame is repeated.
EPISODES, STARTS = torch.tensor([7, 8, 7]), torch.tensor([-1.0, 0.0, 1.0])


def batch_of(make, **given):
    return make.encoded(rows=3, frames=3, **{"episodes_B": EPISODES, "starts_B": STARTS, **given})


def is_candidate(negatives, query, key):
    """By definition: the target itself, and frames of the right episode at another block than the target's."""
    (row, frame), (other, when) = query, key
    if (row, frame) == (other, when):
        return True
    same = EPISODES[row] == EPISODES[other]
    another = max(STARTS[row] + frame, 0) != max(STARTS[other] + when, 0)
    return bool({"within": same and another, "across": not same, "all": not same or another}[negatives])


@pytest.mark.parametrize("negatives", ["within", "across", "all"])
def test_value_and_candidates_by_hand(make, negatives):
    term = registry.build("auxiliary", {"name": "within_episode", "negatives": negatives, "temperature": 2.0})
    batch = batch_of(make)
    allowed, target = term.candidates(batch, 3, 3)
    losses = []
    for row in range(3):
        for frame in (1, 2):
            query = 2 * row + frame - 1
            assert target[query] == 3 * row + frame
            scores = {}
            for key in ((other, when) for other in range(3) for when in range(3)):
                assert allowed[query, 3 * key[0] + key[1]] == is_candidate(negatives, (row, frame), key)
                if is_candidate(negatives, (row, frame), key):
                    error = (batch.predicted_BLD[row, frame - 1] - batch.z_BTD[key]).square().mean()
                    scores[key] = math.exp(-error.item() / 2)
            losses.append(-math.log(scores[row, frame] / sum(scores.values())))
    assert term(batch).item() == pytest.approx(sum(losses) / 6, rel=1e-10)


def test_a_window_without_a_known_episode_is_an_episode_of_its_own(make):
    term = registry.build("auxiliary", {"name": "within_episode"})
    unknown = term(batch_of(make, episodes_B=None, starts_B=None))
    apart = term(batch_of(make, episodes_B=torch.arange(3), starts_B=torch.zeros(3)))
    torch.testing.assert_close(unknown, apart)


@pytest.mark.parametrize(("negatives", "helps"), [("within", False), ("across", True)])
def test_slow_noise_helps_only_against_other_episodes(make, negatives, helps):
    """A large offset per episode tells episodes apart, and frames of one episode not at all."""
    term = registry.build("auxiliary", {"name": "within_episode", "negatives": negatives})
    plain = batch_of(make, predictor=lambda z, a: z)
    slow = batch_of(make, predictor=lambda z, a: z, z_BTD=plain.z_BTD + 9.0 * (EPISODES == 7)[:, None, None])
    gain = (term(plain) - term(slow)).item()
    assert (gain > 0.5) if helps else (abs(gain) < 1e-9)


def test_wrong_settings_are_refused():
    for settings in ({"negatives": "none"}, {"temperature": 0.0}):
        with pytest.raises(InputError, match="negatives in within, across, all"):
            registry.build("auxiliary", {"name": "within_episode", **settings})
