"""Success against compute on Two-Room: planners x budgets on one set of pairs, one model, one cost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from envs import GoalTask
from experiments.build import build_task
from experiments.evaluate.agents import FLOORS
from experiments.pairs import draw_pairs
from experiments.records import repair
from experiments.runs import progress, provenance
from lewm import checkpoint, registry
from lewm.types import InputError
from planners import MPC

Act = Callable[[int], np.ndarray]

FLOOR = "floor"  # the family of policies that do not plan: random and greedy
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
        log: JSONL; before the lines of each call one that says how they were made.
        pairs, budget: of the `free` track; budget in environment steps.

    Raises:
        InputError: the log holds a cell of that name with other settings or another model.
    """
    repair(log)
    facts = {cell.name: _facts(cell, pairs, budget) for cell in cells}
    done = {(line["cell"], line["first"]) for line in _lines(log) if line["cell"] in facts}
    for line in _lines(log):
        if line["cell"] in facts and {key: line[key] for key in facts[line["cell"]]} != facts[line["cell"]]:
            raise InputError(f"{log} holds another '{line['cell']}' ({line['settings']}); choose another out=...")
    every = [(cell, range(first, min(first + CHUNK, pairs))) for cell in cells for first in range(0, pairs, CHUNK)]
    items = [(cell, rows, facts[cell.name]) for cell, rows in every if (cell.name, rows.start) not in done]
    if items:
        _append(log, {"made": provenance()})
    with progress(len(every), log.stem, "chunks", initial=len(every) - len(items)) as bar:
        for line in _run_all(items, workers):
            _append(log, line)
            bar.update()


def _run_all(items: Sequence[tuple[Cell, range, dict[str, Any]]], workers: int) -> Iterator[dict[str, Any]]:
    """Lines as they come; one worker is this process itself."""
    if workers == 1:
        yield from (run_chunk(*item) for item in items)
        return
    pool = ProcessPoolExecutor(workers, get_context("forkserver"))
    try:
        for job in as_completed([pool.submit(run_chunk, *item) for item in items]):
            yield job.result()
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


def made(log: Path) -> list[dict[str, Any]]:
    """How the lines of a log were made, one entry per call."""
    return [line["made"] for line in _all_lines(log) if "made" in line]


def run_chunk(cell: Cell, chunk: range, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Some pairs of a cell, as one line of the log. A pair's outcome does not depend on the others."""
    torch.set_num_threads(1)
    env = checkpoint.provenance(cell.run)["data"]["source"]["env"]
    drawn = draw_pairs(build_task(env, 1), facts["pairs"], seed=0)
    rows = np.array(chunk)
    task = build_task(env, len(rows))
    task.reset(drawn.starts[rows], drawn.goals[rows])
    act, counts = _floor(cell, task, rows, facts["budget"]) if cell.family == FLOOR else _agent(cell, task, rows)
    ever = np.zeros(len(rows), bool)
    for t in range(facts["budget"]):
        task.step(act(t))
        ever |= task.success()
    return {
        "cell": cell.name,
        "first": chunk.start,
        "final": task.success().astype(int).tolist(),
        "ever": ever.astype(int).tolist(),
        "detour": drawn.detour[rows].astype(int).tolist(),
        "evaluations": float(np.mean(counts)) if counts else 0.0,
        "decisions": len(counts),
        **facts,
    }


def _agent(cell: Cell, task: GoalTask, rows: np.ndarray) -> tuple[Act, list[int]]:
    """What acts, and the evaluations of each of its decisions, which fill up as it does."""
    agent = MPC(
        checkpoint.load(cell.run),
        task.render_goal(),
        rows=len(rows),
        planner=registry.build("planner", cell.planner),
        cost=registry.build("cost", cell.cost),
        replan_every=cell.replan_every,
        seeds=[int(pair) for pair in rows],
    )
    counts: list[int] = []

    def act(t: int) -> np.ndarray:
        before = agent.last_plan
        actions = agent.act(task.render())
        if agent.last_plan is not before:
            counts.append(agent.last_plan.evaluations)
        return actions

    return act, counts


def _floor(cell: Cell, task: GoalTask, rows: np.ndarray, budget: int) -> tuple[Act, list[int]]:
    policy = FLOORS[cell.name].begin(task, [np.random.default_rng([0, int(pair)]) for pair in rows], budget)
    return lambda t: policy(t, task.get_state()), []


def _facts(cell: Cell, pairs: int, budget: int) -> dict[str, Any]:
    """What a cell's outcome depends on; a model is what it weighs, not where it lies."""
    weights = (checkpoint.find(cell.run) / "model.safetensors").read_bytes()
    settings = json.loads(json.dumps({k: v for k, v in asdict(cell).items() if k != "run"}))
    digest = hashlib.sha256(weights).hexdigest()[:16]
    return {"pairs": pairs, "budget": budget, "checkpoint": digest, "settings": settings}


def _append(log: Path, line: Mapping[str, Any]) -> None:
    with log.open("a") as file:
        file.write(json.dumps(line) + "\n")


def _all_lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def _lines(log: Path) -> list[dict[str, Any]]:
    return [line for line in _all_lines(log) if "cell" in line]


def _outcome(lines: Sequence[Mapping[str, Any]]) -> Outcome:
    lines = sorted(lines, key=lambda line: line["first"])
    final, ever, detour = (
        np.concatenate([line[key] for line in lines]).astype(bool) for key in ("final", "ever", "detour")
    )
    evaluations = float(np.mean([line["evaluations"] for line in lines]))
    return Outcome(Cell(run="", **lines[0]["settings"]), final, ever, detour, evaluations)
