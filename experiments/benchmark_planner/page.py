"""The benchmark's page: tables in Markdown and the plot of success against compute, from the raw lines alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.benchmark_planner.cells import DEFAULT, RECIPE, REFERENCE
from experiments.benchmark_planner.two_room import FLOOR, Outcome, made, outcomes
from experiments.statistics import wilson

DRAWS = 10_000

HEAD = """# Planners: speed, deadlines, success against compute

Made by `lewm benchmark planner`; the raw lines are beside this page.
"""

SPEED = """## The paper-size predictor beside the peer

Peer: {peer}, with its own defaults (8 rows are solved one after another). The same random weights and sizes, in
turns, medians. Latents and costs of the same candidates are equal to 1e-5 of the largest, checked in the run. With
history 3 the peer's solver would search over actions already executed, so as many calls of the cost are timed.

The floor of a plan (300 candidates, 30 iterations, 5 blocks): 2.52 TFLOP as the peer computes it and 1.55 TFLOP
after the exact reductions with history 1; 3.15 and 2.00 with history 3. So arithmetic allows about 1.6 times. The
rest is how fast products run: for float32 torch's own linear layers use MKL, ours oneDNN, which on an AMD processor
has twice the speed (ADR 0006); on another processor expect less.
"""

DEADLINE = """## Keeping a deadline

`MPC.act` of the demo model, {decisions} decisions each, encoding included; the search would go on for ever.
"""

SUCCESS = """## Success against compute on Two-Room

`free` track, {pairs} pairs ({detour} detour), one model (training seed 0), running goal distance, horizon 40,
replanning every 5 steps. An evaluation is one imagined candidate; for adam and lbfgs it is one with its gradient.

![Success against compute](success.png)
"""

EQUAL = """## Time per decision at no less success

LeWM's recipe (an AdaLN transformer with history 3, CEM 300 x 30, 5 blocks, terminal cost, all 25 steps executed) on
a small transformer trained like the default model, with the fast exact rollout; against our default model and
search. {pairs} pairs, one training seed each. Times are of one row, medians; of the default's decisions the warm
ones, 19 of 20.
"""


def write(out: Path) -> None:
    """`planner.md`, and `success.png` where there is something to draw."""
    parts = {
        _speed: ["speed.jsonl"],
        _deadline: ["deadline.jsonl"],
        _success: ["success.jsonl"],
        _equal: ["equal.jsonl", "equal_time.jsonl"],
    }
    sections = [make(out) for make, files in parts.items() if all((out / name).exists() for name in files)]
    (out / "planner.md").write_text("\n".join([HEAD, *sections]))


def _speed(out: Path) -> str:
    source, rows = _lines(out / "speed.jsonl")
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
    return "\n".join([SPEED.format(peer=peer), _table(titles, cells), _made(source)])


def _deadline(out: Path) -> str:
    source, rows = _lines(out / "deadline.jsonl")
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
    return "\n".join([DEADLINE.format(decisions=rows[0]["decisions"]), _table(titles, cells), _made(source)])


def _success(out: Path) -> str:
    found = sorted(outcomes(out / "success.jsonl"), key=lambda o: (o.cell.family, o.evaluations))
    if not found:
        return "## Success against compute on Two-Room\n\nNo cell is complete yet.\n"
    _plot(found, out / "success.png")
    titles = ("planner", "evaluations per decision", "success", "95 % (Wilson)", "detour", "ever")
    cells = []
    for o in found:
        low, high = wilson(int(o.final.sum()), len(o.final))
        shares = (f"{low:.1%} to {high:.1%}", f"{o.final[o.detour].mean():.1%}", f"{o.ever.mean():.1%}")
        cells.append((o.cell.name, f"{o.evaluations:.0f}", f"{o.final.mean():.1%}", *shares))
    named = {o.cell.name: o for o in found}
    compared = [_paired(named[DEFAULT], named[REFERENCE])] if {DEFAULT, REFERENCE} <= named.keys() else []
    head = SUCCESS.format(pairs=len(found[0].final), detour=int(found[0].detour.sum()))
    return "\n".join([head, _table(titles, cells), *compared, *map(_made, made(out / "success.jsonl"))])


def _equal(out: Path) -> str:
    found = {o.cell.name: o for o in outcomes(out / "equal.jsonl")}
    made_times, rows = _lines(out / "equal_time.jsonl")
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
    head, paired = EQUAL.format(pairs=len(found[DEFAULT].final)), _paired(found[DEFAULT], found[RECIPE])
    sources = map(_made, [*made(out / "equal.jsonl"), made_times])
    return "\n".join([head, _table(titles, cells), *ratios, paired, *sources])


def _lines(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """How it was made, and the rows."""
    first, *rows = [json.loads(line) for line in path.read_text().splitlines()]
    return first["made"], rows


def _table(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    body = ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|", *body, ""])


def _made(source: dict[str, Any]) -> str:
    torch = source["versions"]["torch"]
    return f"`{source['command']}`, commit {source['commit']}, torch {torch}, {source['machine']}.\n"


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
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    views: list[tuple[str, Callable[[Outcome], float]]] = [
        ("all pairs", lambda o: o.final.mean()),
        ("detour pairs", lambda o: o.final[o.detour].mean()),
    ]
    families = list(dict.fromkeys(o.cell.family for o in found if o.cell.family != FLOOR))
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
