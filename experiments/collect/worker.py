"""What one worker does: its share of the episodes, under its own writer's name. Imports no torch: it starts often.

A worker reports to nobody: what it has committed to the folder is what the others know of it.
"""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np

import envs
from envs.gl import renderer_name
from envs.policies import Policy
from lewm import registry
from lewm.data import DatasetInfo, EpisodeWriter
from lewm.data.recording import EncodedRows
from lewm.types import InputError

LINE = 400  # bytes of an episode in the log, about
SAMPLES = 16  # pictures an estimate looks at


@dataclass(frozen=True)
class Share:
    """The work of one worker.

    Attributes:
        config: settings of the collection, `out` absolute and `rows` a number.
        info: of the data set, which is there already.
        writer: the name to write under.
        ids: episodes to record.
        barren: how many workers in a row died over this share without finishing an episode.
    """

    config: Mapping[str, Any]
    info: DatasetInfo
    writer: str
    ids: tuple[int, ...]
    barren: int = 0

    @property
    def trace(self) -> Path:
        """A file that is there while a first picture is drawn, and has a traceback in it if that took too long."""
        return Path(self.config["out"]) / f".{self.writer}.first-picture"


@dataclass(frozen=True)
class Estimate:
    """What a few pictures tell.

    Attributes:
        episode_bytes: what an episode will take on disk, about.
        renderer: what drew them, in OpenGL's words; None where that was not OpenGL.
    """

    episode_bytes: float
    renderer: str | None


def work(share: Share) -> None:
    """Record a share in a process of its own, which ends when a first picture takes longer than `probe_timeout`."""
    build_policy(share.config)
    if "torch" in sys.modules:  # this policy searches; the other cores belong to other workers
        sys.modules["torch"].set_num_threads(1)
    record_share(share, watched=True)


def record_share(share: Share, tick: Callable[[int], Any] = lambda _: None, watched: bool = False) -> None:
    """Record the episodes, `rows` of them at once; `tick` is told how many were committed."""
    config, ids = share.config, share.ids
    policy = build_policy(config)
    settings = {key: config[key] for key in ("seed", "steps", "frame_stride")}
    if not (Path(config["out"]) / "dataset.json").exists():
        raise InputError(f"worker {share.writer} finds no data set in {config['out']}: all nodes must share `out`")
    whole = len(ids) - len(ids) % config["rows"]
    batches = [(ids[:whole], config["rows"]), (ids[whole:], len(ids) - whole)]
    with EpisodeWriter(config["out"], share.info, writer=share.writer) as writer:
        for part, rows in [(part, rows) for part, rows in batches if part]:
            with _ready_task(share, rows, watched) as task:  # a simulator is made once or twice, not for each batch
                for first in range(0, len(part), rows):
                    recordings = [writer.begin(i) for i in part[first : first + rows]]
                    envs.record(task, policy, recordings, **settings)
                    writer.commit(recordings)
                    tick(rows)


def build_policy(config: Mapping[str, Any]) -> Policy:
    """The policy, after the imports it takes: those that search need torch, which the others do without."""
    registry.load_plugins(config["plugins"])
    if not _names(config["policy"]) <= set(registry.names("policy")):
        import_module("experiments.simulator")
    return registry.build("policy", config["policy"])


def _names(policy: Any) -> set[str]:
    """Of a policy, by its name or with settings, and of those it is made of."""
    if isinstance(policy, str):
        return {policy}
    return {policy["name"]}.union(*(_names(part) for part in policy.get("parts", ())))


def look_ahead(config: Mapping[str, Any], info: DatasetInfo, watched: bool) -> Estimate:
    """Draw a few pictures of the set to be; in a process of its own if `watched`."""
    registry.load_plugins(config["plugins"])
    rng = np.random.default_rng(config["seed"])
    limit = config["probe_timeout"] if watched else None
    with _within(limit), closing(registry.build("env", config["env"], rows=1)) as task:
        pictures = task.draw(np.stack([task.sample_state(rng) for _ in range(SAMPLES)]))
    stored = EncodedRows("pixels", 0, info.columns["pixels"])
    stored.extend(pictures)
    data, index, _ = stored.stored()
    row_bytes = {name: column.row_bytes for name, column in info.columns.items()}
    row_bytes["pixels"] = (len(data) + (0 if index is None else index.nbytes)) / SAMPLES
    size = LINE + sum(row_bytes[name] * column.rows(config["steps"]) for name, column in info.columns.items())
    return Estimate(size, renderer_name())


@contextmanager
def _ready_task(share: Share, rows: int, watched: bool) -> Iterator[envs.GoalTask]:
    """A task that has drawn its first picture, the way the data set says."""
    config, expected = share.config, share.info.source["task"]["rendering"]
    with _within(config["probe_timeout"] if watched else None, share.trace):
        task = registry.build("env", config["env"], rows=rows)
        task.draw(task.sample_state(np.random.default_rng(0))[None])
    with closing(task):
        if dict(task.rendering) != expected:
            raise InputError(
                f"worker {share.writer} draws with {dict(task.rendering)}, this data set has {expected}: "
                "set MUJOCO_GL alike on all machines"
            )
        yield task


@contextmanager
def _within(seconds: float | None, trace: Path | None = None) -> Iterator[None]:
    """End this process, with a traceback in `trace`, if what is inside takes longer, be it hung in C code."""
    if seconds is None:
        yield
        return
    with trace.open("w") if trace else TemporaryFile() as file:
        faulthandler.dump_traceback_later(seconds, exit=True, file=file)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            if trace:
                trace.unlink()
