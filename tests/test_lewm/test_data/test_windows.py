"""Training windows and the split, checked with frames that carry their own (episode, step)."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lewm.data import Column, EpisodeReader, EpisodeWriter, Windows, split_episodes
from lewm.types import InputError

LENGTHS = (7, 3, 12, 1, 20)


@pytest.fixture(scope="module")
def readers(tmp_path_factory, make_info, make_episode, write_set):
    """Frame stride -> five episodes of ids 10..14 with LENGTHS steps."""

    def write(stride):
        info = make_info(stride)
        episodes = [make_episode(10 + k, steps, info) for k, steps in enumerate(LENGTHS)]
        return write_set(tmp_path_factory.mktemp("windows"), episodes, info)

    return {stride: write(stride) for stride in (1, 2, 5)}


@pytest.fixture(scope="module")
def many(tmp_path_factory, make_info, make_episode):
    """A function: the set of these ids."""

    def write(ids):
        folder = tmp_path_factory.mktemp("split")
        with EpisodeWriter(folder, make_info()) as writer:
            writer.commit([make_episode(i, steps=1) for i in ids])
        return EpisodeReader(folder)

    return write


def expected_windows(lengths, frames, block, stride, pad):
    """All (episode, start) whose last frame exists, in words: one after the other, on the frame grid."""
    span = (frames - 1) * block
    return [
        (e, start) for e, steps in enumerate(lengths) for start in range(-pad * block, steps - span + 1, stride)
    ]


def check(batch, windows, frames, block):
    """Compare a batch with what each (episode position, start) must hold."""
    for b, (episode, start) in enumerate(windows):
        number = 10 + episode
        for t in range(frames):
            step = max(0, start + t * block)
            assert batch.pixels[b, t, 0, 0, 0] == number
            assert batch.pixels[b, t, 0, 1, 0] == step
        for t in range(frames - 1):
            for k in range(block):
                step = start + t * block + k
                wanted = [number + 1, step + 1] if step >= 0 else [0, 0]
                assert batch.actions[b, t, k].tolist() == wanted


@settings(max_examples=40, deadline=None)
@given(
    stride=st.sampled_from([1, 2, 5]),
    multiple=st.integers(1, 3),
    frames=st.integers(1, 4),
    pad=st.integers(0, 3),
    chosen=st.sets(st.integers(0, 4), min_size=1).map(sorted),
)
def test_windows_hold_every_aligned_start_and_never_cross_episodes(readers, stride, multiple, frames, pad, chosen):
    block = stride * multiple
    wanted = [w for w in expected_windows(LENGTHS, frames, block, stride, pad) if w[0] in chosen]
    if not wanted:
        with pytest.raises(InputError, match="no window fits"):
            Windows(readers[stride], np.array(chosen), frames=frames, block=block, pad=pad)
        return
    windows = Windows(readers[stride], np.array(chosen), frames=frames, block=block, pad=pad)
    assert len(windows) == len(wanted)
    batch = windows.batch(np.arange(len(windows)))
    assert batch.pixels.shape == (len(wanted), frames, 2, 3, 1)
    assert batch.actions.shape == (len(wanted), frames - 1, block, 2)
    assert (batch.pixels.dtype, batch.actions.dtype) == (np.uint8, np.float32)
    check(batch, wanted, frames, block)


def test_padding_repeats_the_first_frame_and_has_zero_actions(readers):
    windows = Windows(readers[1], np.array([2]), frames=3, block=4, pad=2)
    batch = windows.batch(np.array([0, 4, 8]))  # starts at steps -8, -4, 0 of episode 12
    assert batch.pixels[:, :, 0, 1, 0].tolist() == [[0, 0, 0], [0, 0, 4], [0, 4, 8]]
    assert (batch.pixels[0, 0] == batch.pixels[0]).all()
    assert (batch.actions[0] == 0).all()
    assert (batch.actions[1, 0] == 0).all()
    assert (batch.actions[1, 1] != 0).all()
    assert (batch.actions[2] != 0).all()


def test_a_window_of_one_frame_has_no_actions(readers):
    batch = Windows(readers[1], np.arange(5), frames=1, block=5).batch(np.arange(3))
    assert batch.pixels.shape == (3, 1, 2, 3, 1)
    assert batch.actions.shape == (3, 0, 5, 2)


@pytest.mark.parametrize("block", [1, 3, 7])
def test_a_block_off_the_frame_grid_is_an_error(readers, block):
    with pytest.raises(InputError, match="every 5-th frame"):
        Windows(readers[5], np.arange(5), frames=2, block=block)


def test_episodes_too_short_for_a_window(readers):
    assert len(Windows(readers[1], np.arange(5), frames=5, block=5)) == 1  # 20 steps: exactly one fits
    with pytest.raises(InputError, match=r"span 21 steps.* has 20"):
        Windows(readers[1], np.arange(5), frames=4, block=7)
    with pytest.raises(InputError, match="no window fits"):
        Windows(readers[1], np.array([], int), frames=2, block=1)


@pytest.mark.parametrize("sizes", [{"frames": 0, "block": 1}, {"frames": 2, "block": 0}])
def test_windows_need_a_frame_and_a_step(readers, sizes):
    with pytest.raises(InputError):
        Windows(readers[1], np.arange(5), **sizes)


LAYOUTS = {
    "raw pixels": {"codec": "raw"},
    "compressed action": {"action": Column("float32", (2,), codec="zstd:1")},
    "pixels every second step": {"stride": 2},
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_windows_do_not_depend_on_how_columns_are_stored(tmp_path, make_info, make_episode, write_set, layout):
    info = make_info(**layout)
    episodes = [make_episode(10 + k, steps, info) for k, steps in enumerate(LENGTHS)]
    windows = Windows(write_set(tmp_path, episodes, info), np.arange(5), frames=2, block=2)
    wanted = expected_windows(LENGTHS, 2, 2, layout.get("stride", 1), 0)
    check(windows.batch(np.arange(len(windows))), wanted, 2, 2)


def drawn(windows, steps, size, seed):
    """(id, last step) of every window in these batches, in order."""
    batches = [windows.draw(step, size, seed) for step in steps]
    return [tuple(int(n) for n in window[-1, 0, :2, 0]) for batch in batches for window in batch.pixels]


@pytest.mark.parametrize("size", [1, 4, 64])
def test_draw_covers_every_window_once_per_epoch(readers, size):
    windows = Windows(readers[1], np.arange(5), frames=2, block=1)
    everything = sorted((10 + e, start + 1) for e, start in expected_windows(LENGTHS, 2, 1, 1, 0))
    count = len(windows)
    places = drawn(windows, range(math.ceil(3 * count / size)), size, seed=3)
    epochs = [places[k * count : (k + 1) * count] for k in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [everything] * 3
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != everything


def test_draw_is_a_function_of_step_and_seed(readers):
    def fresh():
        return Windows(readers[1], np.arange(5), frames=2, block=1)

    windows = fresh()
    forward = [drawn(windows, [step], 8, seed=1) for step in range(12)]
    backward = [drawn(fresh(), [step], 8, seed=1) for step in reversed(range(12))]
    assert forward == backward[::-1]
    assert forward[0] != drawn(windows, [0], 8, seed=2)


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
