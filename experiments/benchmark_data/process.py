"""Worker processes of the stores: ours in this environment, the peer's in its own."""

from __future__ import annotations

import sys
from pathlib import Path

from experiments import workers
from experiments.benchmark_data import worker as ours
from experiments.peers import data_worker as peers
from experiments.workers import Worker


def command(store: str, peer: Path | None) -> list[str]:
    """How the worker of a store is started."""
    if store in ours.STORES:
        return [sys.executable, str(Path(ours.__file__))]
    return [str(peer), str(Path(peers.__file__))]


def serve(store: str, folder: Path, peer: Path | None) -> Worker:
    """A process that serves one store."""
    return Worker(store, [*command(store, peer), "serve", store, str(folder)])


def run(store: str, peer: Path | None, *arguments: str | Path | int) -> str:
    """Have a worker do one thing; returns the last line it said."""
    return workers.run(store, [*command(store, peer), *arguments])
