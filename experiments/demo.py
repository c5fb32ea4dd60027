"""`lewm demo`: collect, train, evaluate, report; each stage resumes or says that it is done."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments.collect import collect
from experiments.evaluate import evaluate
from experiments.report import report
from experiments.runs import claim_folder, peak_memory_mb, read_json, say, write_json
from experiments.train import train


def demo(config: Mapping[str, Any]) -> dict[str, Any]:
    """Run the whole job into one folder; see `configs/demo.yaml`."""
    out = Path(config["out"])
    claim_folder(out, "config", config)
    say(f"lewm demo, seed {config['seed']}, into {out}")
    clock = _Clock(out / "seconds.json")
    with clock.stage("collect"):
        collect(config["collect"])
    with clock.stage("train"):
        train(config["train"])
    with clock.stage("evaluate"):
        summary = evaluate(config["evaluate"])
    page = out / "report.html"
    if "total" not in summary.get("seconds", {}) or not page.exists():
        summary |= {"seconds": clock.seconds, "peak_memory_mb": clock.peak_memory_mb}
        write_json(out / "summary.json", summary)  # the report shows it
        with clock.stage("report"):
            report(out, config["plugins"])
        summary["seconds"] = {**clock.seconds, "total": round(sum(clock.seconds.values()), 2)}
        write_json(out / "summary.json", summary)
    _show(summary, page)
    return summary


class _Clock:
    """Seconds per stage and peak memory, over all tries that were not killed outright."""

    def __init__(self, path: Path) -> None:
        self._path = path
        state = read_json(path) if path.exists() else {"seconds": {}, "done": [], "peak_memory_mb": 0}
        self.seconds: dict[str, float] = state["seconds"]
        self.peak_memory_mb: float = state["peak_memory_mb"]
        self._done: list[str] = state["done"]

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add what happens inside to the time of a stage, unless it was complete already."""
        begin, complete = time.perf_counter(), name in self._done
        try:
            yield
            complete or self._done.append(name)
        finally:
            if not complete:
                self.seconds[name] = round(self.seconds.get(name, 0) + time.perf_counter() - begin, 2)
            self.peak_memory_mb = max(self.peak_memory_mb, peak_memory_mb() or 0)
            state = {"seconds": self.seconds, "done": self._done, "peak_memory_mb": self.peak_memory_mb}
            write_json(self._path, state)


def _show(summary: Mapping[str, Any], page: Path) -> None:
    low, high = summary["success_final_interval"]
    lines = {"success at the end": f"{summary['success_final']:.1%}  [{low:.1%}, {high:.1%}], n {summary['n']}"}
    if summary["detour_final"] is not None:
        lines["on detour pairs"] = f"{summary['detour_final']:.1%}"
    for floor in ("random", "greedy"):
        lines[f"{floor} floor"] = f"{summary[f'{floor}_final']:.1%}"
    lines["plan time"] = f"{summary['plan_ms_p50']:.1f} ms, p95 {summary['plan_ms_p95']:.1f} ms"
    lines["time, peak memory"] = f"{summary['seconds']['total']:.0f} s, {summary['peak_memory_mb']} MB"
    lines["report"] = str(page)
    say("\n" + "\n".join(f"  {name:<20}{value}" for name, value in lines.items()))
