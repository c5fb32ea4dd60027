"""`lewm demo`: collect, train, evaluate, report; each stage resumes or says that it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
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
    clock = out / "seconds.json"
    seconds: dict[str, float] = read_json(clock) if clock.exists() else {}
    say(f"lewm demo, seed {config['seed']}, into {out}")

    def stage(name: str, run: Callable[[], Any]) -> Any:
        """Run a stage; the time of the try that completed it is kept."""
        begin, known = time.perf_counter(), name in seconds
        result = run()
        if not known:
            seconds[name] = round(time.perf_counter() - begin, 2)
            write_json(clock, seconds)
        return result

    stage("collect", lambda: collect(config["collect"]))
    stage("train", lambda: train(config["train"]))
    summary = stage("evaluate", lambda: evaluate(config["evaluate"]))
    page = out / "report.html"
    if "total" not in summary.get("seconds", {}) or not page.exists():
        summary |= {"seconds": seconds, "peak_memory_mb": peak_memory_mb()}
        write_json(out / "summary.json", summary)  # the report shows it
        stage("report", lambda: report(out))
        summary["seconds"] = {**seconds, "total": round(sum(seconds.values()), 2)}
        write_json(out / "summary.json", summary)
    _show(summary, page)
    return summary


def _show(summary: Mapping[str, Any], page: Path) -> None:
    low, high = summary["success_final_interval"]
    lines = {"success at the end": f"{summary['success_final']:.1%}  [{low:.1%}, {high:.1%}], n {summary['n']}"}
    if summary["detour_final"] is not None:
        lines["on detour pairs"] = f"{summary['detour_final']:.1%}"
    for floor in summary["protocol"]["floors"]:
        lines[f"{floor} floor"] = f"{summary[f'{floor}_final']:.1%}"
    lines["plan time"] = f"{summary['plan_ms_p50']:.1f} ms, p95 {summary['plan_ms_p95']:.1f} ms"
    lines["time, peak memory"] = f"{summary['seconds']['total']:.0f} s, {summary['peak_memory_mb']} MB"
    lines["report"] = str(page)
    say("\n" + "\n".join(f"  {name:<20}{value}" for name, value in lines.items()))
