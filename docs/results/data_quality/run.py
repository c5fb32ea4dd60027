"""Which data makes a model that plans? Policies at equal frames, the same small model, the same pairs.

    python docs/results/data_quality/run.py push_t runs/data_quality         # one task; run again to resume
    python docs/results/data_quality/run.py page                             # table and plots from the raw lines

Each cell collects a data set with one policy, trains a model, and evaluates it: one line in cells.jsonl. Pairs are
the same for all cells of a task: drawn freely, or (Push-T) taken from episodes of the expert that no cell trains
on. One training seed per cell; the intervals are Wilson's over pairs.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from experiments.collect import collect
from experiments.config import compose
from experiments.evaluate import evaluate
from experiments.train import train
from lewm.data import EpisodeReader

HERE = Path(__file__).parent
CELLS = HERE / "cells.jsonl"
THREADS = "threads=1"

TASKS: dict[str, dict[str, Any]] = {
    "two_room": {
        "policies": {
            "ou": ["policy=ou"],
            "straight": ["policy=straight"],
            "goal_directed": ["policy=goal_directed"],
            "standard": ["preset=standard"],
        },
        "collect": ["episodes=2000", "steps=100"],
        "train": [],
        "evaluate": ["pairs=200"],
        "axes": [("x", 0), ("y", 1)],
    },
    "reacher": {
        "policies": {
            "ou": ["policy=ou"],
            "straight": ["policy=straight"],
            "goal_directed": ["policy=goal_directed"],
            "mixed": ["policy=mixed", "policy.weights=[2,2,1]"],
        },
        "collect": ["episodes=1000", "steps=100"],
        "train": ["trainer.steps=1000", "model.predictor.history=2"],
        "evaluate": ["pairs=100"],
        "axes": [("shoulder", 0), ("wrist", 1)],
    },
    "push_t": {
        "policies": {
            "ou": ["policy=ou"],
            "straight": ["policy=straight"],
            "expert": ["policy=expert"],
            "mixed": [
                "policy=mixed",
                "policy.parts=[{name: expert,noise: 0.1},{name: expert,noise: 0.5},{name: ou,scale: 0.4},straight]",
                "policy.weights=[2,2,1,1]",
            ],
        },
        "collect": ["episodes=1500", "steps=150"],
        "train": ["model.image_size=96", "trainer.steps=1000", "planner.horizon=25", "planner.init_std=0.5"],
        "evaluate": ["pairs=100", "track=heldout", "offset=25"],
        "axes": [("block x", 2), ("block y", 3)],
    },
}


def run(task: str, out: Path) -> None:
    """Every cell of one task that is not there yet."""
    spec = TASKS[task]
    shared = [f"env={task}", *spec["collect"]]
    heldout = []
    if "track=heldout" in spec["evaluate"]:
        pairs = out / task / "pairs"
        collect(compose("collect", [*shared, "policy=expert", "episodes=200", "seed=1000", f"out={pairs}"]))
        heldout = [f"data={pairs}"]
    done = {(cell["task"], cell["policy"]) for cell in _cells()}
    for name, choice in spec["policies"].items():
        if (task, name) in done:
            continue
        folder = out / task / name
        begin = time.perf_counter()
        collect(compose("collect", [*choice, *shared, f"out={folder}/data"]))
        collected = time.perf_counter()
        train(compose("train", [f"data={folder}/data", f"out={folder}", *spec["train"], THREADS]))
        trained = time.perf_counter()
        settings = [f"run={folder}", *spec["evaluate"], *heldout, THREADS]
        summary = evaluate(compose("evaluate", settings))
        cell = {
            "task": task,
            "policy": name,
            "settings": {"collect": [*choice, *shared], "train": spec["train"], "evaluate": spec["evaluate"]},
            "frames": int((EpisodeReader(folder / "data").steps + 1).sum()),
            "seconds": {"collect": round(collected - begin, 1), "train": round(trained - collected, 1)},
            **{key: value for key, value in summary.items() if key != "run"},
            "coverage": _coverage(folder / "data", spec["axes"]),
        }
        with CELLS.open("a") as file:
            file.write(json.dumps(cell) + "\n")


def _coverage(data: Path, axes: list[tuple[str, int]]) -> dict[str, Any]:
    """A 24 x 24 histogram of two coordinates over all recorded states."""
    reader = EpisodeReader(data)
    states = np.concatenate([reader.column("state", episode) for episode in range(len(reader))])
    columns = [states[:, column] for _, column in axes]
    counts, x, y = np.histogram2d(*columns, bins=24)
    return {"counts": counts.astype(int).tolist(), "x": [x[0], x[-1]], "y": [y[0], y[-1]]}


def _cells() -> list[dict[str, Any]]:
    return [json.loads(line) for line in CELLS.read_text().splitlines()] if CELLS.exists() else []


def page() -> None:
    """README.md and coverage.png from cells.jsonl."""
    cells = _cells()
    lines = [
        "# Which data makes a model that plans",
        "",
        "Made by `python docs/results/data_quality/run.py page` from [cells.jsonl](cells.jsonl). Policies at equal",
        "frames, one small model each (seed 0, one thread), the same pairs for all cells of a task. Success at the",
        "end of the budget; 95 % Wilson intervals over pairs, one training seed: small differences say nothing.",
        "",
        "| task | data policy | frames | success | detour | random | greedy | probe R2, worst axis | training |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for cell in cells:
        low, high = cell["success_final_interval"]
        detour = "" if cell["detour_final"] is None else f"{cell['detour_final']:.0%}"
        lines.append(
            f"| {cell['task']} | {cell['policy']} | {cell['frames']:,} | {cell['success_final']:.1%} "
            f"[{low:.0%}, {high:.0%}] | {detour} | {cell['random_final']:.1%} | {cell['greedy_final']:.1%} "
            f"| {min(cell['probe_r2']):.2f} | {cell['seconds']['train']:.0f} s |"
        )
    lines += [
        "",
        "`greedy` steers straight at the goal with true states; it is a controller, not a model. What the presets",
        "take from this: Two-Room's `standard` is the mix of this table. Reacher's is goal-directed data; with its",
        "2,000 episodes and 3,000 steps of training (`lewm collect env=reacher preset=standard`, `lewm train ...",
        f"model.predictor.history=2 trainer.steps=3000`) {_reacher()} of 200 pairs are reached",
        "([reacher_standard.json](reacher_standard.json)). Push-T's is the expert's data, which teaches most, and",
        "not enough: [answers.jsonl](../push_t/answers.jsonl) and [LOG.md](../../LOG.md) say what is to blame.",
        "",
        "![Where each policy goes](coverage.png)",
        "",
    ]
    (HERE / "README.md").write_text("\n".join(lines))
    tasks = list(dict.fromkeys(cell["task"] for cell in cells))
    width = max(sum(cell["task"] == task for cell in cells) for task in tasks)
    figure, axes = plt.subplots(len(tasks), width, figsize=(3 * width, 3 * len(tasks)), squeeze=False)
    for row, task in zip(axes, tasks, strict=True):
        for axis in row:
            axis.axis("off")
        for axis, cell in zip(row, [c for c in cells if c["task"] == task], strict=False):
            seen = cell["coverage"]
            extent = [*seen["x"], *seen["y"][::-1]]
            axis.imshow(np.sqrt(seen["counts"]).T, extent=extent, aspect="auto", cmap="magma")
            (x, _), (y, _) = TASKS[task]["axes"]
            axis.set(
                title=f"{task}: {cell['policy']}", xlabel=x, ylabel=y, facecolor="black", **_limits(cells, task)
            )
            axis.axis("on")
    figure.tight_layout()
    figure.savefig(HERE / "coverage.png", dpi=80)


def _reacher() -> str:
    return f"{json.loads((HERE / 'reacher_standard.json').read_text())['success_final']:.1%}"


def _limits(cells: list[dict[str, Any]], task: str) -> dict[str, tuple[float, float]]:
    """The range that all policies of a task cover together, so that their plots compare."""
    seen = [cell["coverage"] for cell in cells if cell["task"] == task]
    (left, right), (low, high) = ((min(s[k][0] for s in seen), max(s[k][1] for s in seen)) for k in ("x", "y"))
    return {"xlim": (left, right), "ylim": (high, low)}


if __name__ == "__main__":
    if sys.argv[1:] == ["page"]:
        page()
    else:
        run(sys.argv[1], Path(sys.argv[2]))
