"""Batches ahead of time: a prefetch thread, or worker processes where they pay."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import numpy as np

from lewm.data.windows import Batch, Windows
from lewm.types import InputError

AHEAD = 2
TRIAL = 8
WORTH = 1.2


class Loader:
    """The batches of training steps, in order, each a function of (step, seed), however they are read.

    Args:
        windows: to draw from.
        batch_size, seed: of `Windows.draw`.
        workers: 0 reads in one thread beside the caller (decoding releases the interpreter lock); n uses n
            processes; `auto` measures both and keeps what is faster by a fifth; `choice` says what was chosen and
            why.
    """

    def __init__(self, windows: Windows, *, batch_size: int, seed: int, workers: int | str = 0) -> None:
        if workers != "auto" and not (isinstance(workers, int) and workers >= 0):
            raise InputError(f"workers must be 'auto' or a number of at least 0, got {workers!r}")
        self.windows, self.batch_size, self.seed = windows, batch_size, seed
        self.workers, self.choice = self._measure() if workers == "auto" else (int(workers), "as asked")

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """The batches of steps first, ..., last - 1."""
        yield from self._by_processes(first, last) if self.workers else self._by_thread(first, last)

    def _by_thread(self, first: int, last: int) -> Iterator[Batch]:
        ready: queue.Queue[Batch | BaseException] = queue.Queue(AHEAD)
        stop = threading.Event()

        def put(item: Batch | BaseException) -> None:
            while not stop.is_set():
                with suppress(queue.Full):
                    ready.put(item, timeout=0.1)
                    return

        def work() -> None:
            try:
                for step in range(first, last):
                    if stop.is_set():
                        return
                    put(self.windows.draw(step, self.batch_size, self.seed))
            except BaseException as error:
                put(error)

        thread = threading.Thread(target=work, name="lewm-prefetch", daemon=True)
        thread.start()
        try:
            for _ in range(first, last):
                item = ready.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
                del item  # its memory may be used for a batch to come
        finally:
            stop.set()
            thread.join()

    def _by_processes(self, first: int, last: int) -> Iterator[Batch]:
        from torch.utils.data import DataLoader

        loader = DataLoader(
            _Steps(self.windows, self.batch_size, self.seed),
            batch_size=None,
            sampler=range(first, last),
            num_workers=self.workers,
            collate_fn=_to_tensors,
            multiprocessing_context="forkserver" if os.name == "posix" else "spawn",  # fork after OpenGL hangs
        )
        for observations, actions, episodes, starts in loader:
            arrays = {name: rows.numpy() for name, rows in observations.items()}
            yield Batch(arrays, actions.numpy(), episodes.numpy(), starts.numpy())

    def _measure(self) -> tuple[int, str]:
        """Number of workers and the reason: windows per second of the thread and of one process per core."""
        cores = min(8, os.cpu_count() or 1)
        speeds = {}
        for turn, workers in enumerate((0, cores)):
            self.workers, first = workers, turn * (TRIAL + AHEAD)  # other windows each, for none of them is cached
            with closing(self.batches(first, first + TRIAL + AHEAD)) as batches:
                next(batches)  # starting up is not the question
                begin = time.perf_counter()
                count = sum(len(batch) for batch in batches)
            speeds[workers] = count / (time.perf_counter() - begin)
        chosen = cores if speeds[cores] > WORTH * speeds[0] else 0
        name = f"{cores} worker processes" if chosen else "one thread"
        return chosen, f"{name}: a thread reads {speeds[0]:,.0f} windows/s, {cores} processes {speeds[cores]:,.0f}"


class _Steps:
    """Training steps as a map-style data set: one item is one whole batch."""

    def __init__(self, windows: Windows, batch_size: int, seed: int) -> None:
        self._draw = windows, batch_size, seed

    def __getitem__(self, step: int) -> Batch:
        windows, batch_size, seed = self._draw
        return windows.draw(step, batch_size, seed)


def _to_tensors(batch: Batch) -> tuple[dict[str, Any], Any, Any, Any]:
    """Tensors travel between processes in shared memory, arrays would be pickled."""
    import torch

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array))

    observations = {name: tensor(rows) for name, rows in batch.observations.items()}
    return observations, tensor(batch.actions), tensor(batch.episodes), tensor(batch.starts)
