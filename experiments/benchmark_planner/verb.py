"""The verb: which parts to run, where their raw lines go, and the page made of them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments import config as configuration
from experiments.benchmark_planner import deadline, page, timing
from experiments.benchmark_planner.cells import DEFAULT, LEWM_STYLE, compute_cells, recipe_cell
from experiments.benchmark_planner.two_room import run_cells
from experiments.collect import collect
from experiments.peers.compare import compare
from experiments.runs import at_least, exclusive, progress, provenance, say
from experiments.train import train
from lewm.types import InputError

PARTS = ("speed", "deadline", "success", "equal")
SETUP = Path(__file__).parents[1] / "peers" / "setup.sh"
SHORT, WHOLE = 3, 30  # iterations of a timed plan; of the one whole plan


def benchmark_planner(config: Mapping[str, Any]) -> None:
    """Run what is asked for and missing; see `configs/benchmark_planner.yaml`."""
    at_least(config, repeats=1, workers=1, pairs=1, budget=1)
    unknown = [part for part in config["parts"] if part not in PARTS]
    if unknown:
        raise InputError(f"parts are {', '.join(PARTS)}; got '{unknown[0]}'")
    out, run = Path(config["out"]), Path(config["run"])
    with exclusive(out):
        for part in config["parts"]:
            say(f"benchmark {part}")
            {"speed": _speed, "deadline": _deadline, "success": _success, "equal": _equal}[part](config, out, run)
        page.write(out)
    say(f"benchmark {out / 'planner.md'}")


def _speed(config: Mapping[str, Any], out: Path, run: Path) -> None:
    """Beside the peer: short plans in every shape, and one whole plan."""
    peer = Path(config["peer"] or run / "peer")
    if not (peer / "bin" / "python").exists():
        say(f"          setting up {peer} ...")
        subprocess.run(["bash", str(SETUP), str(peer)], check=True)
    rows, repeats = [], config["repeats"]
    with progress(len(config["threads"]) + 1, "speed", "tables") as bar:
        for threads in config["threads"]:
            rows += compare(peer / "bin" / "python", threads=threads, iterations=SHORT, repeats=repeats)
            bar.update()
        rows += compare(peer / "bin" / "python", rows=(1,), history=(1,), iterations=WHOLE, repeats=1)
        bar.update()
    _save(out / "speed.jsonl", [{**asdict(row), "ratio": round(row.ratio, 3)} for row in rows])


def _deadline(config: Mapping[str, Any], out: Path, run: Path) -> None:
    _save(out / "deadline.jsonl", deadline.measure(_default_model(run), config["threads"]))


def _success(config: Mapping[str, Any], out: Path, run: Path) -> None:
    run_cells(compute_cells(_default_model(run)), out / "success.jsonl", **_track(config))


def _equal(config: Mapping[str, Any], out: Path, run: Path) -> None:
    """The default model and search against LeWM's recipe on a transformer: outcomes, then time in turns."""
    default = next(cell for cell in compute_cells(_default_model(run)) if cell.name == DEFAULT)
    cells = [default, recipe_cell(_trained(run, "lewm_style", LEWM_STYLE))]
    run_cells(cells, out / "equal.jsonl", **_track(config))
    timings = timing.in_turns(cells, config["threads"], config["repeats"])
    _save(out / "equal_time.jsonl", timings)


def _track(config: Mapping[str, Any]) -> dict[str, int]:
    return {key: config[key] for key in ("pairs", "budget", "workers")}


def _default_model(run: Path) -> Path:
    return _trained(run, "default", [])


def _trained(run: Path, name: str, overrides: Sequence[str]) -> Path:
    """A model trained on the demo's data, now or earlier."""
    collect(configuration.compose("collect", ["env=two_room", f"out={run}/data"]))
    return train(configuration.compose("train", [f"data={run}/data", f"out={run}/{name}", *overrides]))


def _save(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace the raw lines of a part; the first says how they were made."""
    path.write_text("".join(json.dumps(row) + "\n" for row in [{"made": provenance()}, *rows]))
