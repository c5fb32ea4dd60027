"""Keeps workers at work until every episode is there, and finds replacements for those that die."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.collect.executors import Died, Executor
from experiments.collect.worker import Estimate, Share, look_ahead, work
from experiments.runs import say
from lewm.data import DatasetInfo
from lewm.data.log import committed_ids, log_paths
from lewm.types import InputError

LOOK_EVERY = 0.2  # seconds between two looks at what the workers have committed
PATIENCE = 10.0  # seconds until it is said that workers wait for a place to run
ATTEMPTS = 3  # workers that may die in a row over the same episodes


def record(
    executor: Executor,
    config: Mapping[str, Any],
    info: DatasetInfo,
    ids: Sequence[int],
    tick: Callable[[int], Any],
) -> None:
    """Record these episodes with `workers` workers; which of them records an episode changes nothing.

    Raises:
        InputError: workers die again and again over the same episodes; what is committed stays.
    """
    count, lines, places = min(config["workers"], len(ids)), _Lines(Path(config["out"])), _Places(executor)
    lines.new()
    shares = [Share(config, info, f"w{number:04d}", tuple(ids[number::count])) for number in range(count)]
    running = {executor.start(work, share): share for share in shares}
    try:
        while running:
            ended = executor.wait(list(running), LOOK_EVERY)
            tick(lines.new())
            places.look([handle for handle in running if handle not in ended])
            for handle in ended:
                share = running.pop(handle)
                try:
                    executor.result(handle)
                except Died as death:
                    left = _what_is_left(share, str(death))
                    if left.ids:
                        left = replace(left, writer=executor.successor(share.writer))
                        running[executor.start(work, left)] = left
    finally:
        for handle, share in running.items():
            executor.stop(handle)
            share.trace.unlink(missing_ok=True)


def estimate(executor: Executor, config: Mapping[str, Any], info: DatasetInfo) -> Estimate:
    """About how many bytes an episode takes; its pictures are drawn where the workers will draw theirs.

    Raises:
        InputError: drawing hangs, or ends the process.
    """
    handle, places = executor.start(look_ahead, config, info, True), _Places(executor)
    try:
        while not executor.wait([handle], LOOK_EVERY):
            places.look([handle])
    except BaseException:
        executor.stop(handle)
        raise
    try:
        return executor.result(handle)
    except Died as death:
        raise _no_picture(config, f"a process that tried {death}") from None


def _what_is_left(share: Share, how: str) -> Share:
    """The share of a worker that died, less the episodes it finished; too many deaths in a row are an error."""
    done = committed_ids(Path(share.config["out"]))
    ids = tuple(i for i in share.ids if i not in done)
    barren = 0 if len(ids) < len(share.ids) else share.barren + 1
    drawing = share.trace.exists()
    hung = drawing and share.trace.stat().st_size > 0
    share.trace.unlink(missing_ok=True)
    if hung or (drawing and barren == ATTEMPTS):
        raise _no_picture(share.config, f"worker {share.writer} {how}")
    if barren == ATTEMPTS:
        raise InputError(
            f"{ATTEMPTS} collecting processes in a row died over the same episodes, {ids[0]} and after; the last "
            f"one {how} (out of memory?). {len(done)} episodes are kept: run the same command again to go on, with "
            "fewer rows or workers if memory is short"
        )
    if ids:
        say(f"          worker {share.writer} {how}; its other {len(ids)} episodes are done by a new one")
    return replace(share, ids=ids, barren=barren)


def _no_picture(config: Mapping[str, Any], how: str) -> InputError:
    return InputError(
        f"{config['env']['name']} could not draw its first picture within {config['probe_timeout']} s ({how}): see "
        "with `lewm doctor` what works here, or raise probe_timeout if the machine is slow"
    )


class _Places:
    """Says that workers wait for a place to run, when they have for a while: it may be for ever."""

    def __init__(self, executor: Executor) -> None:
        self._executor, self._next, self._said = executor, time.monotonic() + PATIENCE, False

    def look(self, handles: Sequence[Any]) -> None:
        if not handles or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + PATIENCE
        count = self._executor.waiting(handles)
        if count and not self._said:
            say(f"          {count} of {len(handles)} workers wait until the cluster has room for them")
        self._said = count > 0


class _Lines:
    """Counts the lines that were added to the logs of a set since it was last asked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[Path, int] = {}

    def new(self) -> int:
        count = 0
        for path in log_paths(self._folder):
            with path.open("rb") as file:
                file.seek(self._seen.get(path, 0))
                data = file.read()
            count += data.count(b"\n")
            self._seen[path] = self._seen.get(path, 0) + len(data)
        return count
