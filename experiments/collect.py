"""`lewm collect`: task + policy -> data set."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import envs
from experiments.build import build_task
from experiments.runs import at_least, progress, provenance, say
from lewm import registry
from lewm.data import Column, DatasetInfo, EpisodeReader, EpisodeWriter
from lewm.data.schema import read_log


def collect(config: Mapping[str, Any]) -> Path:
    """Record the episodes that are still missing; see `configs/collect.yaml` for the settings."""
    folder, count, steps = Path(config["out"]), config["episodes"], config["steps"]
    at_least(config, episodes=1, steps=1, rows=1, frame_stride=1, seed=0)
    policy = registry.build("policy", config["policy"])
    info = _info(config)
    begin = time.perf_counter()
    with EpisodeWriter(folder, info) as writer:
        done = {c.id for log in folder.glob("episodes-*.jsonl") for c in read_log(log)[0]}
        missing = [i for i in range(count) if i not in done]
        with progress(count, "collect", "episodes", initial=count - len(missing)) as bar:
            for first in range(0, len(missing), config["rows"]):
                ids = missing[first : first + config["rows"]]
                task = build_task(config["env"], len(ids))
                writer.commit(
                    envs.rollout(
                        task,
                        policy,
                        ids,
                        seed=config["seed"],
                        steps=steps,
                        frame_stride=config["frame_stride"],
                    )
                )
                bar.update(len(ids))
    seconds = time.perf_counter() - begin
    reader = EpisodeReader(folder)
    frames = len(missing) * info.columns["pixels"].rows(steps)
    speed = f"{frames / seconds:,.0f} frames/s" if missing else "already there"
    say(f"collect   {len(reader)} episodes, {reader.nbytes / 1e6:.1f} MB in {folder} ({seconds:.1f} s, {speed})")
    return folder


def _info(config: Mapping[str, Any]) -> DatasetInfo:
    task = build_task(config["env"], 1)
    columns = {
        "pixels": Column("uint8", task.image_shape, config["frame_stride"], "zstd:3"),
        "state": Column("float64", (task.state_dim,)),
        "action": Column("float32", (len(task.low),)),
    }
    source = {key: config[key] for key in ("env", "policy", "seed", "steps", "frame_stride", "plugins")}
    return DatasetInfo(columns, tuple(task.low.tolist()), tuple(task.high.tolist()), source, provenance())
