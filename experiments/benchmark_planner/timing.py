"""Time of single decisions, one row, in turns: a machine's speed drifts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import torch

from experiments.benchmark_planner.two_room import Cell
from experiments.build import build_task
from experiments.pairs import draw_pairs
from experiments.runs import progress
from lewm import checkpoint, registry
from planners import MPC

WARM_UP, TIMED = 3, 10  # plans of a cheap cell before and within one turn; of a dear one a single plan
DEAR = 10_000  # evaluations of a cheap turn, at most


def in_turns(cells: Sequence[Cell], threads: Sequence[int], repeats: int) -> list[dict[str, Any]]:
    """Median seconds of a decision and of an environment step, per cell and thread count."""
    rows = []
    with progress(len(threads) * repeats * len(cells), "time", "turns") as bar:
        for count in threads:
            torch.set_num_threads(count)
            seconds: dict[str, list[float]] = {cell.name: [] for cell in cells}
            for _ in range(repeats):
                for cell in cells:
                    seconds[cell.name] += _decisions(cell)
                    bar.update()
            for cell in cells:
                decision = median(seconds[cell.name])
                step = decision / cell.replan_every
                facts = {"cell": cell.name, "threads": count, "decisions": len(seconds[cell.name])}
                rows.append({**facts, "decision_ms": 1e3 * decision, "step_ms": 1e3 * step})
    return rows


def _decisions(cell: Cell) -> list[float]:
    """Seconds of a few decisions of one agent on its way, the first ones left out."""
    model, env = checkpoint.load(cell.run), checkpoint.provenance(cell.run)["data"]["source"]["env"]
    task = build_task(env, 1)
    pairs = draw_pairs(task, 1, seed=1)
    task.reset(pairs.starts, pairs.goals)
    planner, cost = registry.build("planner", cell.planner), registry.build("cost", cell.cost)
    agent = MPC(model, task.render_goal()[0], planner=planner, cost=cost, replan_every=cell.replan_every)
    dear = planner.samples * planner.iterations * (WARM_UP + TIMED) > DEAR
    wanted, seconds = (1 if dear else WARM_UP + TIMED), []
    while len(seconds) < wanted:
        image, before = task.render()[0], agent.last_plan
        begin = time.perf_counter()
        action = agent.act(image)
        if agent.last_plan is not before:
            seconds.append(time.perf_counter() - begin)
        task.step(action[None])
    return seconds if dear else seconds[WARM_UP:]
