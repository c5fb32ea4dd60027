"""The benchmark's page: tables in Markdown and a bar plot, from the raw lines alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from experiments.cells import cells, made, table

Row = Mapping[str, Any]
TITLES = {"two_room": "Two-Room", "push_t": "Push-T", "reacher": "Reacher"}
SUBSTEPS = {"push_t": 10, "reacher": 1}  # physics steps in one of ours
DRIVEN = {
    ("peer", "step_render"): "stable-worldmodel",
    ("lewm", "step_render"): "**lewm**, {rows} rows",
    ("lewm", "one_row"): "lewm, one row",
    ("lewm", "standard"): "lewm, {rows} rows, `quality=standard`",
    ("lewm", "step"): "_of it: stepping alone_",
    ("lewm", "render"): "_of it: drawing alone_",
    ("lewm", "floor"): "_floor: writing as many bytes_",
}
STORED = {
    ("peer", "lance"): "stable-worldmodel, Lance (its default)",
    ("peer", "hdf5"): "stable-worldmodel, HDF5",
    ("lewm", "collect"): "**lewm**, {rows} rows",
    ("lewm", "compress"): "_of it: compressing alone_",
}
BARS = {
    ("peer", "step_render"): "step, draw: stable-worldmodel",
    ("lewm", "standard"): "lewm, standard quality",
    ("lewm", "one_row"): "lewm, one row",
    ("lewm", "step_render"): "lewm",
    ("peer", "lance"): "collect: stable-worldmodel, Lance",
    ("peer", "hdf5"): "stable-worldmodel, HDF5",
    ("lewm", "collect"): "lewm",
}
ALONE = ("step", "render", "compress", "floor")  # not to be compared
GOALS = {("two_room", None): 50, ("push_t", None): 3, ("reacher", 64): 15, ("reacher", 224): 5}
WORKERS_GOAL = 1.7
OURS, THEIRS = "#d64534", "#64748b"

HEAD = """# Environments: frames per second, beside another toolkit

Made by `lewm benchmark envs`; the raw lines are in `envs.jsonl` beside this page, every round of them.

**What is timed.** *Step and draw*: environment steps under random actions with a picture of each, from the action
to the uint8 array; a reset every 100 steps, not timed. With one row both sides take the same actions. *Collected*:
episodes of 100 steps under a uniformly random policy, resets included, until they are in the files of a store. One
process for each side, on one core with one thread, one working at a time, in turns. Medians over the turns,
smallest to largest in brackets.

**Who is measured.** stable-worldmodel {peer}, its own `World` with one environment (its pool steps one after
another, so more of them change nothing) and `World.collect` into its two stores. Only its imports of other
simulators and of torchvision are left out. It draws 224 pixels (Push-T: 512, then 224) whatever is asked for, and
resizes. Its sets hold the goal's image for every step, too, in Push-T. A step of its Reacher is two of ours, which
hold an action for 0.02 s as the suite does: two physics steps instead of one.

**lewm** steps many rows at once; `one row` is what a robot or an evaluation of a single episode has. *Collected* is
what one worker of `lewm collect` does: draw, compress without loss (zstd), write, sync, commit. It is compared with
their default store, or where that fails with the other.
"""

WORKERS = """## Two workers

Whole `lewm collect` calls at {size} pixels, start to end, of few and of many episodes, in turns: medians of
{repeats}. "In the long run" is what the further episodes took, so without starting processes, checking the first
picture and the contact sheet. Mesa rasterises with one thread in each process (`LP_NUM_THREADS=1`).
"""

TIME = """## Where the time goes

Ours, medians. The rest of a collected frame is writing, syncing, resets and random numbers.
"""


def write(out: Path) -> None:
    """`envs.md`, and `envs.png` where there are frames to draw."""
    log = out / "envs.jsonl"
    every = cells(log)
    measured = [cell for cell in every if not cell["cell"].startswith("workers")]
    workers = [cell for cell in every if cell["cell"].startswith("workers")]
    versions = {row["side"]: row["versions"] for cell in measured for row in cell["rows"]}
    peer = versions.get("peer", {}).get("stable-worldmodel", "(not measured here)")
    sections = [HEAD.format(peer=peer)]
    if measured:
        plot(measured, out / "envs.png")
        sections += [_goals(measured, workers), "![Frames per second](envs.png)\n"]
    sections += [_frames(cell) for cell in measured]
    if measured:
        sections.append(_where_time_goes(measured))
    if workers:
        sections.append(_workers(workers))
    for side, found in versions.items():
        sections.append(f"Versions, {side}: {', '.join(f'{name} {number}' for name, number in found.items())}.\n")
    sections += made(log)
    (out / "envs.md").write_text("\n".join(sections))


def _speeds(cell: Row) -> dict[tuple[str, str], float]:
    """Median frames per second by side and kind, of what could be measured."""
    return {
        (row["side"], row["kind"]): median(row["frames_per_second"])
        for row in cell["rows"]
        if row["frames_per_second"]
    }


def _stored_by_peer(speed: Mapping[tuple[str, str], float]) -> float | None:
    """Their default store; where it fails, the other."""
    return speed.get(("peer", "lance"), speed.get(("peer", "hdf5")))


def _goals(measured: Sequence[Row], workers: Sequence[Row]) -> str:
    body = []
    for cell in measured:
        task, size, speed = cell["settings"]["task"], cell["settings"]["size"], _speeds(cell)
        goal = GOALS.get((task, size), GOALS.get((task, None)))
        if ("peer", "step_render") not in speed or goal is None:
            continue
        pairs = [("step_render", speed["peer", "step_render"]), ("collect", _stored_by_peer(speed))]
        ratios = [_ratio(speed.get(("lewm", kind)), theirs) for kind, theirs in pairs]
        said = ["" if r is None else f"{r:.1f} times, {'met' if r >= goal else 'missed'}" for r in ratios]
        body.append((f"{TITLES[task]}, {size} pixels", f"{goal} times", *said))
    for cell in workers:
        ratio = _in_the_long_run(cell)[1]
        word = "met" if ratio >= WORKERS_GOAL else "missed"
        name = TITLES[cell["settings"]["task"]]
        body.append((f"{name}, a second worker", f"{WORKERS_GOAL} times", "", f"{ratio:.2f} times, {word}"))
    return table(("", "goal", "step and draw", "collected"), body) if body else ""


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return ours / theirs if ours and theirs else None


def _frames(cell: Row) -> str:
    task, size = cell["settings"]["task"], cell["settings"]["size"]
    rows = {(row["side"], row["kind"]): row for row in cell["rows"]}
    speed = _speeds(cell)
    drawing = _listed(rows, DRIVEN, speed.get(("peer", "step_render")))
    storing = _listed(rows, STORED, _stored_by_peer(speed))
    backend = ", ".join(f"{k} {v}" for k, v in rows["lewm", "step_render"]["rendering"].items())
    return "\n".join(
        [
            f"## {TITLES[task]}, {size} pixels\n",
            table(("step and draw", "frames/s", "times theirs"), [line[:3] for line in drawing]),
            table(("collected", "frames/s", "times theirs", "bytes per frame"), storing),
            f"Ours is drawn with: {backend}.\n",
        ]
    )


def _listed(rows: Mapping[Any, Row], labels: Mapping[Any, str], theirs: float | None) -> Iterable[tuple[str, ...]]:
    for key, label in labels.items():
        if key not in rows:
            continue
        row = rows[key]
        name, every = label.format(rows=row.get("rows")), row["frames_per_second"]
        if not every:
            yield name, f"fails: `{_short(row['error'])}`", "", ""
            continue
        text = f"{median(every):,.0f} ({min(every):,.0f} to {max(every):,.0f})"
        times = f"{median(every) / theirs:.1f}" if theirs and key[1] not in ALONE else ""
        yield name, text, times, f"{row['bytes_per_frame']:,}" if "bytes_per_frame" in row else ""


def _short(error: str) -> str:
    """The begin of an error, without the objects it names."""
    return " ".join(re.sub("<[^<>]*>", "...", error).split())[:100].replace("|", "/")


def _where_time_goes(measured: Sequence[Row]) -> str:
    """Microseconds of a collected frame by part; of a picture by two sizes, of a physics step."""
    titles = ("", "stepping", "drawing", "compressing", "the rest", "of a collected frame")
    body, drawn, stepped = [], {}, {}
    for cell in measured:
        task, size, speed = cell["settings"]["task"], cell["settings"]["size"], _speeds(cell)
        kinds = [("lewm", kind) for kind in ("step", "render", "compress", "collect")]
        if not speed.keys() >= set(kinds):
            continue  # one of them fails, as its table says
        *parts, whole = (1e6 / speed[kind] for kind in kinds)
        stepped[task] = parts[0]
        drawn.setdefault(task, []).append((size, parts[1]))
        spent = [*parts, max(0.0, whole - sum(parts)), whole]
        body.append((f"{TITLES[task]}, {size} pixels", *(f"{us:,.1f} us" for us in spent)))
    said = [line for task, found in drawn.items() for line in _drawing(task, found)]
    for task, count in SUBSTEPS.items():
        if task in stepped:
            said.append(
                f"- {TITLES[task]}: a step is {count} physics step{'s' * (count > 1)}, "
                f"{stepped[task] / count:,.1f} us each with loading and reading the state shared out."
            )
    return "\n".join([TIME, table(titles, body), *said, ""]) if body else ""


def _drawing(task: str, found: Sequence[tuple[int, float]]) -> list[str]:
    """What a picture costs and what each of its pixels, from two sizes; nothing where that makes no sense."""
    (small, least), (large, most) = min(found), max(found)
    per_pixel = (most - least) / (large**2 - small**2) if large > small else 0.0
    fixed = least - per_pixel * small**2
    if per_pixel <= 0 or fixed < 0:
        return []
    costs = f"a picture costs {fixed:,.0f} us and {1e3 * per_pixel:.2f} ns for each pixel"
    return [f"- {TITLES[task]}: {costs}, from its two sizes ({small} and {large} pixels)."]


def _in_the_long_run(cell: Row) -> dict[int, float]:
    """Frames per second of the further episodes by number of workers; under 1 the ratio of two workers to one."""
    speed = {}
    for row in cell["rows"]:
        few, many = row["episodes"]
        short, long = (median(run[k] for run in row["seconds"]) for k in (0, 1))
        speed[row["workers"]] = (many - few) * (row["steps"] + 1) / max(long - short, 1e-9)
    return {0: speed[1], 1: speed[2] / speed[1], 2: speed[2]}


def _workers(found: Sequence[Row]) -> str:
    body = []
    for cell in found:
        rows = {row["workers"]: row for row in cell["rows"]}
        long_run = _in_the_long_run(cell)
        few, many = rows[1]["episodes"]
        short, long = ({w: median(run[k] for run in rows[w]["seconds"]) for w in rows} for k in (0, 1))
        body.append(
            (
                TITLES[cell["settings"]["task"]],
                f"{few}: {short[1]:.1f} and {short[2]:.1f} s",
                f"{many}: {long[1]:.1f} and {long[2]:.1f} s",
                f"{long[1] / long[2]:.2f}",
                f"{long_run[0]:,.0f} and {long_run[2]:,.0f} frames/s",
                f"{long_run[1]:.2f}",
            )
        )
    settings = found[0]["settings"]
    titles = ("one and two workers", "few episodes", "many", "times", "in the long run", "times")
    return "\n".join([WORKERS.format(size=settings["size"], repeats=settings["repeats"]), table(titles, body)])


def plot(measured: Sequence[Row], path: Path) -> None:
    """Bars of frames per second, one panel per task and size."""
    sizes = sorted({cell["settings"]["size"] for cell in measured})
    tasks = list(dict.fromkeys(cell["settings"]["task"] for cell in measured))
    figure = Figure(figsize=(2.2 + 3 * len(tasks), 0.7 + 2.2 * len(sizes)), layout="constrained")
    panels = figure.subplots(len(sizes), len(tasks), sharex=True, sharey=True, squeeze=False)
    known = {(row["side"], row["kind"]) for cell in measured for row in cell["rows"]}
    bars = [(key, label) for key, label in reversed(BARS.items()) if key in known]
    for cell in measured:
        axis = panels[sizes.index(cell["settings"]["size"])][tasks.index(cell["settings"]["task"])]
        _panel(axis, cell, bars)
    for axis in panels[-1]:
        axis.set_xlabel("frames per second, one core", fontsize=8)
    shown = [speed for cell in measured for key, speed in _speeds(cell).items() if key in BARS]
    if shown:
        panels[0][0].set_xlim(min(shown) / 2, 12 * max(shown))
    figure.savefig(path, dpi=130)


def _panel(axis: Any, cell: Row, bars: Sequence[tuple[tuple[str, str], str]]) -> None:
    rows = {(row["side"], row["kind"]): row["frames_per_second"] for row in cell["rows"]}
    axis.set_xscale("log")
    for height, (key, _) in enumerate(bars):
        if found := rows.get(key):
            axis.barh(height, median(found), color=OURS if key[0] == "lewm" else THEIRS, height=0.7)
            axis.plot([min(found), max(found)], [height, height], color="#1f2937", lw=1.2)
            axis.text(1.15 * max(found), height, f"{median(found):,.0f}", va="center", fontsize=7)
        elif key in rows:
            axis.text(0.02, height, "fails", va="center", fontsize=7, transform=axis.get_yaxis_transform())
    axis.set_yticks(range(len(bars)), [label for _, label in bars], fontsize=8)
    axis.set_title(f"{TITLES[cell['settings']['task']]}, {cell['settings']['size']} pixels", fontsize=9)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.tick_params(axis="x", labelsize=7)
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)
