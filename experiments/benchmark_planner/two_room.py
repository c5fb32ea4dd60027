"""Success against compute on Two-Room: planners x budgets on one set of pairs, one model, one cost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.build import build_task
from experiments.pairs import draw_pairs
from experiments.records import repair
from experiments.runs import progress
from lewm import checkpoint, registry
from planners import MPC

CHUNK = 25  # pairs run at once, and between two saves


@dataclass(frozen=True)
class Cell:
    """One way to plan, evaluated on all pairs.

    Attributes:
        name: unique; family: what it is drawn as.
        run: folder of the model.
        planner, cost: as the registry builds them; replan_every: environment steps.
    """

    name: str
    family: str
    run: str
    planner: Mapping[str, Any]
    cost: Mapping[str, Any]
    replan_every: int


@dataclass(frozen=True)
class Outcome:
    """All pairs of a cell: success (n,) bool at the end and ever, detours (n,) bool, evaluations per decision."""

    cell: Cell
    final: np.ndarray
    ever: np.ndarray
    detour: np.ndarray
    evaluations: float


def run_cells(cells: Sequence[Cell], log: Path, *, pairs: int, budget: int, workers: int) -> None:
    """Evaluate what the log lacks, in `workers` processes of one thread each.

    Args:
        pairs, budget: of the `free` track; budget in environment steps.
    """
    repair(log)
    done = {(line["cell"], line["first"]) for line in _lines(log)}
    every = [(cell, range(first, min(first + CHUNK, pairs))) for cell in cells for first in range(0, pairs, CHUNK)]
    items = [(cell, rows, pairs, budget) for cell, rows in every if (cell.name, rows.start) not in done]
    pool = ProcessPoolExecutor(workers, get_context("forkserver"))
    with progress(len(every), log.stem, "chunks", initial=len(every) - len(items)) as bar:
        try:
            for job in as_completed([pool.submit(run_chunk, *item) for item in items]):
                with log.open("a") as file:
                    file.write(json.dumps(job.result()) + "\n")
                bar.update()
        finally:
            pool.shutdown(cancel_futures=True)


def outcomes(log: Path) -> list[Outcome]:
    """What a log says of each of its cells whose pairs are all there."""
    cells: dict[str, list[dict[str, Any]]] = {}
    for line in _lines(log):
        cells.setdefault(line["cell"], []).append(line)
    return [
        _outcome(lines)
        for lines in cells.values()
        if sum(len(line["final"]) for line in lines) == lines[0]["pairs"]
    ]


def run_chunk(cell: Cell, chunk: range, pairs: int, budget: int) -> dict[str, Any]:
    """Some pairs of a cell, as one line of the log. A pair's outcome does not depend on the others."""
    torch.set_num_threads(1)
    model = checkpoint.load(cell.run)
    env = checkpoint.provenance(cell.run)["data"]["source"]["env"]
    drawn = draw_pairs(build_task(env, 1), pairs, seed=0)
    rows = np.array(chunk)
    task = build_task(env, len(rows))
    task.reset(drawn.starts[rows], drawn.goals[rows])
    agent = MPC(
        model,
        task.render_goal(),
        rows=len(rows),
        planner=registry.build("planner", cell.planner),
        cost=registry.build("cost", cell.cost),
        replan_every=cell.replan_every,
        seeds=[int(pair) for pair in rows],
    )
    ever, plans = np.zeros(len(rows), bool), []
    for _ in range(budget):
        task.step(agent.act(task.render()))
        ever |= task.success()
        if not plans or agent.last_plan is not plans[-1]:
            plans.append(agent.last_plan)
    return {
        "cell": cell.name,
        "first": chunk.start,
        "pairs": pairs,
        "budget": budget,
        "final": task.success().astype(int).tolist(),
        "ever": ever.astype(int).tolist(),
        "detour": drawn.detour[rows].astype(int).tolist(),
        "evaluations": float(np.mean([plan.evaluations for plan in plans])),
        "decisions": len(plans),
        "settings": asdict(cell),
    }


def _lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def _outcome(lines: Sequence[Mapping[str, Any]]) -> Outcome:
    lines = sorted(lines, key=lambda line: line["first"])
    final, ever, detour = (
        np.concatenate([line[key] for line in lines]).astype(bool) for key in ("final", "ever", "detour")
    )
    evaluations = float(np.mean([line["evaluations"] for line in lines]))
    return Outcome(Cell(**lines[0]["settings"]), final, ever, detour, evaluations)
