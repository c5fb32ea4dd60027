"""The ablation's page: one table per task, from the raw lines alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.figure import Figure
from scipy.stats import binomtest, spearmanr

from experiments.ablation.variants import TASKS
from experiments.cells import cells, made, number, table
from experiments.statistics import wilson

BASELINE = "default"
TESTED = 2  # seeds at least, for a test against the default
OURS, OTHERS = "#d64534", "#64748b"
TITLES = (
    "variant",
    "seeds",
    "success",
    "by seed",
    "beside the default",
    "CPU s",
    "probe R2",
    "error at 8",
    "rank corr.",
    "rank",
    "two-NN",
)
MEASURES = {
    "probe_r2": "probe R2",
    "rollout_1": "error at 1",
    "rollout_8": "error at 8",
    "action_gap": "action gap",
    "rank_correlation": "rank correlation",
    "effective_rank": "effective rank",
    "two_nn": "two-NN",
}
HEAD = """# Objectives and predictors on tasks that the default does not solve

Made by `lewm ablation`; the raw lines are in `{logs}` beside this page, with the outcome of every pair.
Everything but the named override is the default's: data, steps, batches, planner, pairs, seeds.

**success**: at the goal when the budget ended, mean over seeds, with the 95 % Wilson interval of all their
pairs together (the pairs are the same for every seed, so it says little about other seeds: see *by seed*).
**beside the default**: of one seed, the difference in points to the default's mean: a hint. Of more, the
difference on the same seeds and pairs, and the two-sided p of McNemar's exact test; of {count} tests, what is not
below {level:.4f} (Bonferroni) is a tie here. **CPU s**: processor seconds of training, probe included, one thread.
**probe R2**: linear probe of the true state, worst axis. **error at 8**: open-loop error eight blocks ahead in
units of what standing still gives. **rank corr.**: Spearman between latent and true distance. **rank**,
**two-NN**: effective rank and intrinsic dimension of the latents. The last five are of held-out episodes, means
over seeds. The test, too, is of these models on these pairs: where seeds differ by more than variants, it is luck
of training.
"""


def write(out: Path) -> None:
    """Write `ablation.md` and `ablation.png` from the logs in `out`."""
    logs = {task: out / f"{task}.jsonl" for task in TASKS if (out / f"{task}.jsonl").exists()}
    found = {task: _by_variant(log) for task, log in logs.items()}
    count = sum(
        name != BASELINE and len(_shared(rows, variants.get(BASELINE, {}))) >= TESTED
        for variants in found.values()
        for name, rows in variants.items()
    )
    level = 0.05 / max(1, count)
    names = ", ".join(log.name for log in logs.values())
    parts = [HEAD.format(logs=names, count=count, level=level)]
    for task, variants in found.items():
        parts.append(f"## {TASKS[task].title}\n\n{_table(variants, level)}")
        parts += [*_diverged(logs[task]), f"{_watch(variants)}\n"]
        parts += dict.fromkeys(made(logs[task]))  # of several in a row one is enough
    parts.append("![Success by variant](ablation.png)\n")
    (out / "ablation.md").write_text("\n".join(parts))
    _draw(found, out / "ablation.png")


Rows = dict[int, Mapping[str, Any]]  # by seed


def _by_variant(log: Path) -> dict[str, Rows]:
    found: dict[str, Rows] = {}
    for cell in cells(log):
        settings = cell["settings"]
        if "failed" in cell["rows"][0]:
            continue  # see `_diverged`
        found.setdefault(settings["variant"], {})[settings["seed"]] = {
            **cell["rows"][0],
            "overrides": settings["overrides"],
        }
    return found


def _diverged(log: Path) -> list[str]:
    """What did not train, which is a result, too."""
    lines = [
        f"- {cell['settings']['variant']}, seed {cell['settings']['seed']}: {row['failed'].partition(';')[0]}"
        for cell in cells(log)
        for row in cell["rows"]
        if "failed" in row
    ]
    return ["Diverged, and in none of the numbers above:\n\n" + "\n".join(lines) + "\n"] if lines else []


def _success(rows: Rows) -> tuple[float, Sequence[float]]:
    outcomes = "".join(row["outcomes"] for row in rows.values())
    return outcomes.count("1") / len(outcomes), wilson(outcomes.count("1"), len(outcomes))


def _table(variants: Mapping[str, Rows], level: float) -> str:
    lines = []
    order = sorted(variants, key=lambda name: -_success(variants[name])[0])
    for name in order:
        rows = variants[name]
        rate, (low, high) = _success(rows)
        lines.append(
            (
                f"**{name}**" if name == BASELINE else name,
                len(rows),
                f"{rate:.0%} [{low:.0%}, {high:.0%}]",
                " ".join(f"{_success({seed: rows[seed]})[0]:.0%}" for seed in sorted(rows)),
                "" if name == BASELINE else _beside(rows, variants.get(BASELINE, {}), level),
                f"{mean(row['cpu_seconds'] for row in rows.values()):.0f}",
                *(_mean(rows, key) for key in ("probe_r2", "rollout_8", "rank_correlation")),
                *(_mean(rows, key, 1) for key in ("effective_rank", "two_nn")),
            )
        )
    return table(TITLES, lines)


def _watch(variants: Mapping[str, Rows]) -> str:
    """Which measure goes with success over all models of a task."""
    rows = [row for group in variants.values() for row in group.values()]
    if len(rows) < 5:
        return ""
    scores = [row["outcomes"].count("1") for row in rows]
    columns = {name: [number(row[key]) for row in rows] for key, name in MEASURES.items()}
    varied = {name: values for name, values in columns.items() if len(set(values)) > 1 and len(set(scores)) > 1}
    found = {name: float(spearmanr(scores, values).statistic) for name, values in varied.items()}
    listed = ", ".join(f"{name} {value:+.2f}" for name, value in sorted(found.items(), key=lambda x: -abs(x[1])))
    return f"Spearman correlation with success over these {len(rows)} models: {listed}."


def _mean(rows: Rows, key: str, digits: int = 2) -> str:
    return f"{mean(number(row[key]) for row in rows.values()):.{digits}f}"


def _shared(rows: Rows, baseline: Rows) -> list[int]:
    return sorted(set(rows) & set(baseline))


def _beside(rows: Rows, baseline: Rows, level: float) -> str:
    """Difference to the baseline on the seeds both have, and whether it is more than luck."""
    seeds = _shared(rows, baseline)
    if not baseline:
        return ""
    if len(seeds) < TESTED:  # one network beside another says nothing of how they were trained
        return f"{100 * (_success(rows)[0] - _success(baseline)[0]):+.0f}"
    mine, other = ("".join(group[seed]["outcomes"] for seed in seeds) for group in (rows, baseline))
    won = sum(a > b for a, b in zip(mine, other, strict=True))
    lost = sum(a < b for a, b in zip(mine, other, strict=True))
    p = float(binomtest(won, won + lost).pvalue) if won + lost else 1.0
    text = f"{100 * (won - lost) / len(mine):+.0f}, p {p:.2g}"
    return text if p < level else f"{text} (tie)"


def _draw(found: Mapping[str, Mapping[str, Rows]], path: Path) -> None:
    """Success with intervals, a panel per task, the default in red."""
    tallest = max((len(variants) for variants in found.values()), default=1)
    figure = Figure(figsize=(6 * max(1, len(found)), 1.2 + 0.24 * tallest), layout="constrained")
    for axes, (task, variants) in zip(
        figure.subplots(1, max(1, len(found)), squeeze=False)[0], found.items(), strict=True
    ):
        order = sorted(variants, key=lambda name: _success(variants[name])[0])
        for place, name in enumerate(order):
            rate, (low, high) = _success(variants[name])
            axes.plot([low, high], [place, place], color=OURS if name == BASELINE else OTHERS, linewidth=2)
            seeds = [_success({seed: row})[0] for seed, row in variants[name].items()]
            axes.plot(seeds, [place] * len(seeds), "o", ms=3, color=OURS if name == BASELINE else OTHERS, alpha=0.6)
            axes.plot(rate, place, "|", ms=9, color="black")
        axes.set_yticks(range(len(order)), order, fontsize=8)
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel("success (bar: 95 % interval, dots: seeds)")
        axes.set_title(TASKS[task].title, fontsize=9)
        axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=130)
