"""The verb: settings in, a data set, a line about it and a contact sheet out."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from envs import GoalTask, SimulatorTask
from envs.policies import Mixed, Policy
from experiments.build import build_task
from experiments.collect import crew
from experiments.collect.executors import Executor, LocalExecutor
from experiments.collect.worker import Share, build_policy, look_ahead, record_share
from experiments.data_view import save_overview
from experiments.runs import at_least, progress, provenance, say
from lewm import registry
from lewm.data import Column, DatasetInfo, EpisodeReader, EpisodeWriter
from lewm.data.log import committed_ids
from lewm.data.writer import IN_FLIGHT, claim
from lewm.types import InputError

SIMULATOR_ROWS = 16  # `rows: auto`: a simulator steps its rows one after another, more of them are only held longer
BATCH_BYTES = 5_000_000  # of pictures drawn at once by a batched task: larger batches fall out of the cache
SURE = 0.8  # an estimate is taken for an error when this part of it does not fit the disk


def collect(config: Mapping[str, Any]) -> Path:
    """Record the episodes that are still missing; see `configs/collect.yaml` for the settings.

    Raises:
        InputError: settings that do not fit each other, the task, the folder, the disk or this machine; workers
            keep dying.
    """
    at_least(config, episodes=1, steps=1, frame_stride=1, probe_timeout=1, seed=0)
    policy, folder = build_policy(config), Path(config["out"])
    with closing(build_task(config["env"], 1)) as task, registry.build("executor", config["executor"]) as executor:
        info = _info(config, task)
        config = {**config, "out": str(folder.resolve()), **_counts(config, task, executor)}
        safe = task.rendering.get("backend") == "numpy"  # drawn without a driver, which may hang or crash
        if (folder / "dataset.json").exists():
            claim(folder, info)
        if missing := _missing(config):
            _check_policy(policy, task, config)
            found = look_ahead(config, info, False) if safe else crew.estimate(executor, config, info)
            _check_space(folder, len(missing), found.episode_bytes)
            if found.renderer:  # not compared: who goes on elsewhere is not refused
                info = replace(info, creator={**info.creator, "renderer": found.renderer})
        EpisodeWriter(folder, info).close()  # the folder is ours, or an error, before there are workers
        with _alone(folder):
            missing = _missing(config)
            begin = time.perf_counter()
            with _bar(config, info, len(missing)) as tick:
                if safe and config["workers"] == 1 and isinstance(executor, LocalExecutor):
                    record_share(Share(config, info, "w0000", tuple(missing)), tick)
                else:
                    crew.record(executor, config, info, missing, tick)
            seconds = time.perf_counter() - begin
    _say_what_came(folder, len(missing) * info.columns["pixels"].rows(config["steps"]), seconds)
    return folder


def _missing(config: Mapping[str, Any]) -> list[int]:
    done = committed_ids(Path(config["out"]))
    return [i for i in range(config["episodes"]) if i not in done]


def _check_policy(policy: Policy, task: GoalTask, config: Mapping[str, Any]) -> None:
    """Refuse a policy that cannot act here, by one step of it that is not taken; nothing is drawn."""
    task.get_goal = _no_goal  # of a task that is only asked, so nobody misses it
    try:
        _rehearse(policy, task)
    except InputError as error:
        raise InputError(
            f"policy={config['policy']['name']} cannot record {config['env']['name']}: {error}"
        ) from None


def _rehearse(policy: Policy, task: GoalTask) -> None:
    """One step of a policy; of a mixture, of all its parts."""
    if isinstance(policy, Mixed):
        for part in (policy.policies[k] for k in np.flatnonzero(policy.weights)):
            _rehearse(part, task)
        return
    rng = np.random.default_rng(0)
    start = task.sample_state(rng)[None]
    task.reset(start, start)
    policy.begin(task, [rng], 1)(0, start)


def _no_goal() -> np.ndarray:
    raise InputError(
        "it pursues the task's own goal, which a recorded episode does not have; goal_directed, expert and search "
        "draw goals of their own"
    )


def _counts(config: Mapping[str, Any], task: GoalTask, executor: Executor) -> dict[str, int]:
    """Rows and workers as numbers."""
    chosen = {
        "rows": usual_rows(task),
        "workers": executor.slots(),
    }
    for name in chosen:
        if config[name] != "auto":
            if type(config[name]) is not int or config[name] < 1:
                raise InputError(f"{name} must be auto or a whole number of at least 1, got {config[name]}")
            chosen[name] = config[name]
    if chosen["rows"] > IN_FLIGHT:
        raise InputError(
            f"rows must be at most {IN_FLIGHT}, got {chosen['rows']}: so many episodes may be in flight"
        )
    return chosen


def usual_rows(task: GoalTask) -> int:
    """What `rows: auto` stands for."""
    if isinstance(task, SimulatorTask):
        return SIMULATOR_ROWS
    return min(IN_FLIGHT, max(SIMULATOR_ROWS, BATCH_BYTES // math.prod(task.image_shape)))


def _check_space(folder: Path, episodes: int, episode_bytes: float) -> None:
    """Say what a collection will take, and refuse one that clearly does not fit."""
    place = next(parent for parent in (folder.resolve(), *folder.resolve().parents) if parent.exists())
    need, free = episodes * episode_bytes, shutil.disk_usage(place).free
    text = f"{episodes:,} episodes of about {_size(episode_bytes)} need {_size(need)}, {_size(free)} are free"
    if SURE * need > free:
        raise InputError(
            f"{text} on the disk of {folder}: choose another out=..., fewer episodes, smaller images, a larger "
            "frame_stride or codec=jpeg:95; what was recorded before is kept"
        )
    say(f"collect   {text}")


@contextmanager
def _bar(config: Mapping[str, Any], info: DatasetInfo, missing: int) -> Iterator[Callable[[int], None]]:
    """A progress bar of episodes that shows frames per second; to be told how many more are done."""
    frames, begin, done = info.columns["pixels"].rows(config["steps"]), time.perf_counter(), 0
    total = config["episodes"]
    with progress(total, "collect", "episodes", initial=total - missing) as bar:

        def tick(count: int) -> None:
            nonlocal done
            done += count
            if count:
                bar.set_postfix_str(f"{done * frames / (time.perf_counter() - begin):,.0f} frames/s", refresh=False)
                bar.update(count)

        yield tick


def _say_what_came(folder: Path, frames: int, seconds: float) -> None:
    """One line about the set, and its contact sheet."""
    reader, sheet = EpisodeReader(folder), folder / "contact_sheet.png"
    speed = f"{seconds:.1f} s, {frames / seconds:,.0f} frames/s" if frames else "already there"
    text = f"collect   {len(reader)} episodes, {_size(reader.nbytes)} in {folder} ({speed})"
    if frames or not sheet.exists():
        save_overview(reader, sheet)
    say(f"{text}, see {sheet.name}")


def _size(count: float) -> str:
    """Bytes in words."""
    power = min(4, int(math.log10(max(count, 1)) / 3))
    return f"{count / 1000**power:.{1 if power else 0}f} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the set against a second collection, which would record the same episodes."""
    try:
        with FileLock(folder / ".collect.lock", timeout=0):
            yield
    except Timeout:
        raise InputError(f"another `lewm collect` is writing into {folder}; wait for it to end") from None


def _info(config: Mapping[str, Any], task: GoalTask) -> DatasetInfo:
    columns = {
        "pixels": Column("uint8", task.image_shape, config["frame_stride"], config["codec"]),
        "state": Column("float64", (task.state_dim,)),
        **{name: Column("float64", (length,)) for name, length in task.sensors.items()},
        "action": Column("float32", (len(task.low),), transition=True),
    }
    source = {key: config[key] for key in ("env", "policy", "seed", "steps", "frame_stride", "plugins")}
    source |= {"task": {"version": task.version, "rendering": dict(task.rendering)}}
    source |= {"preset": config["preset"]} if config["preset"] else {}
    return DatasetInfo(columns, tuple(task.low.tolist()), tuple(task.high.tolist()), source, provenance())
