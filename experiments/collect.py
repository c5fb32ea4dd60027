"""`lewm collect`: task + policy -> data set."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

from filelock import FileLock, Timeout

import envs
from experiments.build import build_task
from experiments.runs import at_least, progress, provenance, say
from lewm import registry
from lewm.data import Column, DatasetInfo, EpisodeReader, EpisodeWriter
from lewm.data.log import committed_ids, log_paths
from lewm.data.writer import IN_FLIGHT
from lewm.types import InputError

LOOK_EVERY = 0.2  # seconds between two looks at what the workers have committed


def collect(config: Mapping[str, Any]) -> Path:
    """Record the episodes that are still missing; see `configs/collect.yaml` for the settings."""
    folder, count, steps = Path(config["out"]), config["episodes"], config["steps"]
    at_least(config, episodes=1, steps=1, rows=1, workers=1, frame_stride=1, seed=0)
    if config["rows"] > IN_FLIGHT:
        raise InputError(
            f"rows must be at most {IN_FLIGHT}, got {config['rows']}: so many episodes may be in flight"
        )
    registry.build("policy", config["policy"])
    info = _info(config)
    begin = time.perf_counter()
    EpisodeWriter(folder, info).close()  # the folder is ours, or an error, before there are workers
    with _alone(folder):
        done = committed_ids(folder)
        missing = [i for i in range(count) if i not in done]
        with progress(count, "collect", "episodes", initial=count - len(missing)) as bar:
            _record(config, info, missing, bar.update)
    seconds = time.perf_counter() - begin
    reader = EpisodeReader(folder)
    frames = len(missing) * info.columns["pixels"].rows(steps)
    speed = f"{frames / seconds:,.0f} frames/s" if missing else "already there"
    say(f"collect   {len(reader)} episodes, {reader.nbytes / 1e6:.1f} MB in {folder} ({seconds:.1f} s, {speed})")
    return folder


def _record(config: Mapping[str, Any], info: DatasetInfo, ids: Sequence[int], tick: Callable[[int], Any]) -> None:
    """Share the work items out, each worker its own writer; which of them records an episode changes nothing."""
    workers = min(config["workers"], max(1, len(ids)))
    if workers == 1:
        record_part(config, info, "w0000", ids, tick)
        return
    lines = _Lines(Path(config["out"]))
    lines.new()
    recorded = 0
    start_method = "forkserver" if os.name == "posix" else "spawn"  # a fork after OpenGL was used hangs
    with ProcessPoolExecutor(workers, get_context(start_method), _end_with_parent) as pool:
        jobs = {
            pool.submit(record_part, config, info, f"w{number:04d}", ids[number::workers])
            for number in range(workers)
        }
        while jobs:
            done, jobs = wait(jobs, LOOK_EVERY)
            tick(new := lines.new())
            recorded += new
            try:
                for job in done:
                    job.result()
            except BrokenProcessPool:
                raise InputError(
                    f"a collecting process was killed after {recorded} episodes (out of memory?); "
                    "run the same command again to go on, with fewer rows if memory is short"
                ) from None


def record_part(
    config: Mapping[str, Any],
    info: DatasetInfo,
    writer_name: str,
    ids: Sequence[int],
    tick: Callable[[int], Any] = lambda _: None,
) -> None:
    """Record these episodes under one writer's name, `rows` of them at once."""
    registry.load_plugins(config["plugins"])
    policy = registry.build("policy", config["policy"])
    with EpisodeWriter(config["out"], info, writer=writer_name) as writer:
        for first in range(0, len(ids), config["rows"]):
            recordings = [writer.begin(i) for i in ids[first : first + config["rows"]]]
            task = build_task(config["env"], len(recordings))
            envs.record(
                task,
                policy,
                recordings,
                seed=config["seed"],
                steps=config["steps"],
                frame_stride=config["frame_stride"],
            )
            writer.commit(recordings)
            tick(len(recordings))


def _end_with_parent() -> None:
    """Let this process end when the one that started it does, killed or not: what was in flight can be recorded
    again."""
    parent = parent_process()
    if parent is not None:
        watch = Thread(target=lambda: (connection.wait([parent.sentinel]), os._exit(1)), daemon=True)
        watch.start()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the set against a second collection, which would record the same episodes."""
    try:
        with FileLock(folder / ".collect.lock", timeout=0):
            yield
    except Timeout:
        raise InputError(f"another `lewm collect` is writing into {folder}; wait for it to end") from None


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


def _info(config: Mapping[str, Any]) -> DatasetInfo:
    task = build_task(config["env"], 1)
    columns = {
        "pixels": Column("uint8", task.image_shape, config["frame_stride"], config["codec"]),
        "state": Column("float64", (task.state_dim,)),
        **{name: Column("float64", (length,)) for name, length in task.sensors.items()},
        "action": Column("float32", (len(task.low),), transition=True),
    }
    source = {key: config[key] for key in ("env", "policy", "seed", "steps", "frame_stride", "plugins")}
    source |= {"task": {"version": task.version, "rendering": dict(task.rendering)}}
    return DatasetInfo(columns, tuple(task.low.tolist()), tuple(task.high.tolist()), source, provenance())
