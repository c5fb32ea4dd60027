"""The split by id, and the shuffle that is stored nowhere."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lewm.data import EpisodeReader, EpisodeWriter, split_episodes
from lewm.data.sampling import Shuffle
from lewm.types import InputError

pytestmark = pytest.mark.usefixtures("quick_disk")


@pytest.fixture(scope="module")
def many(tmp_path_factory, make_info, make_episode):
    """A function: the set of these ids."""

    def write(ids):
        folder = tmp_path_factory.mktemp("split")
        with EpisodeWriter(folder, make_info()) as writer:
            writer.commit([make_episode(i, steps=1) for i in ids])
        return EpisodeReader(folder)

    return write


@pytest.mark.parametrize("count", [2, 3, 50, 400])
def test_split_is_disjoint_and_complete(many, count):
    train, held = split_episodes(many(range(count)), 0.2)
    assert sorted([*train, *held]) == list(range(count))
    assert len(train) >= 1
    assert len(held) >= 1


def test_split_share_is_about_what_was_asked(many):
    _, held = split_episodes(many(range(1000)), 0.2)
    assert abs(len(held) - 200) < 4 * math.sqrt(1000 * 0.2 * 0.8)


def test_split_goes_by_id_and_is_stable_when_the_set_grows(many):
    ids = np.random.default_rng(0).permutation(10**6)[:300]
    small, large = many(ids[:150].tolist()), many(ids.tolist())
    held_small, held_large = (set(r.ids[split_episodes(r)[1]].tolist()) for r in (small, large))
    assert held_small == held_large & set(ids[:150].tolist())


def test_split_of_nothing_held_and_of_one_episode(many):
    train, held = split_episodes(many(range(20)), 0.0)
    assert (len(train), len(held)) == (20, 0)
    assert [part.tolist() for part in split_episodes(many([5]), 0.2)] == [[0], [0]]


@settings(max_examples=12, deadline=None)
@given(ids=st.sets(st.integers(0, 10**9), min_size=2, max_size=3), validation=st.floats(0.05, 0.95))
def test_split_of_a_tiny_set_is_disjoint_too(many, ids, validation):
    train, held = split_episodes(many(ids), validation)
    assert sorted([*train, *held]) == list(range(len(ids)))
    assert len(train) >= 1
    assert len(held) >= 1


@pytest.mark.parametrize("share", [-0.1, 1.0, 2, math.nan])
def test_an_impossible_share_is_rejected(many, share):
    with pytest.raises(InputError, match="share"):
        split_episodes(many([1, 2]), share)


def test_the_split_is_what_it_was():
    """Results are compared across versions by these episodes: the rule may never change."""

    class Reader:
        ids = np.arange(40)

    assert split_episodes(Reader, 0.2)[1].tolist() == EXPECTED


EXPECTED = [3, 7, 11, 15, 19, 21, 25, 29]


@pytest.mark.parametrize("seed", [0, 7])
def test_a_shuffle_is_a_permutation_for_every_length(seed):
    for n in range(1, 400):
        assert np.array_equal(np.sort(Shuffle(n, seed)(np.arange(n))), np.arange(n)), n


@settings(max_examples=20, deadline=None)
@given(n=st.integers(400, 300_000), seed=st.integers(0, 2**32), epoch=st.integers(0, 1000))
def test_a_shuffle_is_a_permutation_of_large_lengths(n, seed, epoch):
    numbers = Shuffle(n, seed, epoch)(np.arange(n))
    assert numbers.min() == 0
    assert np.bincount(numbers, minlength=n).max() == 1
    assert len(numbers) == n


@pytest.mark.parametrize("n", [2**31 + 11, 10**12, 2**53 + 1])
def test_a_shuffle_of_a_length_that_fits_in_no_memory(n):
    """Distinct, in range and spread out, of places from everywhere."""
    places = np.unique(np.random.default_rng(0).integers(0, n, 20_000))
    numbers = Shuffle(n, 3)(places)
    assert numbers.min() >= 0
    assert numbers.max() < n
    assert len(np.unique(numbers)) == len(places)
    assert abs(numbers.mean() / n - 0.5) < 4 / math.sqrt(12 * len(places))


def test_a_shuffle_is_read_anywhere_in_any_order():
    shuffle, whole = Shuffle(1000, 1), Shuffle(1000, 1)(np.arange(1000))
    for places in (np.array([999]), np.array([5, 3, 3]), np.arange(990, 1000), np.zeros(0, int)):
        assert np.array_equal(shuffle(places), whole[places])


def test_shuffles_of_other_seeds_and_epochs_differ():
    orders = {Shuffle(500, seed, epoch)(np.arange(500)).tobytes() for seed in range(10) for epoch in range(10)}
    assert len(orders) == 100


def chi_square(counts):
    expected = counts.sum() / counts.size
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("n", [5, 12, 37])
def test_every_number_is_as_likely_at_every_place(n):
    """Chi-square over many seeds; five standard deviations of its distribution are allowed."""
    counts = np.zeros((n, n))
    for seed in range(3000):
        counts[np.arange(n), Shuffle(n, seed)(np.arange(n))] += 1
    freedom = (n - 1) ** 2
    assert chi_square(counts) < freedom + 5 * math.sqrt(2 * freedom)


def test_neighbours_are_not_kept_together():
    """Batches are consecutive places: what follows a number must say nothing of it."""
    n = 4096
    for seed in range(5):
        order = Shuffle(n, seed)(np.arange(n))
        step = np.diff(order) % n
        assert chi_square(np.bincount(step // 256, minlength=16).astype(float)) < 15 + 6 * math.sqrt(30)
        first = np.sort(order[: n // 8])  # an eighth of an epoch sees all parts of the set
        assert chi_square(np.bincount(first // 256, minlength=16).astype(float)) < 15 + 6 * math.sqrt(30)
        assert (np.diff(order) == 1).sum() < 12


def test_what_a_small_set_holds_out_stays_held_out_until_a_lower_hash_comes(many):
    """Not the last episode, which is another one each time the set grows."""
    held = [split_episodes(many(range(n)), 0.1)[1] for n in range(2, 12)]
    ids = [set(positions.tolist()) for positions in held]
    changes = sum(not before <= after for before, after in pairwise(ids))
    assert changes <= 3  # records among ten random numbers, not ten changes
