"""Which ways to plan are evaluated: planners x budgets, the reference, and the LeWM-style recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.benchmark_planner.two_room import FLOOR, Cell

COST = {"name": "goal_distance"}
REFERENCE, DEFAULT, RECIPE = "cem 300 x 30", "cem 128 x 1 (default)", "LeWM recipe"
LEWM_STYLE = [  # a small transformer of LeWM's kind, trained like the default model
    "model/predictor=adaln_transformer",
    "model.predictor.depth=3",
    "model.predictor.heads=4",
    "model.predictor.head_dim=48",
    "model.predictor.hidden=512",
    "model.predictor.action_hidden=192",
    "trainer.frames=4",
]


def compute_cells(run: Path) -> list[Cell]:
    """Planners x budgets. A fresh search makes four iterations of what a warm one makes one of."""

    def cell(family: str, label: str, settings: dict[str, Any]) -> Cell:
        return Cell(label, family, str(run), {"name": family, **settings}, COST, 5)

    def sampled(family: str, samples: int, warm: int = 1, **settings: Any) -> Cell:
        label = f"{family} {samples} x {warm}"
        settings = {"samples": samples, "iterations": 4 * warm, "warm_iterations": warm, **settings}
        return cell(family, DEFAULT if label == "cem 128 x 1" else label, settings)

    def descended(family: str, starts: int, iterations: int) -> Cell:
        settings = {"samples": starts, "iterations": 4 * iterations, "warm_iterations": iterations}
        return cell(family, f"{family} {starts} x {iterations}", settings)

    def chained(samples: int, iterations: int) -> Cell:
        wide = {"name": "cem", "samples": samples}
        deep = {"name": "lbfgs", "samples": 1, "iterations": iterations}
        return cell("chain", f"chain {samples} + {iterations}", {"first": wide, "then": deep})

    cells = [
        sampled("cem", 32),
        sampled("cem", 64),
        sampled("cem", 128),
        sampled("cem", 300),
        sampled("cem", 300, 3),
    ]
    cells += [sampled("icem", n) for n in (32, 64, 128, 300)]
    cells += [sampled("mppi", 32), sampled("mppi", 64), sampled("mppi", 128), sampled("mppi", 300, 3)]
    cells += [sampled("predictive_sampling", n) for n in (32, 64, 128, 300)]
    cells += [descended("adam", 4, 10), descended("adam", 16, 20)]
    cells += [descended("lbfgs", 4, 10), descended("lbfgs", 16, 20)]
    cells += [chained(64, 10), chained(128, 10)]
    cells += [Cell(name, FLOOR, str(run), {}, {}, 1) for name in ("random", "greedy")]
    reference = {"samples": 300, "elites": 30, "iterations": 30, "warm_iterations": 30}
    return [*cells, Cell(REFERENCE, "cem", str(run), {"name": "cem", **reference}, COST, 5)]


def recipe_cell(run: Path) -> Cell:
    """LeWM's planning: 300 candidates, 30 elites, 30 iterations, white noise, 5 blocks, all 25 steps executed."""
    planner = {
        "name": "cem",
        "horizon": 25,
        "samples": 300,
        "elites": 30,
        "iterations": 30,
        "warm_iterations": 30,
        "correlation": 0.0,
        "returns": "mean",
    }
    return Cell(RECIPE, "LeWM recipe", str(run), planner, {**COST, "running": 0.0, "terminal": 1.0}, 25)
