"""The same Two-Room episodes in every store, and the list of random windows that all read."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import envs
from experiments.benchmark_data import process
from experiments.benchmark_data import worker as ours
from experiments.build import build_task
from experiments.peers import data_worker as peers
from experiments.peers.data_worker import BATCH, FRAMES, STRIDE
from experiments.runs import progress
from lewm import registry
from lewm.data import EpisodeReader, EpisodeWriter

BATCHES = 64  # in the list
POLICY, ROWS, SEED = {"name": "mixed"}, 25, 0
STORES = {**ours.STORES, **peers.STORES}
WHOLE = 1 << 62  # no second shard: the peers map our raw files as one array


def make(folder: Path, *, size: int, episodes: int, steps: int, stores: Sequence[str], peer: Path | None) -> None:
    """Write what is missing of the episodes, in the kind of each store, and of the list of windows."""
    wanted = list(dict.fromkeys(["raw", "zstd", *(STORES[name].path for name in stores)]))
    with progress(len(wanted), f"{size} pixels", "sets") as bar:
        if not (folder / "raw").exists() or not (folder / "zstd").exists():
            _ours(folder, size, episodes, steps)
        bar.update(2)
        for kind in wanted[2:]:
            if not (folder / kind).exists():
                part = folder / f"{kind}.part"
                shutil.rmtree(part, ignore_errors=True)
                process.run(kind, peer, "write", kind, folder / "raw", part)
                part.rename(folder / kind)
            bar.update()
    _windows(folder, episodes, steps)


def _ours(folder: Path, size: int, episodes: int, steps: int) -> None:
    policy, parts = registry.build("policy", POLICY), {kind: folder / f"{kind}.part" for kind in ("raw", "zstd")}
    writers: dict[str, EpisodeWriter] = {}
    for part in parts.values():
        shutil.rmtree(part, ignore_errors=True)
    for first in range(0, episodes, ROWS):
        ids = range(first, min(first + ROWS, episodes))
        task = build_task({"name": "two_room", "image_size": size}, len(ids))
        recorded = envs.rollout(task, policy, ids, seed=SEED, steps=steps)
        for kind, codec in (("raw", "raw"), ("zstd", "zstd:3")):
            if kind not in writers:
                info = ours.info_of(recorded[0].columns, codec, steps)
                writers[kind] = EpisodeWriter(parts[kind], info, shard_bytes=WHOLE)
            writers[kind].commit(recorded)
    for kind, writer in writers.items():
        writer.close()
        parts[kind].rename(folder / kind)


def _windows(folder: Path, episodes: int, steps: int) -> None:
    """The list, and what its first batch holds."""
    rng = np.random.default_rng(SEED)
    which = rng.integers(0, episodes, BATCH * BATCHES)
    starts = rng.integers(0, steps - FRAMES * STRIDE + 1, BATCH * BATCHES)
    numbers = {"frames": FRAMES, "stride": STRIDE, "batch": BATCH, "rows": steps + 1}
    np.savez(folder / "windows.npz", episodes=which, starts=starts, **numbers)
    raw, here = EpisodeReader(folder / "raw"), which[:BATCH]
    rows = starts[:BATCH, None] + np.arange(FRAMES) * STRIDE
    acts = starts[:BATCH, None] + np.arange(FRAMES * STRIDE)
    frames = raw.gather("pixels", np.broadcast_to(here[:, None], rows.shape), rows)
    actions = raw.gather("action", np.broadcast_to(here[:, None], acts.shape), acts)
    np.savez(folder / "truth.npz", frames=frames, actions=actions)


def stored_bytes(folder: Path) -> int:
    """Bytes of all files of a store."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
