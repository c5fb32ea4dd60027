"""Worker processes of a benchmark: each serves one contestant, with one thread, and is asked one at a time."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from experiments.runs import say

ENVIRONMENT = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "RAYON")}


class Worker:
    """A process that answers JSON lines; `hello` is what it said when its imports were done.

    Args:
        name: what it serves, for errors; command: how it is started; environment: variables beside our own.

    Raises:
        RuntimeError: it ended; with the last lines of what it said.
    """

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self.name, self._errors = name, tempfile.TemporaryFile("w+")  # noqa: SIM115, closed in __exit__
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **ENVIRONMENT, **(environment or {})},
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
            raise RuntimeError(f"the worker of '{self.name}' failed:\n{self._errors.read()[-2000:]}")
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


def run(name: str, command: Sequence[str | Path | int]) -> str:
    """Have a worker do one thing; returns the last line it said."""
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, env={**os.environ, **ENVIRONMENT}
    )
    if done.returncode:
        raise RuntimeError(f"the worker of '{name}' failed:\n{done.stderr[-2000:]}")
    return done.stdout.strip().rpartition("\n")[2]


def peer_python(folder: Path, setup: Path, environment: Mapping[str, str] | None = None) -> Path:
    """The Python of a peer's virtual environment, which `setup` makes where it is missing."""
    python = folder / "bin" / "python"
    if not python.exists():
        say(f"          setting up {folder} ...")
        subprocess.run(["bash", str(setup), str(folder)], check=True, env={**os.environ, **(environment or {})})
    return python.absolute()
