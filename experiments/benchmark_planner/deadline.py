"""How well `MPC.act` keeps a deadline: latencies of single decisions of the demo model on real frames."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.build import build_task
from experiments.pairs import draw_pairs
from experiments.runs import progress
from lewm import checkpoint, registry
from planners import MPC

DEADLINES_MS, DECISIONS, ENDLESS = (20, 50, 100), 200, 10_000


def measure(run: Path, threads: Sequence[int]) -> list[dict[str, Any]]:
    """One row per thread count and deadline; the search never ends by itself."""
    model, env = checkpoint.load(run), checkpoint.provenance(run)["data"]["source"]["env"]
    advice = {**model.recommendation["planner"], "iterations": ENDLESS, "warm_iterations": ENDLESS}
    rows, total = [], len(threads) * len(DEADLINES_MS) * DECISIONS
    with progress(total, "deadline", "decisions") as bar:
        for count in threads:
            torch.set_num_threads(count)
            for deadline_ms in DEADLINES_MS:
                agent = MPC(model, planner=registry.build("planner", advice), deadline_s=deadline_ms / 1e3)
                seconds, evaluations = _decide(agent, env, model.recommendation)
                bar.update(DECISIONS)
                rows.append(_row(count, deadline_ms, 1e3 * np.array(seconds), evaluations))
    return rows


def _decide(agent: MPC, env: Mapping[str, Any], advice: Mapping[str, Any]) -> tuple[list[float], list[int]]:
    """Seconds and evaluations of each decision, over as many pairs as it takes."""
    task, seconds, evaluations = build_task(env, 1), [], []
    pairs = draw_pairs(task, DECISIONS, seed=0)
    for pair in range(len(pairs)):
        task.reset(pairs.starts[[pair]], pairs.goals[[pair]])
        agent.reset(task.render_goal()[0])
        for _ in range(100):
            image, before = task.render()[0], agent.last_plan
            begin = time.perf_counter()
            action = agent.act(image)
            if agent.last_plan is not before:
                seconds.append(time.perf_counter() - begin)
                evaluations.append(agent.last_plan.evaluations)
            if len(seconds) == DECISIONS + 1:
                return seconds[1:], evaluations[1:]  # the first warms torch up
            task.step(action[None])
    raise AssertionError("too few decisions")


def _row(threads: int, deadline_ms: int, ms: np.ndarray, evaluations: Sequence[int]) -> dict[str, Any]:
    p50, p95, most = (float(np.percentile(ms, q)) for q in (50, 95, 100))
    return {
        "threads": threads,
        "deadline_ms": deadline_ms,
        "decisions": len(ms),
        "p50_ms": round(p50, 2),
        "p95_ms": round(p95, 2),
        "max_ms": round(most, 2),
        "p95_overshoot": round(max(0.0, p95 / deadline_ms - 1), 4),
        "evaluations_p50": float(np.median(evaluations)),
    }
