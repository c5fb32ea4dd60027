"""Worker processes: one per store, each on one core with one thread, asked one at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from experiments.benchmark_data import worker as ours
from experiments.peers import data_worker as peers

ENVIRONMENT = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "RAYON")}


def command(store: str, peer: Path | None) -> list[str]:
    """How the worker of a store is started: ours in this environment, the peer's in its own."""
    if store in ours.STORES:
        return [sys.executable, str(Path(ours.__file__))]
    return [str(peer), str(Path(peers.__file__))]


class Worker:
    """A process that serves one store; `hello` is what it said when its imports were done.

    Raises:
        RuntimeError: it ended; with the last lines of what it said.
    """

    def __init__(self, store: str, folder: Path, peer: Path | None) -> None:
        self.store, self._errors = store, tempfile.TemporaryFile("w+")  # noqa: SIM115, closed in __exit__
        self._process = subprocess.Popen(
            [*command(store, peer), "serve", store, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **ENVIRONMENT},
        )
        self.hello = self._answer()

    def ask(self, do: str, **settings: Any) -> dict[str, Any]:
        """Have it do something, and wait for the answer."""
        print(json.dumps({"do": do, **settings}), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise RuntimeError(f"the worker of '{self.store}' failed:\n{self._errors.read()[-2000:]}")
        return json.loads(line)

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
        self._errors.close()


def run(store: str, peer: Path | None, *arguments: str | Path | int) -> str:
    """Have a worker do one thing; returns the last line it said."""
    done = subprocess.run(
        [*command(store, peer), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **ENVIRONMENT},
    )
    if done.returncode:
        raise RuntimeError(f"the worker of '{store}' failed:\n{done.stderr[-2000:]}")
    return done.stdout.strip().rpartition("\n")[2]
