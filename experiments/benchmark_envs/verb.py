"""The verb: cells that are measured where the log lacks them, and the page made of the log."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from envs import SimulatorTask
from experiments.benchmark_envs import page, turns
from experiments.cells import Cell, Rows, complete
from experiments.peers.envs_worker import NAMES
from experiments.runs import at_least, exclusive, say
from experiments.workers import peer_python
from lewm import registry
from lewm.types import InputError

PARTS = ("frames", "workers")
SETUP = Path(__file__).parents[1] / "peers" / "setup_envs.sh"


def benchmark_envs(config: Mapping[str, Any]) -> None:
    """Measure what is asked for and missing; see `configs/benchmark_envs.yaml`."""
    _check(config)
    out, run = Path(config["out"]), Path(config["run"])
    with exclusive(out), exclusive(run):
        complete(out / "envs.jsonl", _Benchmark(config, run).cells())
        page.write(out)
    say(f"benchmark {out / 'envs.md'}")


def _check(config: Mapping[str, Any]) -> None:
    at_least(config, rounds=1, repeats=1)
    for key, known in (("parts", PARTS), ("tasks", tuple(NAMES))):
        unknown = [name for name in config[key] if name not in known]
        if unknown:
            raise InputError(f"{key} are {', '.join(known)}; got '{unknown[0]}'")
    if not config["tasks"] or not config["sizes"]:
        raise InputError(f"tasks and sizes must name one at least, got {config['tasks']} and {config['sizes']}")
    for key in ("seconds", "collect_seconds", "workers_seconds"):
        if not config[key] > 0:
            raise InputError(f"{key} must be above 0, got {config[key]}")


class _Benchmark:
    """The cells of a configuration."""

    def __init__(self, config: Mapping[str, Any], run: Path) -> None:
        self._config, self._run, self._beside = config, run, config["peer"] != ""

    def cells(self) -> list[Cell]:
        """What `parts` asks for: each task at each size, then the simulators by number of workers."""
        cells = []
        if "frames" in self._config["parts"]:
            for task in self._config["tasks"]:
                for size in self._config["sizes"]:
                    settings = self._settings(task, size, "rounds", "seconds", "collect_seconds")
                    cells.append(
                        Cell(
                            f"{task} at {size} pixels",
                            {**settings, "peer": self._beside},
                            partial(self._frames, task, size),
                        )
                    )
        if "workers" in self._config["parts"]:
            size = self._config["sizes"][0]
            for task in self._config["tasks"]:
                if issubclass(registry.get("env", task), SimulatorTask):
                    settings = self._settings(task, size, "repeats", "workers_seconds")
                    cells.append(Cell(f"workers of {task}", settings, partial(self._workers, task, size)))
        return cells

    def _settings(self, task: str, size: int, *keys: str) -> dict[str, Any]:
        return {"task": task, "size": size, **{key: self._config[key] for key in keys}}

    def _frames(self, task: str, size: int) -> Rows:
        asked = {key: self._config[key] for key in ("rounds", "seconds", "collect_seconds")}
        return turns.side_by_side(task, size, self._run, self._peer, **asked)

    def _workers(self, task: str, size: int) -> Rows:
        seconds, repeats = self._config["workers_seconds"], self._config["repeats"]
        return turns.by_workers(task, size, self._run, repeats=repeats, seconds=seconds)

    @cached_property
    def _peer(self) -> Path | None:
        """The peer's Python, set up if need be; None where it is not wanted."""
        return peer_python(Path(self._config["peer"] or self._run / "peer"), SETUP) if self._beside else None
