"""README.md of these results, from cells.jsonl and episodes/ alone."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from run import CELLS, EPISODES, SEEDS, TASKS, TRACKS, slug

from experiments import cells
from experiments.statistics import interval, paired_bootstrap

HERE = Path(__file__).parent
OURS = ("ours", "ours, floored", "ours, keypoints")


@dataclass(frozen=True)
class Score:
    """Outcomes of one agent beside one model on one track, of all its training seeds."""

    task: str
    label: str
    track: str
    agent: str
    rows: Mapping[int, Mapping[str, Any]]  # training seed -> row of its cell
    oracles: bool = False

    @cached_property
    def lines(self) -> dict[int, list[dict[str, Any]]]:
        """Training seed -> this agent's lines, those of pre-solved pairs left out."""
        found = {}
        for seed in self.rows:
            name = cell_name(self.task, self.label, self.track, "oracles" if self.oracles else f"seed {seed}")
            path = EPISODES / f"{slug(name)}.jsonl.gz"
            lines = map(json.loads, gzip.decompress(path.read_bytes()).decode().splitlines())
            mine = [line for line in lines if line["policy"] == self.agent and not line["presolved"]]
            found |= {seed: mine} if mine else {}
        return found

    def outcomes(self, rule: str, detour: bool = False, pairs: Sequence[int] | None = None) -> np.ndarray:
        """(training seeds, pairs), planner seeds averaged."""
        table = []
        for lines in self.lines.values():
            by_pair: dict[int, list[bool]] = {}
            for line in lines:
                if (line["detour"] or not detour) and (pairs is None or line["pair"] in pairs):
                    by_pair.setdefault(line["pair"], []).append(line[f"success_{rule}"])
            table.append([float(np.mean(by_pair[pair])) for pair in sorted(by_pair)])
        return np.array(table)

    @property
    def pairs(self) -> list[int]:
        """Which pairs it ran."""
        return sorted({line["pair"] for lines in self.lines.values() for line in lines})


def scores() -> Iterator[Score]:
    """Every agent of every evaluation that was done."""
    done = {cell["cell"]: cell["rows"][0] for cell in cells.cells(CELLS)}
    for task, spec in TASKS.items():
        for label, model in spec.models.items():
            for track in model.tracks:
                for beside in (False, True):
                    rows = {}
                    for seed in model.seeds:
                        name = cell_name(task, label, track, "oracles" if beside else f"seed {seed}")
                        rows |= {seed: done[name]} if name in done and not (beside and rows) else {}
                    agents = [agent for row in rows.values() for agent in row["summary"]["protocol"]["agents"]]
                    for agent in dict.fromkeys(agents):
                        yield Score(task, label, track, agent, rows, beside)


def cell_name(task: str, label: str, track: str, which: str) -> str:
    """Of an evaluation."""
    return f"{task}, {label}, {track}, {which}"


def rate(outcomes: np.ndarray) -> str:
    """`98.5 % [96, 99]`."""
    low, high = interval(outcomes)
    return f"{outcomes.mean():.1%} [{100 * low:.0f}, {100 * high:.0f}]".replace("%", " %")


def rule_of(track: str) -> str:
    """What counts: at any step on the paper's track, else at the end."""
    return "ever" if track == "paper" else "final"


def main_table(found: Sequence[Score]) -> str:
    """One row per task and track: baselines, and each of our models."""
    titles = ["task", "track", "random", "greedy", "GCBC", *OURS, "training", "plan p50 / p95"]
    rows = []
    for task, track in dict.fromkeys((s.task, s.track) for s in found if s.label in OURS and "door" not in s.track):
        here = [s for s in found if (s.task, s.track) == (task, track)]
        rule = rule_of(track)

        def of(agent: str, labels: Sequence[str] = OURS, here: Sequence[Score] = here, rule: str = rule) -> str:
            mine = [s for s in here if s.agent == agent and s.label in labels and s.lines]
            return rate(mine[0].outcomes(rule)) if mine else ""

        best = next((s for s in here if s.agent == "model" and s.label == _full(task)), None)
        if best is None:
            continue  # not run yet
        summary = next(iter(best.rows.values()))["summary"]
        rows.append(
            [
                task,
                f"{track}, *{rule}*",
                of("random"),
                of("greedy"),
                of("cloning"),
                *(of("model", [label]) for label in OURS),
                minutes(task, _full(task)),
                f"{summary['plan_ms_p50']:.0f} / {summary['plan_ms_p95']:.0f} ms",
            ]
        )
    return cells.table(titles, rows)


def detour_table(found: Sequence[Score]) -> str:
    """Pairs whose straight way is blocked, alone."""
    rows = []
    for s in found:
        if s.agent in ("model", "random", "greedy", "cloning") and s.label in OURS:
            outcomes = s.outcomes("final", detour=True) if s.lines else np.zeros((0, 0))
            if outcomes.size and s.track == "free":
                who = s.label if s.agent == "model" else f"{s.agent}, beside {s.label}"
                rows.append([s.task, who, outcomes.shape[1], _each(outcomes), rate(outcomes)])
    return cells.table(["task", "who", "pairs", "training seeds", "success, final"], rows)


def door_table(found: Sequence[Score]) -> str:
    """Doors that no episode of the training data has."""
    rows = []
    for label in OURS:
        mine = [s for s in found if "door" in s.track and s.agent == "model" and s.label == label]
        doors = sum("door" in track for track in TRACKS)
        seeds = [seed for seed in SEEDS if sum(seed in s.rows for s in mine) == doors]  # those that are done
        mine = [replace(s, rows={seed: s.rows[seed] for seed in seeds}) for s in mine]
        if seeds:
            every = [np.concatenate([s.outcomes("final", detour=d) for s in mine], axis=1) for d in (False, True)]
            rows.append([label, every[0].shape[1], _each(every[0]), *map(rate, every)])
    return cells.table(["model", "pairs", "training seeds", "all pairs", "detour pairs"], rows)


def objective_table(found: Sequence[Score]) -> str:
    """Objectives on the same encoder, predictor, data and steps; the difference to `ours` is paired."""
    rows = []
    for task, track in dict.fromkeys((s.task, s.track) for s in found if s.label not in OURS):
        models = [s for s in found if (s.task, s.track, s.agent) == (task, track, "model")]
        reference = next((s for s in models if s.label == "ours"), None)
        if reference is None:
            continue  # not run yet
        for s in models:
            outcomes = s.outcomes(rule_of(track))
            gap = ""
            if s is not reference:
                seeds = [seed for seed in reference.lines if seed in s.lines]
                ours = reference.outcomes(rule_of(track))[[list(reference.lines).index(seed) for seed in seeds]]
                gap = _gap(outcomes, ours)
            rows.append([task, track, s.label, _each(outcomes), rate(outcomes), gap])
    titles = ["task", "track", "model", "training seeds", "success", "less that of the first"]
    return cells.table(titles, rows)


def oracle_table(found: Sequence[Score]) -> str:
    """The model beside both oracles, on the same pairs, and the gaps in points."""
    rows = []
    for a in (s for s in found if s.agent == "oracle_latent" and s.oracles):
        three = [replace(a, agent=agent).outcomes(rule_of(a.track)) for agent in ("model", a.agent, "oracle_state")]
        gap = _gap(three[0], three[1], same_runs=True)
        rows.append([a.task, a.track, three[0].shape[1], *map(rate, three), gap])
    titles = ["task", "track", "pairs", "model", "oracle (a)", "oracle (b)", "model less (a)"]
    return cells.table(titles, rows)


def minutes(task: str, label: str) -> str:
    """Median time of training of a model, all its stages, on one thread beside another process."""
    done = {cell["cell"]: cell["rows"][0]["seconds"] for cell in cells.cells(CELLS)}
    seconds = []
    for seed in TASKS[task].models[label].seeds:
        name = f"{task}, {label}, {{}}, seed {seed}"
        if name.format("train") in done:
            seconds.append(done[name.format("train")] + done.get(name.format("first stage"), 0))
    return f"{np.median(seconds) / 60:.1f} min"


def _full(task: str) -> str:
    return next(label for label, model in TASKS[task].models.items() if model.full)


def _each(outcomes: np.ndarray) -> str:
    return ", ".join(f"{100 * row.mean():.1f}" for row in outcomes) + " %"


def _gap(a: np.ndarray, b: np.ndarray, same_runs: bool = False) -> str:
    (low, high), _ = paired_bootstrap(a, b, same_runs=same_runs)
    return f"{100 * (a.mean() - b.mean()):+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"


def made() -> str:
    """Of which commits, and on what: the cells were measured in several goes."""
    sources = [line["made"] for line in cells.lines(CELLS) if "made" in line]
    commits = ", ".join(dict.fromkeys(str(source["commit"]) for source in sources))
    machines = {(s["versions"]["python"], s["versions"]["numpy"], s["machine"]) for s in sources}
    told = [f"python {python}, numpy {numpy}, {machine}" for python, numpy, machine in sorted(machines)]
    return f"Commits {commits}; {'; '.join(told)}."


def page() -> str:
    """The page."""
    every = [score for score in scores() if score.lines]
    found = [score for score in every if not score.oracles]
    measured = cells.cells(CELLS)
    hours = sum(cell["rows"][0]["seconds"] for cell in measured) / 3600
    tables = {
        "main": main_table(found),
        "detours": detour_table(found),
        "doors": door_table(found),
        "oracles": oracle_table(every),
        "objectives": objective_table(found),
        "hours": f"{hours:.1f}",
        "cells": str(len(measured)),
        "made": made(),
    }
    return Template((HERE / "page.md").read_text(encoding="utf-8")).substitute(tables)


if __name__ == "__main__":
    (HERE / "README.md").write_text(page(), encoding="utf-8")
