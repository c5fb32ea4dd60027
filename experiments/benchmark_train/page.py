"""The benchmark's page: tables in Markdown and a bar plot, from the raw lines alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure

from experiments.cells import cells, made, table

Row = Mapping[str, Any]
THEIRS, OURS = "#64748b", "#d64534"
SIDES = {"peer": "stable-worldmodel", "lewm": "**lewm**"}
HEAPS = {"default": "malloc as it is", "kept": "memory kept"}
COSTS = {
    "sigreg": "SIGReg, {slices} directions",
    "orthogonal": "the same, directions orthogonal in blocks",
    "sub_jepa": "Sub-JEPA: {slices} directions in 32 subspaces",
    "kummer": "exact, Kummer",
    "imq": "exact, inverse multiquadric",
}
FASTER, EXACT, FRAMES = 3, 20, 50  # goals: times theirs, times theirs, times the paper's ViT

HEAD = """# Training: an optimiser step, SIGReg, the CPU default

Made by `lewm benchmark train`; the raw lines are in `training.jsonl` beside this page, every round of them.

**Who is measured.** stable-worldmodel {peer} with its own modules (`LeWM`, `SIGReg`; Hugging Face's ViT) and
torch's AdamW, against what our trainer does at each step. The same architecture with the same weights, handed over
as a file of the published layout, on the same uint8 batch in memory; float32; 1024 directions, weight 0.09,
gradients clipped to norm 1. Before anything is timed, losses and the gradient's norm of both are compared, without
dropout and with the same directions; where they differ, the benchmark stops.

**How.** A process for each side, one working at a time, in turns; medians, smallest to largest in brackets. Each
side runs twice: with malloc as it is, and told to keep what is freed (`MALLOC_MMAP_MAX_=0`, no trimming). Without
that glibc hands large tensors back to the kernel, which zeroes and maps them anew, page by page, in each step.

**The floor** is the least arithmetic of a step by formula (`experiments/benchmark_train/floor.py`: products only,
three times the forward pass, the last block of the ViT for its class token alone) at the rate of a large square
product, measured in the same process by the faster of torch's own library and oneDNN.

**Expected before this run**, from first tries at small batches on a busy machine: steps 1.4 to 2 times faster than
theirs, as the products are, less what softmax, norms and GELU cost both; within 1.8 times the floor; a fifth of a
step saved on both sides where memory is kept. SIGReg 3 to 6 times faster with memory kept: cosine and sine once for
each projection instead of 17 times, but 16 passes in place remain. The exact form 30 times or more: 4 x 128 x 128
distances instead of 4 x 128 x 1024 x 17 cosines. The CPU default 60 to 100 times the frames of our ViT.
"""

STEPS = """## Optimiser steps

Peak memory is of the whole process, Python and torch included.
"""

SIGREG = """## Regularisers alone

Forward and backward at (B, T, D) = ({batch}, {frames}, {dim}), one thread, milliseconds; times theirs in the same
column. `First call` is of a process.
"""

NEARNESS = """The gradient's cosine with that of 16,384 directions, which has some noise itself. `Narrow` latents
are as at the begin of a training (correlated, too narrow, light tails), `Gaussian` ones as at its end, where the
gradient is mostly noise. Sub-JEPA tests directions inside its subspaces, so its gradient is another on purpose.
"""

SPEED = """## Frames per second of training

The CPU default (`model=small`) with its objective, batch {small} x 4 read from a store of Two-Room, as in `lewm
train`; the paper's ViT with patch {patch} at {size} pixels, batch {batch} x 4 in memory. What success the CPU
default plans with: [the demo](../two_room_demo.md). What the ViT's would be is not measured here.
"""


def write(out: Path) -> None:
    """`training.md` and `training.png`."""
    log = out / "training.jsonl"
    every = cells(log)
    steps, regularisers, frames = (
        [cell for cell in every if cell["cell"].startswith(name)] for name in ("steps", "regularisers", "frames")
    )
    versions = {row["side"]: row["versions"] for cell in every for row in _timed(cell)}
    peer = versions.get("peer", {}).get("stable-worldmodel", "(not measured here)")
    sections = [HEAD.format(peer=peer)]
    goals = [*_step_goals(steps), *_sigreg_goals(regularisers), *_frame_goals(frames)]
    if goals:
        sections.append(
            table(("goal", "measured", ""), [(*goal[:2], "met" if goal[2] else "missed") for goal in goals])
        )
    if every:
        plot(every, out / "training.png")
        sections.append("![Times](training.png)\n")
    if steps:
        sections += [STEPS, *map(_steps, steps)]
    for cell in regularisers:
        sections.append(_regularisers(cell))
    for cell in frames:
        sections.append(_frames(cell))
    for side, found in versions.items():
        sections.append(f"Versions, {side}: {', '.join(f'{name} {number}' for name, number in found.items())}.\n")
    (out / "training.md").write_text("\n".join([*sections, *made(log)]))


def _timed(cell: Row) -> list[Row]:
    return [row for row in cell["rows"] if "seconds" in row]


def _of(cell: Row, kind: str) -> Row:
    return next(row for row in cell["rows"] if row["kind"] == kind)


def _seconds(cell: Row) -> dict[tuple[str, str, str, str], float]:
    """Median seconds by side, what is served, heap and kind."""
    return {(row["side"], row["what"], row["heap"], row["kind"]): median(row["seconds"]) for row in _timed(cell)}


def _step_goals(found: Sequence[Row]) -> list[tuple[str, str, bool]]:
    goals = []
    for cell in found:
        taken = _seconds(cell)
        ratios = [
            taken["peer", "steps", heap, "step"] / taken["lewm", "steps", heap, "step"]
            for heap in HEAPS
            if ("peer", "steps", heap, "step") in taken
        ]
        if ratios:
            said = " and ".join(f"{ratio:.2f}" for ratio in ratios)
            goals.append((f"{_title(cell)}: never slower", f"{said} times faster", min(ratios) >= 1))
    return goals


def _sigreg_goals(found: Sequence[Row]) -> list[tuple[str, str, bool]]:
    goals = []
    for cell in found:
        taken = _seconds(cell)
        theirs = taken.get(("peer", "sigreg", "kept", "sigreg"))
        for kind, goal in (("sigreg", FASTER), ("kummer", EXACT), ("imq", EXACT)) if theirs else ():
            ratio = theirs / taken["lewm", "sigreg", "kept", kind]
            name = COSTS[kind].format(**cell["settings"])
            goals.append((f"{name}: {goal} times faster, memory kept", f"{ratio:.1f} times", ratio >= goal))
    return goals


def _frame_goals(found: Sequence[Row]) -> list[tuple[str, str, bool]]:
    goals = []
    for cell in found:
        speed = _speeds(cell)
        for side in SIDES:
            if (side, "steps", "kept") in speed:
                ratio = min(speed["lewm", "small", heap] / speed[side, "steps", heap] for heap in HEAPS)
                name = f"CPU default: {FRAMES} times the frames of the ViT of {SIDES[side]}"
                goals.append((name, f"{ratio:.0f} times", ratio >= FRAMES))
    return goals


def _title(cell: Row) -> str:
    s = cell["settings"]
    return f"{s['size']} pixels, batch {s['batch']}, {s['threads']} thread{'s' * (s['threads'] > 1)}"


def _range(values: Sequence[float], scale: float = 1.0, digits: int = 2) -> str:
    low, middle, high = (scale * value for value in (min(values), median(values), max(values)))
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def _steps(cell: Row) -> str:
    taken, floor = _seconds(cell), _of(cell, "floor")
    rate = max(median(run[name] for run in floor["gflops"]) for name in floor["gflops"][0])
    least = floor["flop"] / rate / 1e9
    body = []
    for row in _timed(cell):
        seconds, theirs = median(row["seconds"]), taken.get(("peer", "steps", row["heap"], "step"))
        times = f"{theirs / seconds:.2f}" if theirs and row["side"] == "lewm" else ""
        name = f"{SIDES[row['side']]}, {HEAPS[row['heap']]}"
        body.append((name, _range(row["seconds"]), times, f"{seconds / least:.2f}", f"{row['peak_mb']:,.0f}"))
    body.append((f"_floor: {floor['flop'] / 1e9:,.0f} GFLOP at {rate:.0f} GFLOP/s_", f"{least:.2f}", "", "1", ""))
    titles = (_title(cell), "s per step", "times theirs", "times the floor", "peak MB")
    said = "Square products: " + ", ".join(
        f"{name} {median(run[name] for run in floor['gflops']):.0f} GFLOP/s" for name in floor["gflops"][0]
    )
    check = _of(cell, "check")
    if "apart" in check:
        said += f". Losses and the gradient's norm of both differ by {check['apart']:.0e} at most"
    return "\n".join([table(titles, body), f"{said}.\n"])


def _regularisers(cell: Row) -> str:
    taken, settings = _seconds(cell), cell["settings"]
    rows = {(row["side"], row["heap"], row["kind"]): row for row in _timed(cell)}
    body = []
    for side, kind in dict.fromkeys((side, kind) for side, _, kind in rows):
        line = [f"{SIDES[side]}: {COSTS[kind].format(**settings)}"]
        line.append(f"{1e3 * rows[side, 'default', kind]['first']:,.0f}")
        for heap in HEAPS:
            theirs = taken.get(("peer", "sigreg", heap, "sigreg"))
            own = rows[side, heap, kind]["seconds"]
            line += [_range(own, 1e3, 1), f"{theirs / median(own):.1f}" if theirs and side == "lewm" else ""]
        body.append(line)
    titles = ("forward and backward", "first call", HEAPS["default"], "times", HEAPS["kept"], "times")
    compared = {("Gaussian" if row["near"] else "narrow"): row for row in cell["rows"] if row["kind"] == "compared"}
    kinds = [kind for kind in next(iter(compared.values()))["cosines"] if kind != "reference"]
    near = [
        (
            COSTS.get(kind, "stable-worldmodel, {slices} directions").format(**settings),
            *(f"{row['cosines'][kind]:.3f}" for row in compared.values()),
        )
        for kind in kinds
    ]
    text = [SIGREG.format(**settings), table(titles, body), NEARNESS, table(("cosine", *compared), near)]
    for name, row in compared.items():
        if "value_apart" in row:
            text.append(
                f"With the same directions, {name}: values differ by {row['value_apart']:.0e}, gradients by "
                f"{row['gradient_apart']:.0e} of the largest.\n"
            )
    return "\n".join(text)


def _speeds(cell: Row) -> dict[tuple[str, str, str], float]:
    return {(row["side"], row["what"], row["heap"]): row["frames"] / median(row["seconds"]) for row in _timed(cell)}


def _frames(cell: Row) -> str:
    speed, settings = _speeds(cell), cell["settings"]
    names = {"small": "the CPU default", "steps": "the paper's ViT"}
    body = []
    for side, what in dict.fromkeys((side, what) for side, what, _ in speed):
        found = [speed[side, what, heap] for heap in HEAPS]
        ratios = [speed["lewm", "small", heap] / own for heap, own in zip(HEAPS, found, strict=True)]
        times = [f"{ratio:.0f}" if what == "steps" else "" for ratio in ratios]
        pairs = zip((f"{own:,.0f}" for own in found), times, strict=True)
        body.append((f"{SIDES[side]}, {names[what]}", *(text for pair in pairs for text in pair)))
    titles = ("frames per second", HEAPS["default"], "times slower", HEAPS["kept"], "times slower")
    return "\n".join([SPEED.format(**settings, small=settings["batch_small"]), table(titles, body)])


def plot(every: Sequence[Row], path: Path) -> None:
    """A panel per cell: bars of milliseconds, or of frames per second."""
    figure = Figure(figsize=(9, 0.6 + 1.7 * -(-len(every) // 2)), layout="constrained")
    panels = figure.subplots(-(-len(every) // 2), 2, squeeze=False).ravel()
    for axis in panels[len(every) :]:
        axis.set_visible(False)
    for axis, cell in zip(panels, every, strict=False):
        _panel(axis, cell)
    figure.savefig(path, dpi=130)


def _panel(axis: Any, cell: Row) -> None:
    """Bars, on a logarithmic scale where need be; the pale end of a bar is what keeping memory saves."""
    speed = cell["cell"].startswith("frames")
    values: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in _timed(cell):
        value = row["frames"] / median(row["seconds"]) if speed else 1e3 * median(row["seconds"])
        values.setdefault((row["side"], row["what"], row["kind"]), {})[row["heap"]] = value
    for height, ((side, _, _), heaps) in enumerate(reversed(values.items())):
        colour = OURS if side == "lewm" else THEIRS
        axis.barh(height, max(heaps.values()), color=colour, alpha=0.45, height=0.7)
        axis.barh(height, min(heaps.values()), color=colour, height=0.7)
        text = " and ".join(f"{value:,.3g}" if value < 1000 else f"{value:,.0f}" for value in heaps.values())
        axis.text(1.05 * max(heaps.values()), height, text, va="center", fontsize=7)
    names = [
        f"{'lewm' if side == 'lewm' else 'peer'}, {what if kind == 'step' else kind}" for side, what, kind in values
    ]
    axis.set_yticks(range(len(values)), list(reversed(names)), fontsize=7)
    found = [value for heaps in values.values() for value in heaps.values()]
    if max(found) > 5 * min(found):
        axis.set_xscale("log")
        axis.set_xlim(min(found) / 3, 8 * max(found))
    else:
        axis.set_xlim(0, 1.4 * max(found))
    axis.set_title(cell["cell"], fontsize=9)
    axis.set_xlabel("frames per second" if speed else "ms: malloc as it is and memory kept", fontsize=7)
    axis.tick_params(axis="x", labelsize=7)
