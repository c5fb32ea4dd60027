"""Training windows, checked with frames that carry their own (episode, step)."""

import gc
import math
import pickle
import sys
import threading
import tracemalloc
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lewm.data import Column, Windows
from lewm.data.windows import _Pool
from lewm.types import InputError

pytestmark = pytest.mark.usefixtures("quick_disk")

LENGTHS = (7, 3, 12, 1, 20)


@pytest.fixture(scope="module")
def readers(tmp_path_factory, make_info, make_episode, write_set):
    """Frame stride -> five episodes of ids 10..14 with LENGTHS steps."""

    def write(stride):
        info = make_info(stride)
        episodes = [make_episode(10 + k, steps, info) for k, steps in enumerate(LENGTHS)]
        return write_set(tmp_path_factory.mktemp("windows"), episodes, info, shard_bytes=1000)

    return {stride: write(stride) for stride in (1, 2, 5)}


def expected_windows(lengths, frames, block, stride, pad, actions="between"):
    """All (episode, start) whose last frame and last action exist, in words: one after the other, on the grid."""
    span = frames * block if actions == "each" else (frames - 1) * block
    return [
        (e, start) for e, steps in enumerate(lengths) for start in range(-pad * block, steps - span + 1, stride)
    ]


def check(batch, windows, frames, block, actions="between"):
    """Compare a batch with what each (episode position, start) must hold."""
    assert batch.episodes.tolist() == [episode for episode, _ in windows]
    assert batch.starts.tolist() == [start for _, start in windows]
    for b, (episode, start) in enumerate(windows):
        number = 10 + episode
        for t in range(frames):
            step = max(0, start + t * block)
            assert batch.pixels[b, t, 0, 0, 0] == number
            assert batch.pixels[b, t, 0, 1, 0] == step
        for t in range(frames if actions == "each" else frames - 1):
            for k in range(block):
                step = start + t * block + k
                wanted = [number + 1, step + 1] if step >= 0 else [0, 0]
                assert batch.actions[b, t, k].tolist() == wanted


@settings(max_examples=80, deadline=None)
@given(
    stride=st.sampled_from([1, 2, 5]),
    multiple=st.integers(1, 3),
    frames=st.integers(1, 4),
    pad=st.integers(0, 3),
    chosen=st.permutations(range(5)).flatmap(lambda p: st.integers(1, 5).map(lambda n: p[:n])),
    actions=st.sampled_from(["between", "each"]),
)
def test_windows_hold_every_aligned_start_and_never_cross_episodes(
    readers, stride, multiple, frames, pad, chosen, actions
):
    block, reader = stride * multiple, readers[stride]
    lengths = {k: LENGTHS[k] for k in chosen}
    wanted = [
        (k, start)
        for k, steps in lengths.items()
        for _, start in expected_windows([steps], frames, block, stride, pad, actions)
    ]
    settings = {"frames": frames, "block": block, "pad": pad, "actions": actions}
    if not wanted:
        with pytest.raises(InputError, match="no window fits"):
            Windows(reader, np.array(chosen), **settings)
        return
    windows = Windows(reader, np.array(chosen), **settings)
    assert len(windows) == len(wanted)
    batch = windows.batch(np.arange(len(windows)))
    blocks = frames if actions == "each" else frames - 1
    assert batch.pixels.shape == (len(wanted), frames, 2, 3, 1)
    assert batch.actions.shape == (len(wanted), blocks, block, 2)
    assert (batch.pixels.dtype, batch.actions.dtype) == (np.uint8, np.float32)
    check(batch, wanted, frames, block, actions)
    some = np.random.default_rng(0).integers(0, len(wanted), 7)
    check(windows.batch(some), [wanted[k] for k in some], frames, block, actions)


@pytest.mark.parametrize(("frames", "block"), [(4, 5), (1, 1), (3, 4), (2, 10)])
def test_a_block_for_each_observation_is_a_window_of_stable_worldmodel(readers, frames, block):
    """There a clip is num_steps * frameskip consecutive rows: observations every frameskip-th, actions folded."""
    span, found = frames * block, []
    reader = readers[1]
    for position, steps in enumerate(LENGTHS):
        pixels, actions = reader.column("pixels", position)[:steps], reader.column("action", position)
        for start in range(steps - span + 1):
            rows = slice(start, start + span)
            found.append((pixels[rows][::block], actions[rows].reshape(frames, block * 2)))
    windows = Windows(reader, np.arange(5), frames=frames, block=block, actions="each")
    assert len(windows) == len(found)
    batch = windows.batch(np.arange(len(windows)))
    assert np.array_equal(batch.pixels, np.stack([pixels for pixels, _ in found]))
    assert np.array_equal(batch.actions.reshape(len(found), frames, -1), np.stack([a for _, a in found]))


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
    assert len(batch) == 3


@pytest.mark.parametrize("block", [1, 3, 7])
def test_a_block_off_the_frame_grid_is_an_error(readers, block):
    with pytest.raises(InputError, match="every 5-th frame"):
        Windows(readers[5], np.arange(5), frames=2, block=block)


def test_episodes_too_short_for_a_window(readers):
    assert len(Windows(readers[1], np.arange(5), frames=5, block=5)) == 1  # 20 steps: exactly one fits
    assert len(Windows(readers[1], np.arange(5), frames=4, block=5, actions="each")) == 1
    with pytest.raises(InputError, match=r"span 21 steps.* has 20"):
        Windows(readers[1], np.arange(5), frames=4, block=7)
    with pytest.raises(InputError, match="no window fits"):
        Windows(readers[1], np.array([], int), frames=2, block=1)


UNUSABLE = [
    {"frames": 0},
    {"block": 0},
    {"pad": -1},
    {"per_episode": 0},
    {"actions": "all"},
    {"columns": ("pixel",)},
    {"columns": ("pixels", "action")},
    {"weights": np.ones(4)},
    {"weights": np.array([1, 1, np.nan, 1, 1])},
    {"weights": np.array([1, 1, -1, 1, 1])},
    {"weights": np.zeros(5)},
    {"weights": np.array([0, 0, 0, 1, 0]), "frames": 3},  # the only one with a weight has no window
]


@pytest.mark.parametrize("settings", UNUSABLE)
def test_unusable_settings_are_rejected(readers, settings):
    with pytest.raises(InputError, match=r"windows|weights"):
        Windows(readers[1], np.arange(5), **({"frames": 2, "block": 1} | settings))


@pytest.mark.parametrize("index", [-1, 43, 10**9])
def test_an_index_that_is_no_window_is_an_index_error(readers, index):
    """A negative one would be a window before its episode."""
    windows = Windows(readers[1], np.arange(5), frames=2, block=1, columns=("state",))
    assert len(windows) == 43
    with pytest.raises(IndexError):
        windows.batch(np.array([0, index]))


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


def test_several_cameras_of_different_strides_and_vectors(tmp_path, make_info, make_episode, write_set, change):
    """Starts are where all observed columns have a row: every sixth step for strides of two and three."""
    info = make_info(2, wrist=Column("uint8", (4, 4, 3), 3), force=Column("float32", (), codec="zstd:1"))
    episodes = []
    for k, steps in enumerate((13, 30)):
        wrist = np.broadcast_to((np.arange(steps // 3 + 1) * 3)[:, None, None, None], (steps // 3 + 1, 4, 4, 3))
        force = np.arange(steps + 1, dtype=np.float32) + 100 * k
        episodes.append(change(make_episode(10 + k, steps, info), wrist=wrist.astype(np.uint8), force=force))
    reader = write_set(tmp_path, episodes, info)
    columns = ("wrist", "pixels", "force", "state")
    windows = Windows(reader, np.arange(2), frames=2, block=6, pad=1, columns=columns)
    wanted = expected_windows((13, 30), 2, 6, 6, 1)
    assert wanted[:3] == [(0, -6), (0, 0), (0, 6)]
    batch = windows.batch(np.arange(len(windows)))
    check(batch, wanted, 2, 6)
    steps = np.maximum(batch.starts[:, None] + [0, 6], 0)
    assert list(batch.observations) == list(columns)
    assert np.array_equal(
        batch.observations["wrist"], np.broadcast_to(steps[..., None, None, None], (9, 2, 4, 4, 3))
    )
    assert np.array_equal(batch.observations["force"], steps + 100.0 * batch.episodes[:, None])
    assert batch.observations["force"].dtype == np.float32
    assert np.array_equal(batch.observations["state"][..., 1], steps)
    vectors = Windows(reader, np.arange(2), frames=3, block=1, columns=("force",))  # no camera, no grid
    assert len(vectors) == 12 + 29
    assert vectors.batch(np.array([12])).observations["force"].tolist() == [[100, 101, 102]]
    with pytest.raises(KeyError):
        _ = vectors.batch(np.array([0])).pixels


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_actions_are_float32_whatever_was_recorded(tmp_path, make_info, make_episode, write_set, change, dtype):
    info = make_info(action=Column(dtype, (2,)))
    episode = make_episode(10, 5)
    reader = write_set(tmp_path, [change(episode, action=episode.columns["action"].astype(dtype))], info)
    batch = Windows(reader, np.zeros(1, int), frames=2, block=5).batch(np.zeros(1, int))
    assert batch.actions.dtype == np.float32
    assert np.array_equal(batch.actions[0, 0], episode.columns["action"])


# Drawing


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


MODES = {
    "epochs": {},
    "weights": {"weights": np.array([1.0, 0, 3, 1, 2])},
    "per episode": {"per_episode": 4},
    "both": {"weights": np.array([1.0, 0, 3, 1, 2]), "per_episode": 2},
}


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES.keys())
def test_draw_is_a_function_of_step_and_seed(readers, mode):
    def fresh():
        return Windows(readers[1], np.array([0, 1, 2, 4, 4]), frames=2, block=1, pad=2, **mode)

    windows = fresh()
    forward = [drawn(windows, [step], 8, seed=1) for step in range(12)]
    backward = [drawn(fresh(), [step], 8, seed=1) for step in reversed(range(12))]
    assert forward == backward[::-1]
    assert forward[0] != drawn(windows, [0], 8, seed=2)
    assert len({str(batch) for batch in forward}) == 12
    assert drawn(pickle.loads(pickle.dumps(windows)), range(12), 8, seed=1) == list(chain(*forward))


def test_weights_are_chances_of_each_window_and_zero_is_never(readers):
    weights = np.array([1.0, 0.0, 3.0, 1.0, 0.0])
    windows = Windows(readers[1], np.arange(5), frames=2, block=1, columns=("state",), weights=weights)
    counts = np.zeros((5, 20))
    for step in range(300):
        batch = windows.draw(step, 100, seed=0)
        np.add.at(counts, (batch.episodes, batch.starts), 1)
    chance = np.zeros((5, 20))
    for k, steps in enumerate(LENGTHS):
        chance[k, :steps] = weights[k]
    chance /= chance.sum()
    assert (counts[chance == 0] == 0).all()
    expected = 30_000 * chance[chance > 0]
    freedom = len(expected) - 1
    assert ((counts[chance > 0] - expected) ** 2 / expected).sum() < freedom + 5 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("number", [0.0, 0.25, 0.5, np.nextafter(1, 0)])
def test_no_random_number_draws_a_weight_of_zero(readers, monkeypatch, number):
    """Not even one that falls on the edge between two episodes."""
    weights, rng = np.array([0, 0, 1 / 12, 0, 1 / 20]), SimpleNamespace(random=lambda size: np.full(size, number))
    windows = Windows(readers[1], np.arange(5), frames=2, block=1, columns=("state",), weights=weights)
    monkeypatch.setattr(np.random, "default_rng", lambda seed: rng)
    assert set(windows.draw(0, 4, seed=0).episodes.tolist()) == {2 if number < 0.5 else 4}


def test_weights_follow_the_episodes_given_not_their_positions(readers):
    windows = Windows(
        readers[1], np.array([4, 3, 0]), frames=3, block=1, columns=("state",), weights=np.array([0, 5.0, 1.0])
    )
    assert set(windows.draw(0, 64, seed=0).episodes.tolist()) == {0}  # 3 is too short, 4 has no weight


def test_per_episode_takes_distinct_windows_spread_over_one_episode(readers):
    """One of the first window's own, one of each equal part of the others."""
    windows = Windows(readers[1], np.array([2, 4]), frames=2, block=1, columns=("state",), per_episode=4)
    seen = np.zeros((5, 20))
    for step in range(200):
        batch = windows.draw(step, 8, seed=5)
        for group in range(2):
            own = slice(4 * group, 4 * group + 4)
            (episode,) = set(batch.episodes[own].tolist())
            starts, count = batch.starts[own], LENGTHS[episode]
            assert len(set(starts.tolist())) == 4
            ahead = (starts[1:] - starts[0]) % count  # going round
            edges = np.arange(4) * (count - 1) // 3
            assert ((ahead > edges[:-1]) & (ahead <= edges[1:])).all()
            np.add.at(seen, (episode, starts), 1)
    used = np.concatenate([seen[2, :12], seen[4]])
    assert used.sum() == 1600
    assert used.min() > 15  # of 50
    assert used.max() < 100


def test_per_episode_goes_through_every_window_first(readers):
    windows = Windows(readers[1], np.array([2, 4]), frames=2, block=1, columns=("state",), per_episode=2)
    firsts = [(b.episodes[0], b.starts[0]) for b in (windows.draw(step, 2, seed=5) for step in range(len(windows)))]
    assert len(set(firsts)) == len(windows)


def test_per_episode_that_cannot_be_is_an_error(readers):
    with pytest.raises(InputError, match=r"per_episode=4 .*episode 11 has 3"):
        Windows(readers[1], np.arange(5), frames=2, block=1, per_episode=4)
    windows = Windows(readers[1], np.array([0, 3]), frames=3, block=1, per_episode=5)  # 3 has none, not too few
    with pytest.raises(InputError, match="multiple of per_episode"):
        windows.draw(0, 7, seed=0)
    assert len(windows.draw(0, 5, seed=0)) == 5


# As a map-style data set


def test_items_are_dictionaries_read_together(readers, monkeypatch):
    windows = Windows(readers[1], np.arange(5), frames=2, block=1, columns=("pixels", "state"))
    batch = windows.batch(np.array([3, 0, 17]))
    calls, read = [], Windows.batch
    monkeypatch.setattr(
        Windows, "batch", lambda self, indices: (calls.append(len(indices)), read(self, indices))[1]
    )
    items = windows.__getitems__([3, 0, 17])
    assert calls == [3]
    assert all(list(item) == ["pixels", "state", "action"] for item in items)
    assert np.array_equal(np.stack([item["pixels"] for item in items]), batch.pixels)
    assert np.array_equal(np.stack([item["action"] for item in items]), batch.actions)
    assert np.array_equal(windows[-1]["state"], windows[len(windows) - 1]["state"])
    for index in (len(windows), -len(windows) - 1):
        with pytest.raises(IndexError):
            windows[index]


# Memory


def test_the_index_takes_twelve_bytes_an_episode_however_many_windows(make_info):
    """A hundred thousand episodes of a hundred windows each: ten million windows, no object for any."""
    count = 100_000
    reader = SimpleNamespace(info=make_info(), steps=np.full(count, 109, np.int32), ids=np.arange(count))
    gc.collect()
    objects = len(gc.get_objects())
    tracemalloc.start()
    windows = Windows(reader, np.arange(count), frames=2, block=10)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(windows) == 100 * count
    assert windows.nbytes == 12 * count
    assert kept < 12 * count + 20_000
    assert peak < 60 * count
    assert len(gc.get_objects()) < objects + 200
    assert len(pickle.dumps(windows.episodes)) < 4 * count + 1000


def test_what_a_consumer_holds_is_never_overwritten(readers):
    """As arrays, as parts of them, as tensors that share their memory."""
    import torch

    windows, held = Windows(readers[1], np.arange(5), frames=2, block=1, columns=("pixels", "state")), []
    for step in range(60):
        batch = windows.draw(step, 8, seed=0)
        if step % 5 == 0:
            tensor = torch.from_numpy(batch.observations["state"])[2:].transpose(0, 1)
            held += [(np.array_equal, view, view.copy()) for view in (batch.pixels[3:, 1], batch.actions)]
            held.append((torch.equal, tensor, tensor.clone()))
            del tensor
        del batch
    assert all(equal(view, copy) for equal, view, copy in held)


def test_buffers_nobody_holds_are_used_again(readers):
    """Else every batch would wait for the system to hand over fresh memory."""
    windows, places = Windows(readers[1], np.arange(5), frames=2, block=1), set()
    for step in range(40):
        places.add(windows.draw(step, 8, seed=0).pixels.__array_interface__["data"][0])
    assert len(places) <= 4


def test_threads_are_never_handed_the_same_buffer():
    """The prefetch thread, and a caller who looks at a batch of his own from the same windows."""
    pool, wrong, interval = _Pool(), [], sys.getswitchinterval()

    def work(me):
        for _ in range(25_000):
            one, two = pool.take((1, 64)), pool.take((1, 64))
            one[:], two[:] = me, me + 100
            if not ((one == me).all() and (two == me + 100).all()):
                wrong.append(me)
            del one, two

    sys.setswitchinterval(1e-6)  # without a lock, this finds several
    try:
        threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []


def test_batches_of_many_sizes_do_not_fill_the_memory(readers):
    windows = Windows(readers[1], np.arange(5), frames=2, block=1)
    for size in range(1, 60):
        windows.batch(np.zeros(size, int))
    assert sum(len(buffers) for buffers in windows._pool._buffers.values()) <= 16
