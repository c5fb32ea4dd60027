"""Tables of a page: results with their intervals, what they cost, what probes read, and all that is recorded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

from experiments.report.evaluation import Evaluation

AGENTS = {  # what readers cannot guess from a name
    "model": "the world model behind its planner, from pixels",
    "random": "random actions, each held for five steps",
    "greedy": "knows the true positions and heads straight for the goal",
    "cloning": "imitates the training data, conditioned on the goal",
    "retrieval": "does what the nearest recorded states did",
    "oracle_latent": "our planner and latent cost in the true simulator: what is missing to it is the predictor's",
    "oracle_state": "the same with the task's own distance: what is missing here is the search's",
}


def results(group: Sequence[Evaluation]) -> str:
    """Success of all agents of evaluations on the same pairs, a body for each evaluation."""
    detours = any(run.summary.get("n_detour") for run in group)
    rules = list(dict.fromkeys(rule for run in group for rule in run.summary.get("measures", ())))
    heads = ["agent", "at the end", "at any step", *(["detours, at the end"] if detours else [])]
    heads += [f"{rule}, at the end" for rule in rules] + ["pairs"]
    bodies = []
    for run in group:
        rows = [f'<tr class="name"><th colspan="{len(heads)}" scope="rowgroup">{escape(run.label)}</th></tr>']
        rows = rows if len(group) > 1 else []
        rows += [_result(run, name, prefix, heads, detours, rules) for name, prefix in run.agents().items()]
        bodies.append(f"<tbody>{''.join(rows)}</tbody>")
    return f"<table class=results>{_head(heads)}{''.join(bodies)}</table>"


def _result(
    run: Evaluation, name: str, prefix: str, heads: Sequence[str], detours: bool, rules: Sequence[str]
) -> str:
    """One row: what an agent reached."""
    own = "" if name == "model" else f"{name}_"
    keys = [f"{prefix}_final", f"{prefix}_ever", *([f"{own}detour_final"] if detours else [])]
    keys += [f"{own}{rule}_final" for rule in rules]
    cells = [_rate(run.summary.get(key), run.summary.get(f"{key}_interval"), key) for key in keys]
    seeds = len({line.seed for line in run.lines if line.policy == name})
    count = f"{run.summary.get(f'{prefix}_n', run.summary.get('n'))}" + (f" × {seeds} seeds" if seeds > 1 else "")
    labelled = zip(heads[1:], [*cells, count], strict=True)
    said = "".join(f'<td data-label="{escape(head)}">{cell}</td>' for head, cell in labelled)
    return f'<tr{" class=model" if name == "model" else ""}><th scope="row">{escape(name)}</th>{said}</tr>'


def _rate(rate: float | None, interval: Sequence[float] | None, key: str) -> str:
    """A success rate as a bar, its interval as a line on it, and both in words."""
    if rate is None:
        return "–"
    low, high = interval or (rate, rate)
    words = f"<small>{low:.1%} to {high:.1%}</small>" if interval else ""
    return (
        '<svg class="bar" viewBox="0 0 100 9" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="track" width="100" height="9"/><rect class="rate" width="{100 * rate:.4g}" height="9"/>'
        f'<path class="interval" d="M{100 * low:.4g} 4.5H{100 * high:.4g}"/></svg>'
        f'<span class="words"><span data-key="{escape(key)}">{rate:.1%}</span> {words}</span>'
    )


def explained(runs: Sequence[Evaluation]) -> str:
    """Who the agents are."""
    names = dict.fromkeys(name for run in runs for name in run.agents())
    said = "; ".join(f"<b>{escape(name)}</b>: {escape(AGENTS[name])}" for name in names if name in AGENTS)
    return f"<p>{said}.</p>" if said else ""


COSTS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {  # head -> what a summary says, None where it does not
    "plan time, median": lambda s: _given(s, "plan_ms_p50", "{:.1f} ms"),
    "plan time, p95": lambda s: _given(s, "plan_ms_p95", "{:.1f} ms"),
    "model evaluations per decision": lambda s: _given(s, "model_evaluations_per_decision", "{:.4g}"),
    "training steps": lambda s: _given(s, "train_steps", "{:d}"),
    "training": lambda s: _seconds(s.get("seconds", {}).get("train") or s.get("train_seconds")),
    "device": lambda s: s.get("device") and f"{s['device']}, {s.get('threads')} threads",
    "from nothing to here": lambda s: _stages(s.get("seconds", {})),
    "peak memory": lambda s: _given(s, "peak_memory_mb", "{:.0f} MB"),
}


def costs(runs: Sequence[Evaluation]) -> str:
    """Time of a decision and of training, a row for each run."""
    found = {head: [says(run.summary) for run in runs] for head, says in COSTS.items()}
    known = {head: values for head, values in found.items() if any(values)}
    rows = [[run.label, *(values[k] or "–" for values in known.values())] for k, run in enumerate(runs)]
    return table(["run", *known], rows, "costs") if known else ""


def _given(summary: Mapping[str, Any], key: str, pattern: str) -> str | None:
    return None if summary.get(key) is None else pattern.format(summary[key])


def _seconds(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return f"{seconds / 60:.1f} min" if seconds >= 100 else f"{seconds:.0f} s"


def _stages(seconds: Mapping[str, float]) -> str | None:
    parts = {name: value for name, value in seconds.items() if name != "total"}
    said = ", ".join(f"{name} {value:.0f}" for name, value in parts.items())
    return f"{sum(parts.values()):.0f} s ({said})" if parts else None


def probes(run: Evaluation) -> str:
    """How much of the true state each probe reads off the latents, axis by axis."""
    truth = run.diagnosis.get("truth") or {}
    columns = {
        "linear, after training": run.summary.get("probe_r2"),
        "linear, lewm diagnose": truth.get("linear"),
        "small network, lewm diagnose": truth.get("mlp"),
    }
    known = {head: values for head, values in columns.items() if values}
    if not known:
        return "<p>No true state was recorded with the training data.</p>"
    axes = range(max(len(values) for values in known.values()))
    rows = [[f"{k}", *(f"{v[k]:.4f}" if k < len(v) else "–" for v in known.values())] for k in axes]
    return table(["axis", *known], rows, "probes")


def facts(run: Evaluation) -> str:
    """Everything recorded of an evaluation and of the training before it, one row each."""
    said = {**run.summary, "training": run.trained.facts}
    return table(["what", "value"], flattened(said), "facts")


def flattened(value: Any, name: str = "") -> list[list[str]]:
    """Rows (dotted name, value) of nested mappings."""
    if not isinstance(value, Mapping) or not value:
        return [[name, value if isinstance(value, str) else json.dumps(value)]]
    return [row for key, inner in value.items() for row in flattened(inner, f"{name}.{key}" if name else key)]


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], kind: str) -> str:
    """A table of plain texts; the first of each row is its name."""
    bodies = []
    for name, *cells in rows:
        said = zip(heads[1:], cells, strict=True)
        inner = "".join(f'<td data-label="{escape(head)}">{escape(cell)}</td>' for head, cell in said)
        bodies.append(f'<tr><th scope="row">{escape(name)}</th>{inner}</tr>')
    return f'<table class="{kind}">{_head(heads)}<tbody>{"".join(bodies)}</tbody></table>'


def _head(heads: Sequence[str]) -> str:
    return f"<thead><tr>{''.join(f'<th scope=col>{escape(head)}</th>' for head in heads)}</tr></thead>"
