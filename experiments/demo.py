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
        """Run a stage and add its time to what earlier, interrupted tries took."""
        begin, done_before = time.perf_counter(), name in seconds
        result = run()
        if not done_before:
            seconds[name] = round(time.perf_counter() - begin, 2)
            write_json(clock, seconds)
        return result

    stage("collect", lambda: collect(config["collect"]))
    stage("train", lambda: train(config["train"]))
    summary = stage("evaluate", lambda: evaluate(config["evaluate"]))
    known = {"seed": config["seed"], "peak_memory_mb": peak_memory_mb()}
    write_json(out / "summary.json", {**summary, **known, "seconds": seconds})
    page = stage("report", lambda: report(out))
    summary = {**summary, **known, "seconds": {**seconds, "total": round(sum(seconds.values()), 2)}}
    write_json(out / "summary.json", summary)
    low, high = summary["success_final_interval"]
    say("")
    interval = f"95 % interval {low:.1%} to {high:.1%}, n {summary['n']}"
    say(f"  success at the end   {summary['success_final']:7.1%}   {interval}")
    if summary["detour_final"] is not None:
        say(f"  on detour pairs      {summary['detour_final']:7.1%}")
    say(f"  random floor         {summary['random_final']:7.1%}   greedy floor {summary['greedy_final']:.1%}")
    say(f"  plan time            {summary['plan_ms_p50']:6.1f} ms   p95 {summary['plan_ms_p95']:.1f} ms")
    say(f"  time, memory         {sum(seconds.values()):6.1f} s    peak {known['peak_memory_mb']} MB")
    say(f"  report               {page}")
    return summary
