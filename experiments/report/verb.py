"""`lewm report`: one page about the folders it is given."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib import resources
from itertools import combinations
from pathlib import Path
from string import Template

import torch

from experiments import pictures
from experiments.compare import Comparison, compare, verdict
from experiments.report import tables
from experiments.report.evaluation import Evaluation, read
from experiments.report.run import section
from experiments.runs import say

FILMS, FILMS_BESIDE_OTHERS = 6, 3  # of failures, and of solved pairs, of each run


def report(
    folders: Path | str | Sequence[Path | str], plugins: Sequence[str] = (), page: Path | str | None = None
) -> Path:
    """Write one page about folders that `lewm evaluate` filled; returns its path.

    Args:
        plugins: packages the models or environments need; only you can name them.
        page: where to; by default `report.html` in the folder, for several folders `comparison.html` here.
    """
    runs = read([Path(folder) for folder in ([folders] if isinstance(folders, Path | str) else folders)], plugins)
    path = Path(page or (runs[0].folder / "report.html" if len(runs) == 1 else "comparison.html"))
    torch.set_num_threads(runs[0].summary["threads"])  # as evaluated
    groups: dict[tuple, list[Evaluation]] = {}
    for run in runs:
        groups.setdefault(run.task, []).append(run)
    logs = {run.label: run.metrics for run in runs if run.metrics}
    films = FILMS if len(runs) == 1 else FILMS_BESIDE_OTHERS
    sections = [section(_part("run.html"), run, films, number * 2 * films) for number, run in enumerate(runs)]
    text = _part("page.html").substitute(
        title=escape(_title(runs)),
        lead=_lead(runs[0]) if len(runs) == 1 else "",
        results="".join(_heading(group, len(groups)) + tables.results(group) for group in groups.values()),
        comparisons="".join(_comparisons(group, plugins) for group in groups.values()),
        explained=tables.explained(runs),
        costs=tables.costs(runs),
        curves=f'<div class="figures">{"".join(pictures.curves(logs))}</div>'
        if logs
        else "<p>There is no log of the training.</p>",
        runs="".join(sections),
        css=_part("page.css").template,
        script=_part("film.js").template,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    say(f"report    {path} ({len(text) / 1e6:.1f} MB)")
    return path


def _part(name: str) -> Template:
    return Template(resources.files("experiments.report").joinpath(name).read_text(encoding="utf-8"))


def _title(runs: Sequence[Evaluation]) -> str:
    tasks = " and ".join(dict.fromkeys(run.protocol["env"]["name"] for run in runs))
    if len(runs) > 1:
        return f"{tasks}: {len(runs)} runs"
    return tasks if tasks == runs[0].label else f"{tasks}: {runs[0].label}"


def _heading(group: Sequence[Evaluation], groups: int) -> str:
    """How the evaluations of one table were made."""
    protocol = group[0].protocol
    apart = f", goals {protocol['offset']} steps from the start" if protocol.get("offset") else ""
    name = f"<b>{escape(protocol['env']['name'])}</b>. " if groups > 1 else ""
    pairs = len({line.pair for line in group[0].lines if not line.presolved})  # who ever ran them
    return (
        f"<p>{name}Track <b>{escape(protocol['track'])}</b>{apart}: {pairs} pairs, none of them "
        f"solved at the start. Every episode runs its whole budget of {protocol['budget']} steps; intervals are of "
        "95 %.</p>"
    )


def _lead(run: Evaluation) -> str:
    """The result in a sentence, with the floors."""
    summary, rule = run.summary, run.rule
    if summary.get(f"success_{rule}") is None:
        return "The model was not evaluated, only others were."
    rate, (low, high) = summary[f"success_{rule}"], summary[f"success_{rule}_interval"]
    when = "ends at its goal in" if rule == "final" else "reaches its goal, if only for a moment, in"
    said = f"The model {when} <b>{rate:.1%}</b> of {summary['n']} pairs ({low:.1%} to {high:.1%})"
    if summary.get("n_detour"):
        around = f"{summary[f'detour_{rule}']:.1%} of the {summary['n_detour']}"
        said += f", and in {around} whose straight way is blocked"
    floors = [
        f"{name} {summary[f'{name}_{rule}']:.1%}" for name in ("random", "greedy") if f"{name}_{rule}" in summary
    ]
    return f"{said}. Floors: {', '.join(floors)}." if floors else f"{said}."


def _comparisons(group: Sequence[Evaluation], plugins: Sequence[str]) -> str:
    """What paired comparisons of the runs of one table say: of all of a few, else of the first with each."""
    few = len(group) <= 4
    pairs = combinations(group, 2) if few else [(group[0], other) for other in group[1:]]
    said = [
        f"<li>{_compared(a.label, b.label, compare(str(a.folder), str(b.folder), plugins=plugins))}</li>"
        for a, b in pairs
        if a.planned and b.planned
    ]
    return f'<h3>Paired on the same pairs</h3><ul class="comparisons">{"".join(said)}</ul>' if said else ""


def _compared(a: str, b: str, found: Comparison) -> str:
    return f"A <b>{escape(a)}</b>, B <b>{escape(b)}</b>: {escape(verdict(found, found.contrasts[0]))}"
