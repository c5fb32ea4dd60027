"""The benchmark's page: tables in Markdown and the plot of success against compute, from the raw lines alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from experiments.benchmark_planner.cells import DEFAULT, RECIPE, REFERENCE
from experiments.benchmark_planner.two_room import Outcome, outcomes
from experiments.records import wilson

matplotlib.use("Agg")
import matplotlib.pyplot as plt

DRAWS = 10_000

HEAD = """# Planners: speed, deadlines, success against compute

Made by `lewm benchmark planner`; the raw lines are beside this page.
"""

SPEED = """## The paper-size predictor beside the peer

Peer: {peer}. The same random weights and sizes, in turns, medians. Latents and costs of the same candidates are
equal to 1e-5 relative, checked in the run.

The floor of a plan (300 candidates, 30 iterations, 5 blocks): 2.52 TFLOP as the peer computes it and 1.55 TFLOP
after the exact reductions with history 1; 3.15 and 2.00 with history 3. So arithmetic allows about 1.6 times; what
is saved outside of matrix products, 20 % of the peer's time, comes on top.
"""

DEADLINE = """## Keeping a deadline

`MPC.act` of the demo model, {decisions} decisions each, encoding included; the search would go on for ever.
"""

SUCCESS = """## Success against compute on Two-Room

`free` track, 200 pairs (100 detour), one model (seed 0), running goal distance, horizon 40, replanning every 5
steps. An evaluation is one imagined candidate; for adam and lbfgs one with its gradient, about three times as dear.

![Success against compute](success.png)
"""

EQUAL = """## Time per decision at no less success

LeWM's recipe (an AdaLN transformer with history 3, CEM 300 x 30, 5 blocks, terminal cost, all 25 steps executed) on
a small transformer trained like the default model, with the fast exact rollout; against our default model and
search.
"""


def write(out: Path) -> None:
    """`planner.md`, and `success.png` where there is something to draw."""
    parts = {"speed": _speed, "deadline": _deadline, "success": _success, "equal": _equal}
    sections = [make(out) for part, make in parts.items() if (out / f"{part}.jsonl").exists()]
    (out / "planner.md").write_text("\n".join([HEAD, *sections]))


def _speed(out: Path) -> str:
    made, rows = _lines(out / "speed.jsonl")
    titles = ("history", "rows", "threads", "iterations", "timed", "peer", "ours", "peer / ours")
    cells = [
        (
            *(row[key] for key in ("history", "rows", "threads", "iterations", "timed")),
            f"{row['peer_seconds']:.2f} s",
            f"{row['our_seconds']:.2f} s",
            f"**{row['ratio']:.2f}**",
        )
        for row in rows
    ]
    peer = "; ".join(sorted({row["peer"] for row in rows}))
    return "\n".join([SPEED.format(peer=peer), _table(titles, cells), _made(made)])


def _deadline(out: Path) -> str:
    made, rows = _lines(out / "deadline.jsonl")
    titles = ("threads", "deadline", "p50", "p95", "max", "p95 overshoot", "candidates scored, p50")
    cells = [
        (
            row["threads"],
            f"{row['deadline_ms']} ms",
            *(f"{row[key]:.1f} ms" for key in ("p50_ms", "p95_ms", "max_ms")),
            f"{row['p95_overshoot']:.1%}",
            f"{row['evaluations_p50']:.0f}",
        )
        for row in rows
    ]
    return "\n".join([DEADLINE.format(decisions=rows[0]["decisions"]), _table(titles, cells), _made(made)])


def _success(out: Path) -> str:
    found = sorted(outcomes(out / "success.jsonl"), key=lambda o: (o.cell.family, o.evaluations))
    _plot(found, out / "success.png")
    titles = ("planner", "evaluations per decision", "success", "95 % (Wilson)", "detour", "ever")
    cells = []
    for o in found:
        low, high = wilson(int(o.final.sum()), len(o.final))
        shares = (f"{low:.1%} to {high:.1%}", f"{o.final[o.detour].mean():.1%}", f"{o.ever.mean():.1%}")
        cells.append((o.cell.name, f"{o.evaluations:.0f}", f"{o.final.mean():.1%}", *shares))
    named = {o.cell.name: o for o in found}
    compared = [_paired(named[DEFAULT], named[REFERENCE])] if {DEFAULT, REFERENCE} <= named.keys() else []
    return "\n".join(
        [SUCCESS, _table(titles, cells), *compared, _made(json.loads((out / "success.json").read_text()))]
    )


def _equal(out: Path) -> str:
    found = {o.cell.name: o for o in outcomes(out / "equal.jsonl")}
    made, rows = _lines(out / "equal_time.jsonl")
    timed = {(row["cell"], row["threads"]): row for row in rows}
    threads = sorted({row["threads"] for row in rows})
    titles = ("threads", "what", "success", "detour", "ms per decision", "ms per environment step")
    cells = []
    for count in threads:
        for name in (RECIPE, DEFAULT):
            o, row = found[name], timed[name, count]
            success = (f"{o.final.mean():.1%}", f"{o.final[o.detour].mean():.1%}")
            cells.append((count, name, *success, f"{row['decision_ms']:.1f}", f"{row['step_ms']:.2f}"))

    def less(count: int, key: str) -> str:
        return f"{timed[RECIPE, count][key] / timed[DEFAULT, count][key]:.0f}"

    ratios = [
        f"{n} thread(s): {less(n, 'decision_ms')} times less time per decision, {less(n, 'step_ms')} per step.\n"
        for n in threads
    ]
    return "\n".join([EQUAL, _table(titles, cells), *ratios, _paired(found[DEFAULT], found[RECIPE]), _made(made)])


def _lines(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """How it was made, and the rows."""
    made, *rows = [json.loads(line) for line in path.read_text().splitlines()]
    return made["made"], rows


def _table(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    body = ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|", *body, ""])


def _made(made: dict[str, Any]) -> str:
    return f"`{made['command']}`, commit {made['commit']}, torch {made['versions']['torch']}, {made['machine']}.\n"


def _paired(ours: Outcome, other: Outcome) -> str:
    """The difference of success on the same pairs, with its one-sided bound."""
    difference = ours.final.astype(float) - other.final
    rng = np.random.default_rng(0)
    means = difference[rng.integers(0, len(difference), (DRAWS, len(difference)))].mean(1)
    bound = float(np.percentile(means, 5))
    return (
        f"{ours.cell.name} minus {other.cell.name}: {100 * difference.mean():+.1f} points on the same pairs, "
        f"one-sided 95 % bound {100 * bound:+.1f} (no less success: above -3), with "
        f"{other.evaluations / ours.evaluations:.0f} times fewer evaluations per decision.\n"
    )


def _plot(found: Sequence[Outcome], path: Path) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, constrained_layout=True)
    views: list[tuple[str, Callable[[Outcome], float]]] = [
        ("all pairs", lambda o: o.final.mean()),
        ("detour pairs", lambda o: o.final[o.detour].mean()),
    ]
    families = list(dict.fromkeys(o.cell.family for o in found))
    for axis, (title, value) in zip(axes, views, strict=True):
        for k, family in enumerate(families):
            mine = [o for o in found if o.cell.family == family]
            style = {"marker": "osD^vPX*"[k % 8], "color": f"C{k}", "markersize": 5, "linewidth": 1}
            axis.plot([o.evaluations for o in mine], [100 * value(o) for o in mine], label=family, **style)
        axis.set(xscale="log", xlabel="candidates imagined per decision", title=title)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("success at the end, %")
    axes[1].legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=130)
    plt.close(figure)
