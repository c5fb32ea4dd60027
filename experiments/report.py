"""`lewm report`: one self-contained HTML page about a run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from experiments import pictures, records
from experiments.build import build_task
from experiments.records import EpisodeRecord
from experiments.runs import read_json, say
from lewm import checkpoint

ROLLOUTS, FAILURES = 6, 6


def report(folder: Path | str, plugins: Sequence[str] = ()) -> Path:
    """Write `report.html` into a folder that `lewm evaluate` filled; returns its path.

    Args:
        plugins: packages the model or the environment needs; only you can name them.
    """
    out = Path(folder)
    summary = read_json(out / "summary.json")
    run = Path(os.path.normpath(out / summary["run"]))
    episodes = [r for r in records.read(out / "episodes.jsonl") if r.policy == "model"]
    model = checkpoint.load(run, plugins=plugins)
    env = summary["protocol"]["env"]
    task = build_task(env, 1)
    history = run / "metrics.jsonl"
    metrics = [json.loads(line) for line in history.read_text().splitlines()] if history.exists() else []
    figures = {
        "bars": pictures.success_bars(summary),
        "curves": pictures.loss_curves(metrics),
        "map": pictures.latent_map(model, task),
    }
    wins, losses = _chosen(episodes)
    page = Template(resources.files("experiments").joinpath("report.html").read_text(encoding="utf-8")).substitute(
        title=escape(f"{env['name']}, seed {summary['seed']}"),
        cards="".join(_card(*card) for card in _cards(summary)),
        rollouts="".join(_film(env, record) for record in wins) or "<p>No pair was solved.</p>",
        failures="".join(_film(env, record) for record in losses) or "<p>None: every pair ended at its goal.</p>",
        failure_count=sum(not record.success_final for record in episodes),
        n=summary["n"],
        budget=summary["protocol"]["budget"],
        probe=", ".join(f"{r2:.4f}" for r2 in summary["probe_r2"])
        if summary["probe_r2"]
        else "no true state recorded",
        facts=_table(summary),
        **{name: pictures.inline_svg(figure) for name, figure in figures.items()},
    )
    path = out / "report.html"
    path.write_text(page, encoding="utf-8")
    say(f"report    {path} ({len(page) / 1e6:.1f} MB)")
    return path


def _chosen(episodes: Sequence[EpisodeRecord]) -> tuple[list[EpisodeRecord], list[EpisodeRecord]]:
    """Solved pairs to show (detours first, in order of the pairs) and the worst failures, worst first."""
    solved = [record for record in episodes if record.success_final]
    failed = [record for record in episodes if not record.success_final]
    failed.sort(key=lambda r: -float(np.linalg.norm(np.subtract(r.states[-1], r.goal))))
    solved.sort(key=lambda r: not r.detour)
    around = [r for r in solved if r.detour][: ROLLOUTS - 2]
    return (around + [r for r in solved if not r.detour])[:ROLLOUTS], failed[:FAILURES]


def _cards(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(figure, name, remark) of the headline numbers."""
    low, high = summary["success_final_interval"]
    cards = [
        (f"{summary['success_final']:.1%}", "success at the end", f"95 % interval {low:.1%} to {high:.1%}"),
        (f"{summary['success_ever']:.1%}", "success at any step", f"{summary['n']} unseen pairs"),
    ]
    if summary["detour_final"] is not None:
        low, high = summary["detour_final_interval"]
        cards.insert(1, (f"{summary['detour_final']:.1%}", "on detour pairs", f"{low:.1%} to {high:.1%}"))
    if "random_final" in summary:
        greedy = f"greedy {summary['greedy_final']:.1%}" if "greedy_final" in summary else ""
        cards.append((f"{summary['random_final']:.1%}", "random floor", greedy))
    cards.append(
        (
            f"{summary['plan_ms_p50']:.1f} ms",
            "per plan",
            f"p95 {summary['plan_ms_p95']:.1f} ms, {summary['threads']} threads",
        )
    )
    seconds = summary.get("seconds")
    if seconds:
        parts = ", ".join(f"{name} {value:.0f}" for name, value in seconds.items() if name != "total")
        cards.append((f"{sum(v for k, v in seconds.items() if k != 'total'):.0f} s", "from nothing to here", parts))
    return cards


def _card(figure: str, name: str, remark: str) -> str:
    return (
        f"<div class=card><b>{escape(figure)}</b><span>{escape(name)}</span><small>{escape(remark)}</small></div>"
    )


def _film(env: Mapping[str, Any], record: EpisodeRecord) -> str:
    kind = "detour" if record.detour else "direct"
    when = f"reached at step {record.first_success}" if record.first_success else "never reached"
    end = "there at the end" if record.success_final else "<em>not there at the end</em>"
    return (
        f'<figure><img alt="pair {record.pair}: agent left, goal right" src="{pictures.animation(env, record)}">'
        f"<figcaption>pair {record.pair}, {kind}: {when}, {end}</figcaption></figure>"
    )


def _table(summary: Mapping[str, Any]) -> str:
    """Every fact of the summary that is not a headline, one row each."""
    rows = []
    for key, value in summary.items():
        text = json.dumps(value) if isinstance(value, dict | list) else str(value)
        rows.append(f"<tr><th>{escape(key)}</th><td>{escape(text)}</td></tr>")
    return "".join(rows)
