"""Batches ahead of time: the same however they are read, and nothing left running."""

import gc
import multiprocessing
import os
import threading
import time
from contextlib import closing

import numpy as np
import pytest
from torch.utils.data import DataLoader

from lewm.data import Column, Loader, Windows, loader
from lewm.types import InputError

pytestmark = pytest.mark.usefixtures("quick_disk")


@pytest.fixture(scope="module")
def made(tmp_path_factory, make_info, make_episode, write_set, change):
    """(Windows, folder): two observed columns, one of them a dtype torch has known for a short while only."""
    info = make_info(count=Column("uint16", ()))
    episodes = [change(make_episode(k, 9), count=np.arange(10, dtype=np.uint16)) for k in range(6)]
    folder = tmp_path_factory.mktemp("loader")
    reader = write_set(folder, episodes, info)
    return Windows(reader, np.arange(6), frames=2, block=2, pad=1, columns=("pixels", "state", "count")), folder


def same(a, b):
    return (
        a.observations.keys() == b.observations.keys()
        and all(np.array_equal(a.observations[k], b.observations[k]) for k in a.observations)
        and all(a.observations[k].dtype == b.observations[k].dtype for k in a.observations)
        and np.array_equal(a.actions, b.actions)
        and np.array_equal(a.episodes, b.episodes)
        and np.array_equal(a.starts, b.starts)
        and (a.actions.dtype, a.episodes.dtype, a.starts.dtype)
        == (b.actions.dtype, b.episodes.dtype, b.starts.dtype)
    )


def prefetching():
    return [thread for thread in threading.enumerate() if thread.name == "lewm-prefetch"]


@pytest.mark.parametrize("first", [0, 7])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_are_those_of_draw_from_any_step(made, workers, first):
    windows, _ = made
    batches = list(Loader(windows, batch_size=5, seed=3, workers=workers).batches(first, first + 12))
    assert len(batches) == 12
    assert all(same(batch, windows.draw(first + k, 5, 3)) for k, batch in enumerate(batches))
    assert prefetching() == []


def test_no_steps_are_no_batches(made):
    assert list(Loader(made[0], batch_size=5, seed=3).batches(4, 4)) == []


@pytest.mark.parametrize("workers", [-1, 1.5, "all", None])
def test_unusable_workers(made, workers):
    with pytest.raises(InputError, match="workers must be"):
        Loader(made[0], batch_size=4, seed=0, workers=workers)


def test_stopping_early_leaves_no_thread(made):
    ahead = Loader(made[0], batch_size=4, seed=0)
    with closing(ahead.batches(0, 10**9)) as batches:
        next(batches)
        assert len(prefetching()) == 1
    assert prefetching() == []
    for _ in ahead.batches(0, 10**9):
        break
    gc.collect()
    assert prefetching() == []
    with pytest.raises(KeyError, match="mine"):
        for _ in ahead.batches(0, 10**9):
            raise KeyError("mine")
    gc.collect()
    assert prefetching() == []


def test_stopping_early_leaves_no_process(made):
    with closing(Loader(made[0], batch_size=4, seed=0, workers=1).batches(0, 10**6)) as batches:
        next(batches)
        assert len(multiprocessing.active_children()) == 1
    gc.collect()
    assert multiprocessing.active_children() == []


def test_a_slow_consumer_bounds_what_is_read_ahead(made, monkeypatch):
    drawn, draw = [], Windows.draw
    monkeypatch.setattr(Windows, "draw", lambda self, step, *rest: (drawn.append(step), draw(self, step, *rest))[1])
    with closing(Loader(made[0], batch_size=4, seed=0).batches(0, 1000)) as batches:
        next(batches)
        time.sleep(0.3)
        assert max(drawn) <= 1 + loader.AHEAD + 1
        assert max(drawn) >= 2


def damage(folder, monkeypatch):
    """A frame in the middle of the set is overwritten while it is read."""
    path = folder / "shards" / "w0000-0" / "pixels.bin"
    whole = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(len(whole) // 2)
        file.write(b"\0" * 40)
    return path, whole


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_frame_is_an_error_where_it_is_used(made, monkeypatch, workers):
    windows, folder = made
    path, whole = damage(folder, monkeypatch)
    try:
        with pytest.raises(InputError, match=r"pixels\.bin: row \d of episode \d is damaged"):
            for _ in Loader(windows, batch_size=4, seed=0, workers=workers).batches(0, 1000):
                pass
    finally:
        with path.open("r+b") as file:
            file.write(whole)
    assert prefetching() == []
    assert sum(1 for _ in Loader(windows, batch_size=4, seed=0).batches(0, 30)) == 30


@pytest.mark.slow
def test_batches_held_are_not_overwritten_by_those_read_ahead(made):
    windows, held = made[0], []
    for step, batch in enumerate(Loader(windows, batch_size=8, seed=1).batches(0, 60)):
        if step % 4 == 0:
            held.append((step, batch))
    assert all(same(batch, windows.draw(step, 8, 1)) for step, batch in held)


def test_auto_measures_both_and_says_what_it_chose(made, monkeypatch):
    """The processes are played by threads that are told how slow to be; real ones are run above."""
    windows, _ = made
    pause = {}

    def slowed(self, first, last, speed):
        for step in range(first, last):
            time.sleep(pause[speed])
            yield self.windows.draw(step, self.batch_size, self.seed)

    monkeypatch.setattr(Loader, "_by_thread", lambda self, *span: slowed(self, *span, "thread"))
    monkeypatch.setattr(Loader, "_by_processes", lambda self, *span: slowed(self, *span, "processes"))
    cores = min(8, os.cpu_count() or 1)
    for thread, processes, chosen in ((0.004, 0.02, 0), (0.02, 0.004, cores), (0.0100, 0.0095, 0)):
        pause.update(thread=thread, processes=processes)
        made_loader = Loader(windows, batch_size=4, seed=0, workers="auto")
        assert made_loader.workers == chosen
        assert made_loader.choice.startswith("one thread" if not chosen else f"{cores} worker processes")
        assert "windows/s" in made_loader.choice
    assert Loader(windows, batch_size=4, seed=0).choice == "as asked"


@pytest.mark.slow
def test_auto_with_real_processes(made):
    windows, _ = made
    auto = Loader(windows, batch_size=4, seed=9, workers="auto")
    assert auto.workers in (0, min(8, os.cpu_count() or 1))
    batches = list(auto.batches(2, 5))
    assert all(same(batch, windows.draw(2 + k, 4, 9)) for k, batch in enumerate(batches))
    assert prefetching() == []


@pytest.mark.parametrize("workers", [0, 2])
def test_windows_serve_torch_s_own_loader_too(made, workers):
    """With its default collate and sampler order; forkserver, as a process with OpenGL or threads must."""
    windows, _ = made
    context = "forkserver" if workers else None
    torch_s = DataLoader(windows, batch_size=7, num_workers=workers, multiprocessing_context=context)
    first = 0
    for found in torch_s:
        count = len(found["action"])
        expected = windows.batch(np.arange(first, first + count))
        assert np.array_equal(found["action"], expected.actions)
        assert all(np.array_equal(found[name], rows) for name, rows in expected.observations.items())
        first += count
    assert first == len(windows)
