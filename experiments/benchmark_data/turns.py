"""Windows per second of every store, in turns; its size on disk, time to open, memory and fidelity."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from experiments.benchmark_data import process
from experiments.benchmark_data.sets import STORES, stored_bytes
from experiments.runs import progress
from experiments.workers import Worker

MEMORY_BATCHES = 16
UNCHECKED = ("floor_zstd", "floor_copy")


def measure(
    folder: Path,
    stores: Sequence[str],
    *,
    peer: Path | None,
    frames: int,
    rounds: int,
    seconds: float,
    openings: int,
) -> list[dict[str, Any]]:
    """One row per store. All processes stay; only one of them works at any time.

    Args:
        frames: in the set; rounds: turns of each store; seconds: of a turn, at least; openings: fresh processes.
    """
    rows: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack, progress(len(stores) * (openings + rounds), folder.name, "turns") as bar:
        workers: dict[str, Worker] = {}
        for store in stores:
            opened = []
            for left in reversed(range(openings)):
                worker = process.serve(store, folder, peer)
                opened.append(worker.hello | worker.ask("open"))
                if left:
                    worker.__exit__(None, None, None)
                bar.update()
            workers[store] = stack.enter_context(worker)
            rows[store] = {
                "store": store,
                "versions": worker.hello["versions"],
                "bytes_per_frame": round(stored_bytes(folder / STORES[store].path) / frames, 1),
                **{k: [one[k] for one in opened] for k in ("import_seconds", "open_seconds", "first_seconds")},
                "windows_per_second": [],
            }
            if store not in UNCHECKED:
                rows[store] |= worker.ask("check")
            rows[store] |= worker.ask("memory", batches=MEMORY_BATCHES)
        for turn in range(rounds):
            for k in range(len(stores)):
                store = stores[(k + turn) % len(stores)]
                found = workers[store].ask("turn", seconds=seconds)
                rows[store]["windows_per_second"].append(round(found["windows"] / found["seconds"], 1))
                bar.update()
    return list(rows.values())
