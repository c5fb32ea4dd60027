"""The verb: cells that the log lacks are trained, planned with and diagnosed; the page is made of the log."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from experiments import config as configuration
from experiments import records
from experiments.ablation import page
from experiments.ablation.measures import measures
from experiments.ablation.variants import TASKS, VARIANTS, Task
from experiments.cells import Cell, Rows, complete
from experiments.collect import collect
from experiments.evaluate import evaluate
from experiments.runs import at_least, exclusive, say
from experiments.train import train
from lewm.training import Diverged
from lewm.types import InputError, nearest


def ablation(config: Mapping[str, Any]) -> None:
    """Measure the cells that are asked for and missing; see `configs/ablation.yaml`."""
    at_least(config, threads=1)
    variants = _chosen(config)
    out, run = Path(config["out"]), Path(config["run"])
    for name in config["tasks"]:
        if name not in TASKS:
            raise InputError(f"unknown task '{name}': {nearest(name, list(TASKS))}")
    for name in config["tasks"]:
        with exclusive(run / name):
            _collect(TASKS[name], run / name / "data")
            cells = [
                _cell(name, variant, overrides, seed, run / name, config)
                for seed in config["seeds"]
                for variant, overrides in variants.items()
            ]
            out.mkdir(parents=True, exist_ok=True)
            complete(out / f"{name}.jsonl", cells)
    page.write(out)
    say(f"ablation  {out / 'ablation.md'}")


def _chosen(config: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    for name, overrides in (config["also"] or {}).items():
        if not isinstance(overrides, list):
            raise InputError(f"also={{'{name}': ...}} needs a list of overrides of `lewm train`, got {overrides!r}")
    own = {name: tuple(overrides) for name, overrides in (config["also"] or {}).items()}
    names = list(VARIANTS) if config["variants"] is None else config["variants"]
    for name in names:
        if name not in VARIANTS:
            raise InputError(f"unknown variant '{name}': {nearest(name, list(VARIANTS))}")
    return {name: VARIANTS[name] for name in names} | own


def _collect(task: Task, folder: Path) -> None:
    collect(configuration.compose("collect", [*task.collect, f"out={folder}"]))


def _cell(
    task: str, variant: str, overrides: tuple[str, ...], seed: int, run: Path, config: Mapping[str, Any]
) -> Cell:
    settings = {
        "task": task,
        "variant": variant,
        "overrides": overrides,
        "seed": seed,
        "threads": config["threads"],
    }
    folder = run / "-".join(re.findall(r"[\w.]+", variant)) / f"seed-{seed}"
    measure = partial(_measure, TASKS[task], _training(TASKS[task], overrides), seed, run / "data", folder, config)
    return Cell(f"{task}, {variant}, seed {seed}", settings, measure)


def _training(task: Task, overrides: tuple[str, ...]) -> list[str]:
    chooses = any(override.startswith("model/predictor=") for override in overrides)
    return [o for o in task.train if not (chooses and o.startswith("model.predictor."))] + list(overrides)


def _measure(
    task: Task, overrides: list[str], seed: int, data: Path, folder: Path, config: Mapping[str, Any]
) -> Rows:
    shutil.rmtree(folder, ignore_errors=True)  # of a try that was cut off: its seconds would be missing
    common = [f"threads={config['threads']}", f"plugins=[{','.join(config['plugins'])}]"]
    begin = time.process_time()  # of all its threads; the wall clock would time the neighbours, too
    settings = configuration.compose(
        "train", [f"data={data}", f"out={folder}", f"seed={seed}", *overrides, *common]
    )
    try:
        train(settings)
    except Diverged as error:
        return [{"failed": str(error)}]  # diverging is a result, too
    seconds = time.process_time() - begin
    chosen = [*task.evaluate, "agents=[model]", "latency_pairs=1", *common]
    summary = evaluate(configuration.compose("evaluate", [f"run={folder}", *chosen]))
    scored = sorted(records.read(folder / "episodes.jsonl"), key=lambda record: record.pair)
    return [
        {
            "outcomes": "".join(str(int(record.success_final)) for record in scored),
            "pairs": summary["protocol"]["pairs_fingerprint"],
            "success": summary["success_final"],
            "probe_r2": min(summary["probe_r2"] or [float("nan")]),
            "cpu_seconds": round(seconds, 1),
            "plan_ms": summary["plan_ms_p50"],
            **measures(folder, data, settings["validation"], config["plugins"]),
            "trained": {part: settings[part] for part in ("model", "objective", "trainer")},
        }
    ]
