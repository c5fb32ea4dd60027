"""The verb: cells that are measured where the log lacks them, and the page made of the log."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from experiments.benchmark_data import crash, page, process, scale, sets, turns
from experiments.cells import Cell, Rows, complete
from experiments.peers.data_worker import FRAMES, STRIDE
from experiments.runs import at_least, exclusive, say
from experiments.workers import peer_python
from lewm.types import InputError

PARTS = ("windows", "crash", "index")
SETUP = Path(__file__).parents[1] / "peers" / "setup_data.sh"
PEER_INDEX = 100_000  # episodes; a million would take their index 10 GB


def benchmark_data(config: Mapping[str, Any]) -> None:
    """Measure what is asked for and missing; see `configs/benchmark_data.yaml`."""
    at_least(config, steps=FRAMES * STRIDE, rounds=1, openings=1)
    _check(config)
    out, run = Path(config["out"]), Path(config["run"])
    with exclusive(out), exclusive(run):
        complete(out / "data.jsonl", _Benchmark(config, run).cells())
        page.write(out)
    say(f"benchmark {out / 'data.md'}")


def _check(config: Mapping[str, Any]) -> None:
    unknown = [part for part in config["parts"] if part not in PARTS]
    if unknown:
        raise InputError(f"parts are {', '.join(PARTS)}; got '{unknown[0]}'")
    if len(config["sizes"]) != len(config["episodes"]) or not config["sizes"]:
        raise InputError(f"episodes needs one number for each of sizes={config['sizes']}, got {config['episodes']}")
    if min(config["episodes"]) < 1:
        raise InputError(f"episodes must be at least 1, got {config['episodes']}")
    if "crash" in config["parts"] and not 0 < max(config["kill_at"], default=0) < config["episodes"][0]:
        raise InputError(
            f"kill_at={config['kill_at']} needs numbers from 1 to below episodes[0]={config['episodes'][0]}"
        )


class _Benchmark:
    """The cells of a configuration."""

    def __init__(self, config: Mapping[str, Any], run: Path) -> None:
        self._config, self._run, self._beside = config, run, config["peer"] != ""
        self._drawn = list(zip(config["sizes"], config["episodes"], strict=True))

    def cells(self) -> list[Cell]:
        """What `parts` asks for, in its order of cost."""
        parts, cells = self._config["parts"], []
        if "windows" in parts:
            cells += [
                Cell(
                    f"windows at {size} pixels",
                    self._settings(k, "rounds", "seconds", "openings"),
                    partial(self._windows, k),
                )
                for k, (size, _) in enumerate(self._drawn)
            ]
        if "crash" in parts:
            cells.append(Cell("crash", self._settings(0, "kill_at"), self._killed))
        if "index" in parts:
            cells.append(Cell("index", self._settings(0, "index", "rounds"), self._index))
        return cells

    def _settings(self, k: int, *keys: str) -> dict[str, Any]:
        size, episodes = self._drawn[k]
        settings = {"size": size, "episodes": episodes, "steps": self._config["steps"], "peer": self._beside}
        return {**settings, **{key: self._config[key] for key in keys}}

    def _windows(self, k: int) -> Rows:
        stores = self._known(sets.STORES)
        frames = self._drawn[k][1] * (self._config["steps"] + 1)
        asked = {key: self._config[key] for key in ("rounds", "seconds", "openings")}
        return turns.measure(self._ready(k, stores), stores, peer=self._peer, frames=frames, **asked)

    def _killed(self) -> Rows:
        writers = self._known(crash.WRITERS)
        return crash.measure(self._ready(0, []) / "raw", self._run, writers, self._config["kill_at"], self._peer)

    def _index(self) -> Rows:
        real = self._ready(0, []) / "zstd"
        rows = scale.measure(real, self._run, self._config["index"], self._config["rounds"])
        for row in rows:
            if self._beside and row["episodes"] <= PEER_INDEX:
                row["peer"] = json.loads(process.run("lance", self._peer, "index", row["episodes"]))
        return rows

    def _known(self, stores: Iterable[str]) -> list[str]:
        return [name for name in stores if self._beside or name in process.ours.STORES]

    def _ready(self, k: int, stores: Sequence[str]) -> Path:
        """The folder of a size's episodes, all kinds of stores written."""
        (size, episodes), steps = self._drawn[k], self._config["steps"]
        folder = self._run / f"{size}_pixels_{episodes}_episodes_{steps}_steps"
        sets.make(folder, size=size, episodes=episodes, steps=steps, stores=stores, peer=self._peer)
        return folder

    @cached_property
    def _peer(self) -> Path | None:
        """The peer's Python, set up if need be; None where it is not wanted."""
        if not self._beside:
            return None
        folder = Path(self._config["peer"] or self._run / "peer")
        return peer_python(folder, SETUP, {"GOLDEN": "1"})
