"""What the lines of an evaluation say: rates with intervals, by the task's rule and by others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from experiments.build import build_task
from experiments.records import EpisodeRecord
from experiments.runs import read_json
from experiments.statistics import interval
from lewm.types import InputError


def summarise(lines: Sequence[EpisodeRecord]) -> dict[str, Any]:
    """Success of the model and of every other agent: over all pairs, and over the `detour` ones.

    Keys are `<agent>_final`, `_ever`, their `_interval`s and `_n`, where the model's are called `success` and
    `detour`. Pairs solved at the start, which the `paper` track has, count in `<agent>_with_presolved_...` alone.
    """
    summary: dict[str, Any] = {}
    for policy in dict.fromkeys(line.policy for line in lines):
        mine = [line for line in lines if line.policy == policy]
        unsolved = [line for line in mine if not line.presolved]
        names = ("success", "detour") if policy == "model" else (policy, f"{policy}_detour")
        summary |= rates(unsolved, names[0]) | rates([line for line in unsolved if line.detour], names[1])
        if len(unsolved) < len(mine):
            everyone = rates(mine, "all")
            summary |= {f"{names[0]}_with_presolved_{key[4:]}": value for key, value in everyone.items()}
    model = [line for line in lines if line.policy == "model" and not line.presolved]
    pairs = {line.pair: line.detour for line in model}
    return {"n": len(pairs), "n_detour": sum(pairs.values()), **summary}


def rates(lines: Sequence[EpisodeRecord], prefix: str) -> dict[str, Any]:
    """`<prefix>_n`, `_final`, `_ever`, and both with `_interval`; None where there are no lines.

    With one seed the interval is Wilson's; with several it is a bootstrap over pairs of the mean over seeds.
    """
    found: dict[str, Any] = {f"{prefix}_n": len({line.pair for line in lines})}
    for rule in ("final", "ever"):
        found |= {f"{prefix}_{rule}": None, f"{prefix}_{rule}_interval": None}
        if lines:
            outcomes = by_seed(lines, [getattr(line, f"success_{rule}") for line in lines])
            found[f"{prefix}_{rule}"] = round(float(outcomes.mean()), 4)
            found[f"{prefix}_{rule}_interval"] = interval(outcomes.mean(0)[None])
    return found


def by_seed(lines: Sequence[EpisodeRecord], outcomes: Sequence[bool]) -> np.ndarray:
    """Outcomes, one of each line, as (seeds, pairs): one agent's, which ran the same pairs with each seed."""
    seeds, pairs = sorted({line.seed for line in lines}), sorted({line.pair for line in lines})
    found = {(line.seed, line.pair): outcome for line, outcome in zip(lines, outcomes, strict=True)}
    return np.array([[found[seed, pair] for pair in pairs] for seed in seeds], float)


def measures(env: Mapping[str, Any], lines: Sequence[EpisodeRecord]) -> dict[str, Any]:
    """Success at the end by the task's other rules: their names, `[<agent>_]<rule>_final` and its `_interval`."""
    names, found = [], {}
    with closing(build_task(env, 1)) as task:
        for policy in dict.fromkeys(line.policy for line in lines):
            mine = [line for line in lines if line.policy == policy and not line.presolved]
            if not mine:
                continue
            far = task.measures(np.array([r.states[-1] for r in mine]), np.array([r.goal for r in mine]))
            names, prefix = list(far), "" if policy == "model" else f"{policy}_"
            for name in names:
                outcomes = by_seed(mine, far[name] <= 1)
                found[f"{prefix}{name}_final"] = round(float(outcomes.mean()), 4)
                found[f"{prefix}{name}_final_interval"] = interval(outcomes.mean(0)[None])
    return {"measures": names, **found}


def read_summary(folder: Path, needed: Sequence[str]) -> dict[str, Any]:
    """The summary of an evaluation.

    Args:
        needed: what it has to say, as dotted keys.

    Raises:
        InputError: there is none, it is of something else, or of a version that did not say so much.
    """
    path = folder / "summary.json"
    summary = read_json(path)
    for key in needed:
        inner = summary
        for name in key.split("."):
            if not isinstance(inner, Mapping) or name not in inner:
                raise InputError(
                    f"{path} does not say '{key}': it was not made by `lewm evaluate`, or by an older version; "
                    "evaluate into another folder: out=..."
                )
            inner = inner[name]
    return summary


def headline(summary: Mapping[str, Any]) -> str:
    """The result in one line."""
    parts, rule = [], "ever" if summary["protocol"]["track"] == "paper" else "final"
    if summary.get(f"success_{rule}") is not None:
        low, high = summary[f"success_{rule}_interval"]
        when = "at any step" if rule == "ever" else "at the end"
        parts.append(f"success {summary[f'success_{rule}']:.1%} [{low:.1%}, {high:.1%}] of {summary['n']} {when}")
        if summary["detour_final"] is not None:
            parts.append(f"detour {summary[f'detour_{rule}']:.1%}")
        parts += [f"{name} {summary[f'{name}_final']:.1%}" for name in summary["measures"]]
    for name in summary["protocol"]["agents"]:
        if summary.get(f"{name}_{rule}") is not None:
            few = f" of {summary[f'{name}_n']}" if summary[f"{name}_n"] != summary["n"] else ""
            parts.append(f"{name} {summary[f'{name}_{rule}']:.1%}{few}")
    if "plan_ms_p50" in summary:
        parts.append(f"plan {summary['plan_ms_p50']:.1f} ms")
    return ", ".join(parts)
