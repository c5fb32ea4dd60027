"""Writes a Minari data set in its HDF5 layout; layout in `minari`."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lewm.data.formats.base import Tick
from lewm.data.formats.common import FINGERPRINT, TRANSITION
from lewm.data.formats.minari_files import EXTRA, FACTS, MAIN_FILE, METADATA
from lewm.data.schema import Column
from lewm.extras import need
from lewm.types import InputError

if TYPE_CHECKING:
    import h5py

    from lewm.data.reader import EpisodeReader

VERSION = "0.5.4"
FRAME_BYTES = 1024  # rows from this size on are chunked and compressed one by one


def write_minari(reader: EpisodeReader, out: Path, tick: Tick) -> None:
    """Write data set `out` (its name is the id) beside and rename it: HDF5 does not survive a kill."""
    columns = reader.info.columns
    strided = [name for name, column in columns.items() if column.stride > 1]
    if strided:
        raise InputError(
            f"column '{strided[0]}' has one row in {columns[strided[0]].stride} steps; Minari needs one per step"
        )
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    data = part / "data"
    data.mkdir(parents=True)
    h5py = need("h5py", EXTRA)
    with h5py.File(data / MAIN_FILE, "w", libver=("v108", "latest"), track_order=True) as file:
        for position in range(len(reader)):
            episode = reader.episode(position)
            group = file.create_group(f"episode_{position}")
            group.attrs["id"], group.attrs["total_steps"] = position, episode.steps
            seed = episode.facts.get("seed")
            if isinstance(seed, int):
                group.attrs["seed"] = seed
            group.attrs[FACTS] = json.dumps(dict(episode.facts))
            _write_episode(group, episode.columns, columns)
            tick(1)
    with (data / MAIN_FILE).open("rb") as written:
        os.fsync(written.fileno())
    (data / METADATA).write_text(json.dumps(_metadata(reader, out.name, data)))
    part.replace(out)


def _write_episode(group: h5py.Group, values: dict[str, np.ndarray], columns: dict[str, Column]) -> None:
    steps = len(values["action"])
    standard = {"action": "actions", "reward": "rewards", "terminated": "terminations", "truncated": "truncations"}
    for name, column in columns.items():
        rows = np.asarray(values[name])
        if name in standard:
            group.create_dataset(standard[name], data=rows)
        elif column.transition:  # as in gymnasium, where an info comes with the observation after the step
            late = np.concatenate([np.zeros_like(rows[:1]), rows])
            group.create_dataset(f"infos/{name}", data=late).attrs[TRANSITION] = True
        else:
            frames = column.row_bytes >= FRAME_BYTES
            options = {"chunks": (1, *column.shape), "compression": "gzip", "compression_opts": 1} if frames else {}
            group.create_dataset(f"observations/{name}", data=rows, **options)
    ends = {"terminated", "truncated"} & set(columns)
    for name in ("terminated", "truncated"):
        if name not in columns:
            flags = np.zeros(steps, bool)
            flags[-1] = name == "truncated" and not ends  # an episode of which nothing else is known was cut off
            group.create_dataset(standard[name], data=flags)
    if "reward" not in columns:
        group.create_dataset("rewards", data=np.zeros(steps))


def _metadata(reader: EpisodeReader, name: str, data: Path) -> dict[str, Any]:
    info = reader.info
    spaces = {key: _box(column) for key, column in info.columns.items() if not column.transition}
    low, high = (np.asarray(bound, np.float64) for bound in (info.action_low, info.action_high))
    action = _box(info.columns["action"]) | {"low": low.tolist(), "high": high.tolist()}
    return {
        "dataset_id": name,
        "total_episodes": len(reader),
        "total_steps": int(np.sum(reader.steps)),
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "observation_space": json.dumps({"type": "Dict", "subspaces": spaces}),
        "action_space": json.dumps(action),
        "dataset_size": round(sum(f.stat().st_size for f in data.iterdir()) / 1e6, 1),
        "minari_version": VERSION,
        FINGERPRINT: reader.fingerprint,
    }


def _box(column: Column) -> dict[str, Any]:
    """A Box space of all values of a dtype, in Minari's JSON."""
    dtype = np.dtype(column.dtype)
    low, high = {"f": (-np.inf, np.inf), "b": (0, 1)}.get(dtype.kind) or (np.iinfo(dtype).min, np.iinfo(dtype).max)
    # Nested lists of every bound, however large the image: their reader takes no single number.
    bounds = (np.full(column.shape, value, np.float64 if dtype.kind == "f" else dtype) for value in (low, high))
    return {"type": "Box", "dtype": dtype.name, "shape": list(column.shape)} | dict(
        zip(("low", "high"), (bound.tolist() for bound in bounds), strict=True)
    )
