"""`lewm evaluate`: what there is to do, who does it, and the summary of what came out."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from experiments import records
from experiments.build import build_task
from experiments.evaluate.agents import Agent, Spec, Trained, choose_agents
from experiments.evaluate.episodes import time_decisions
from experiments.evaluate.summary import headline, measures, summarise
from experiments.evaluate.work import Chunk, Setting, Share, chunks, plan, run, run_elsewhere
from experiments.fit import check_drawn_alike, check_fits
from experiments.pairs import choose_pairs
from experiments.records import EpisodeRecord
from experiments.runs import at_least, claim_folder, exclusive, progress, provenance, read_json, say, write_json
from experiments.statistics import wilson
from lewm import checkpoint, registry
from lewm.models import WorldModel
from lewm.types import InputError

# How published numbers were made (LeWM: 300 samples, 30 elites, horizon 5 blocks of 5, all of them executed)
PAPER = {
    "planner": {
        "name": "cem",
        "horizon": 25,
        "samples": 300,
        "elites": 30,
        "iterations": 10,
        "warm_iterations": 10,
        "correlation": 0.0,
        "returns": "mean",
    },
    "cost": {"name": "goal_distance", "running": 0.0, "terminal": 1.0},
    "replan_every": 25,
}
PAPER_ITERATIONS = {"push_t": 30}
UNPLANNED = {"planner": {}, "cost": {}, "replan_every": 1}


def evaluate(config: Mapping[str, Any]) -> dict[str, Any]:
    """Run what is missing of an evaluation and write its summary; see `configs/evaluate.yaml`."""
    at_least(config, pairs=1, offset=1, rows=1, workers=1, latency_pairs=1, pairs_seed=0, threads=1)
    torch.set_num_threads(config["threads"])
    trained, protocol = _prepare(config)
    out = trained.folder
    seeds, asked = _with_earlier(out, _seeds(config["seeds"]), config["agents"])
    with closing(build_task(trained.env, 1)) as task:
        check_fits(trained.model, task)
        made = {"version": task.version, "rendering": json.loads(json.dumps(dict(task.rendering)))}
        check_drawn_alike(made, trained.env, trained.facts, config["rendering"])
        pairs, track = choose_pairs(task, trained.env, config, trained.facts.get("data", {}))
        if config["budget"] is not None:
            at_least(config, budget=1)
        budget = config["budget"] or (100 if track["track"] == "free" else 2 * track["offset"])
        agents = choose_agents(asked, trained, task, pairs.starts[:1], pairs.goals[:1])
    protocol |= {
        **track,
        "task": made,
        "pairs": len(pairs),
        "pairs_fingerprint": pairs.fingerprint,
        "pairs_presolved_removed": pairs.presolved,
        "pairs_impossible_removed": pairs.impossible,
        "budget": budget,
        "agents": {name: spec for name, (spec, _) in agents.items()},
        "seeds": seeds,
        "threads": config["threads"],
    }
    with exclusive(out):
        claim_folder(out, "evaluate", protocol, ["episodes.jsonl", "summary.json"], grows=("agents", "seeds"))
        acting = {name: agent for name, (_, agent) in agents.items()}
        return _run(config, protocol, Setting(trained.env, pairs, budget), acting, trained)


def load(run: str, out: str, env: Mapping[str, Any], agent: Mapping[str, Any], plugins: Sequence[str]) -> Trained:
    """A trained model and how it plans; `agent` holds `planner`, `cost` and `replan_every`."""
    facts = checkpoint.provenance(run)
    path = Path(run) / "train.json"
    data = Path(read_json(path)["data"]) if path.exists() else None
    return Trained(checkpoint.load(run, plugins=plugins), Path(run), facts, Path(out), data, env, **agent)


def _seeds(seeds: Any) -> list[int]:
    """The planner seeds, each at most once."""
    if not (isinstance(seeds, list) and seeds and all(isinstance(s, int) and s >= 0 for s in seeds)):
        raise InputError(f"seeds is a list of whole numbers, [0,1,2] say; got {seeds}")
    if len(set(seeds)) < len(seeds):
        raise InputError(f"seeds names one twice: {seeds}")
    return seeds


def _with_earlier(out: Path, seeds: list[int], asked: Any) -> tuple[list[int], list[Spec] | None]:
    """Seeds and agents of what was begun in this folder, then those asked for: an evaluation only grows."""
    if not (asked is None or (isinstance(asked, list) and asked and all(isinstance(a, str | dict) for a in asked))):
        raise InputError(f"agents must be null, or a list of {', '.join(registry.names('agent'))}; got {asked}")
    path = out / "evaluate.json"
    earlier = read_json(path) if path.exists() else {}
    known = list(earlier.get("agents", {}).values())
    specs = None if asked is None else [{"name": a} if isinstance(a, str) else a for a in asked]
    if known:
        specs = [*known, *(specs or [])]
    return list(dict.fromkeys([*earlier.get("seeds", []), *seeds])), specs


def _plans(config: Mapping[str, Any], env: Mapping[str, Any], model: WorldModel) -> dict[str, Any]:
    """How the agent plans, in plain settings: from the config, else as the paper or the checkpoint says."""
    usual = {"planner": {"name": "cem"}, "cost": {"name": "goal_distance"}, "replan_every": model.action_block}
    advice = {**usual, **model.recommendation}
    if config["track"] == "paper":
        iterations = PAPER_ITERATIONS.get(env["name"], PAPER["planner"]["iterations"])
        advice = {**PAPER, "planner": {**PAPER["planner"], "iterations": iterations, "warm_iterations": iterations}}
    return {key: advice[key] if config.get(key) is None else config[key] for key in usual}


def _prepare(config: Mapping[str, Any]) -> tuple[Trained, dict[str, Any]]:
    """The model, how it plans, and what the protocol says of both."""
    run, out = Path(config["run"]), Path(config["out"])
    folder = checkpoint.find(run)
    if folder == out:
        raise InputError(f"{out} is a checkpoint; say where the evaluation goes, out=...")
    facts = checkpoint.provenance(run)
    env = config.get("env") or facts.get("data", {}).get("source", {}).get("env")
    if not isinstance(env, Mapping):  # a converted set may say something else
        raise InputError(f"{folder} does not say which environment it was trained on; choose env=...")
    unplanned = load(config["run"], config["out"], env, UNPLANNED, config["plugins"])
    agent = _plans(config, env, unplanned.model)
    trained = replace(unplanned, **agent)
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:16]
    return trained, {"env": env, "checkpoint": digest, **agent}


def _run(
    config: Mapping[str, Any],
    protocol: Mapping[str, Any],
    setting: Setting,
    agents: Mapping[str, Agent],
    trained: Trained,
) -> dict[str, Any]:
    """Run the missing episodes and write the summary of all."""
    out, begin = trained.folder, time.perf_counter()
    log, seeds = out / "episodes.jsonl", protocol["seeds"]
    records.repair(log)
    whole = plan(agents, seeds, len(setting.pairs))
    missing = chunks(whole, config["rows"], {line.key for line in records.read_all(out)})
    path = out / "summary.json"
    if not missing and path.exists() and read_json(path).get("protocol") == json.loads(json.dumps(protocol)):
        say(f"evaluate  already done: {log}")
        return read_json(path)
    total = sum(len(pairs) for _, _, pairs in whole)
    with progress(total, "evaluate", "episodes", initial=total - sum(len(chunk.pairs) for chunk in missing)) as bar:
        shown = _Shown(bar, out, seeds[0])
        if config["workers"] == 1:
            run(missing, agents, setting, log, bar.update, shown.rate)
        else:
            _crew(config, protocol, missing, setting, shown)
    lines = records.merge(out, [(name, seed) for name, seed, _ in whole])
    return _summary(config, protocol, setting, trained, lines, time.perf_counter() - begin)


class _Shown:
    """The progress bar, and beside it how the model does so far with one seed."""

    def __init__(self, bar: tqdm, out: Path, seed: int) -> None:
        self._bar, self._tail, self._seed, self._model = bar, records.Tail(out), seed, []
        self.rate()

    def rate(self) -> int:
        """Show success so far, with its interval; returns how many episodes are new."""
        new = self._tail.new()
        mine = [record for record in new if (record.policy, record.seed) == ("model", self._seed)]
        self._model += [record.success_final for record in mine if not record.presolved]
        if self._model:
            low, high = wilson(sum(self._model), len(self._model))
            self._bar.set_postfix_str(f"success {np.mean(self._model):.0%} [{low:.0%}, {high:.0%}]")
        return len(new)

    def count(self) -> None:
        """Move the bar by what workers have finished, too."""
        self._bar.update(self.rate())


def _crew(
    config: Mapping[str, Any],
    protocol: Mapping[str, Any],
    missing: Sequence[Chunk],
    setting: Setting,
    shown: _Shown,
) -> None:
    """Have worker processes run what is missing, every n-th chunk each."""
    agent = {key: protocol[key] for key in ("planner", "cost", "replan_every")}
    run, out = (Path(config[key]).resolve() for key in ("run", "out"))
    ready = partial(load, str(run), str(out), setting.env, agent, config["plugins"])
    count = min(config["workers"], len(missing))
    with registry.build("executor", config["executor"]) as executor:
        shares = [
            Share(ready, protocol["agents"], setting, tuple(missing[k::count]), out, f"w{k:04d}", config["threads"])
            for k in range(count)
        ]
        run_elsewhere(executor, shares, shown.count)


def _summary(
    config: Mapping[str, Any],
    protocol: Mapping[str, Any],
    setting: Setting,
    trained: Trained,
    lines: Sequence[EpisodeRecord],
    seconds: float,
) -> dict[str, Any]:
    """Everything the lines say, the time of single decisions, and where all of it is from."""
    facts, seed = trained.facts, protocol["seeds"][0]
    batched = {line.pair: line for line in lines if line.policy == "model" and line.seed == seed}
    timed: dict[str, Any] = {}
    if batched:
        count, budget = config["latency_pairs"], setting.budget
        timed = time_decisions(trained, setting.pairs, batched, count=count, seed=seed, budget=budget)
    summary = {
        **summarise(lines),
        **measures(setting.env, lines),
        **timed,
        "seed": facts.get("seed"),
        "planner_seeds": protocol["seeds"],
        "threads": config["threads"],
        "device": "cpu",
        "rendering": config["rendering"],
        "data_fingerprint": facts.get("data", {}).get("fingerprint"),
        "train_steps": facts.get("steps"),
        "probe_r2": facts.get("probe_r2"),
        "run": os.path.relpath(config["run"], trained.folder),
        "protocol": protocol,
        **provenance(),
    }
    write_json(trained.folder / "summary.json", summary)
    say(f"evaluate  {headline(summary)} ({seconds:.1f} s)")
    return summary
