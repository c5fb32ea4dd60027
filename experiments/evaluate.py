"""`lewm evaluate`: plan from pixels on frozen pairs, beside the random and greedy floors."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from envs import GoalTask, UniformHold
from envs.policies import Greedy, Policy
from experiments.build import build_task
from experiments.fit import check_drawn_alike, check_fits
from experiments.observe import observe
from experiments.pairs import Pairs, choose_pairs
from experiments.records import EpisodeRecord, append, read, repair, summarise
from experiments.runs import (
    at_least,
    claim_folder,
    exclusive,
    progress,
    provenance,
    read_json,
    say,
    write_json,
)
from lewm import checkpoint, registry
from lewm.models import WorldModel
from lewm.types import InputError
from planners import MPC

Act = Callable[[int], np.ndarray]
Begin = Callable[[GoalTask, Sequence[int]], Act]
Controller = Callable[[int, Sequence[int]], MPC]

FLOORS: dict[str, Policy] = {"random": UniformHold(hold=5), "greedy": Greedy()}


def evaluate(config: Mapping[str, Any]) -> dict[str, Any]:
    """Run what is missing of an evaluation and write its summary; see `configs/evaluate.yaml`."""
    at_least(config, pairs=1, offset=1, rows=1, latency_pairs=1, pairs_seed=0, seed=0, threads=1)
    torch.set_num_threads(config["threads"])
    run, out = Path(config["run"]), Path(config["out"])
    folder = checkpoint.find(run)
    if folder == out:
        raise InputError(f"{out} is a checkpoint; say where the evaluation goes, out=...")
    model = checkpoint.load(run, plugins=config["plugins"])
    facts = checkpoint.provenance(run)
    env = config.get("env") or facts.get("data", {}).get("source", {}).get("env")
    if not isinstance(env, Mapping):  # a converted set may say something else
        raise InputError(f"{folder} does not say which environment it was trained on; choose env=...")
    with closing(build_task(env, 1)) as task:
        check_fits(model, task)
        made = {"version": task.version, "rendering": json.loads(json.dumps(dict(task.rendering)))}
        check_drawn_alike(made, env, facts, config["rendering"])
        pairs, track = choose_pairs(task, env, config, facts.get("data", {}))
        if config["budget"] is not None:
            at_least(config, budget=1)
        budget = config["budget"] or (100 if track["track"] == "free" else 2 * track["offset"])
        config = {**config, "budget": budget}
        floors = _floors(config, task, pairs)
    agent = _agent(model, config)
    controller = _controller(model, agent)
    policies = {"model": _planning(controller), **{name: _scripted(FLOORS[name], budget) for name in floors}}
    protocol = {
        **track,
        "env": env,
        "task": made,
        "pairs": len(pairs),
        "pairs_fingerprint": pairs.fingerprint,
        "pairs_presolved_removed": pairs.presolved,
        "pairs_impossible_removed": pairs.impossible,
        "budget": budget,
        "floors": floors,
        "checkpoint": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:16],
        **agent,
        "seed": config["seed"],
    }
    claim_folder(out, "evaluate", protocol, ["episodes.jsonl", "summary.json"])
    with exclusive(out):
        return _run(config, protocol, pairs, policies, controller, facts)


def _run(
    config: Mapping[str, Any],
    protocol: Mapping[str, Any],
    pairs: Pairs,
    policies: Mapping[str, Begin],
    controller: Controller,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Run the missing episodes and write the summary of all."""
    out, begin = Path(config["out"]), time.perf_counter()
    log = out / "episodes.jsonl"
    repair(log)
    done = {(record.policy, record.pair) for record in read(log)}
    total = len(policies) * len(pairs)
    if len(done) == total and (out / "summary.json").exists():
        say(f"evaluate  already done: {log}")
        return read_json(out / "summary.json")
    with progress(total, "evaluate", "episodes", initial=len(done)) as bar:
        for name, policy in policies.items():
            missing = [pair for pair in range(len(pairs)) if (name, pair) not in done]
            for first in range(0, len(missing), config["rows"]):
                rows = missing[first : first + config["rows"]]
                append(log, run_pairs(protocol["env"], pairs, rows, name, policy, config, bar))
    records = read(log)
    summary = {
        **summarise(records),
        **_measures(protocol["env"], records),
        **_latency(protocol["env"], pairs, records, controller, config),
        "seed": facts.get("seed"),
        "planner_seed": config["seed"],
        "threads": config["threads"],
        "device": "cpu",
        "data_fingerprint": facts.get("data", {}).get("fingerprint"),
        "train_steps": facts.get("steps"),
        "probe_r2": facts.get("probe_r2"),
        "run": os.path.relpath(config["run"], out),
        "protocol": protocol,
        **provenance(),
    }
    write_json(out / "summary.json", summary)
    say(f"evaluate  {headline(summary)} ({time.perf_counter() - begin:.1f} s)")
    return summary


def _measures(env: Mapping[str, Any], records: Sequence[EpisodeRecord]) -> dict[str, Any]:
    """Success at the end by the task's other rules: their names, `<rule>_final`, `<floor>_<rule>_final`."""
    names, found = [], {}
    with closing(build_task(env, 1)) as task:
        for policy in dict.fromkeys(record.policy for record in records):
            mine = [record for record in records if record.policy == policy]
            far = task.measures(np.array([r.states[-1] for r in mine]), np.array([r.goal for r in mine]))
            names, prefix = list(far), "" if policy == "model" else f"{policy}_"
            found |= {f"{prefix}{name}_final": round(float((far[name] <= 1).mean()), 4) for name in names}
    return {"measures": names, **found}


def headline(summary: Mapping[str, Any]) -> str:
    """The result in one line."""
    low, high = summary["success_final_interval"]
    parts = [f"success {summary['success_final']:.1%} [{low:.1%}, {high:.1%}] of {summary['n']} at the end"]
    if summary["detour_final"] is not None:
        parts.append(f"detour {summary['detour_final']:.1%}")
    parts += [f"{name} {summary[f'{name}_final']:.1%}" for name in summary["measures"]]
    parts += [f"{floor} {summary[f'{floor}_final']:.1%}" for floor in FLOORS if f"{floor}_final" in summary]
    parts.append(f"plan {summary['plan_ms_p50']:.1f} ms")
    return ", ".join(parts)


def run_pairs(
    env: Mapping[str, Any],
    pairs: Pairs,
    rows: Sequence[int],
    name: str,
    begin: Begin,
    config: Mapping[str, Any],
    bar: tqdm | None = None,
) -> list[EpisodeRecord]:
    """Run some pairs for the whole budget under one policy. A pair's outcome depends on its own seed alone."""
    with closing(build_task(env, len(rows))) as task:
        task.reset(pairs.starts[rows], pairs.goals[rows])
        seeds = [int(np.random.SeedSequence([config["seed"], pair]).generate_state(1)[0]) for pair in rows]
        act = begin(task, seeds)
        states, successes = [task.get_state()], []
        for t in range(config["budget"]):
            task.step(act(t))
            states.append(task.get_state())
            successes.append(task.success())
            if bar is not None:
                bar.update(round(len(rows) * (t + 1) / config["budget"]) - round(len(rows) * t / config["budget"]))
    path, reached = np.stack(states, axis=1), np.stack(successes, axis=1)
    return [
        EpisodeRecord(
            policy=name,
            pair=pair,
            detour=bool(pairs.detour[pair]),
            start=pairs.starts[pair].tolist(),
            goal=pairs.goals[pair].tolist(),
            success_final=bool(reached[k, -1]),
            success_ever=bool(reached[k].any()),
            first_success=int(reached[k].argmax()) + 1 if reached[k].any() else None,
            states=path[k].tolist(),
            seed=seeds[k],
        )
        for k, pair in enumerate(rows)
    ]


def _agent(model: WorldModel, config: Mapping[str, Any]) -> dict[str, Any]:
    """How the agent plans, in plain settings: from the config, else as the checkpoint recommends."""
    usual = {"planner": {"name": "cem"}, "cost": {"name": "goal_distance"}, "replan_every": model.action_block}
    return {key: config.get(key) or model.recommendation.get(key) or usual[key] for key in usual}


def _controller(model: WorldModel, agent: Mapping[str, Any]) -> Controller:
    planner, cost = registry.build("planner", agent["planner"]), registry.build("cost", agent["cost"])

    def make(rows: int, seeds: Sequence[int]) -> MPC:
        return MPC(model, rows=rows, planner=planner, cost=cost, replan_every=agent["replan_every"], seeds=seeds)

    return make


def _planning(controller: Controller) -> Begin:
    def begin(task: GoalTask, seeds: Sequence[int]) -> Act:
        agent = controller(task.rows, seeds)
        columns = agent.model.columns
        agent.reset(observe(task, task.get_goal(), columns))
        return lambda t: agent.act(observe(task, task.get_state(), columns))

    return begin


def _scripted(policy: Policy, steps: int) -> Begin:
    def begin(task: GoalTask, seeds: Sequence[int]) -> Act:
        act = policy.begin(task, [np.random.default_rng(seed) for seed in seeds], steps)
        return lambda t: act(t, task.get_state())

    return begin


def _floors(config: Mapping[str, Any], task: GoalTask, pairs: Pairs) -> list[str]:
    """The floors asked for, by default those that can act in this task; each is tried on one pair.

    Raises:
        InputError: a floor that was asked for is unknown, or cannot act.
    """
    asked, able = config["floors"], []
    if asked is not None and not (isinstance(asked, list) and set(asked) <= set(FLOORS)):
        raise InputError(f"floors must be null, or a list of {', '.join(FLOORS)}; got {asked}")
    for name in FLOORS if asked is None else asked:
        task.reset(pairs.starts[:1], pairs.goals[:1])
        try:
            task.step(_scripted(FLOORS[name], config["budget"])(task, [config["seed"]])(0))
        except InputError:
            if asked is not None:
                raise
        else:
            able.append(name)
    return able


def _latency(
    env: Mapping[str, Any],
    pairs: Pairs,
    records: Sequence[EpisodeRecord],
    controller: Controller,
    config: Mapping[str, Any],
) -> dict[str, Any]:
    """Time single decisions by running some pairs alone, and hold their outcomes against the batched ones."""
    plan_ms, evaluations = [], []

    def timed(task: GoalTask, seeds: Sequence[int]) -> Act:
        agent = controller(1, seeds)
        columns = agent.model.columns
        agent.reset(observe(task, task.get_goal(), columns))

        def act(t: int) -> np.ndarray:
            seen, before = observe(task, task.get_state(), columns), agent.last_plan
            begin = time.perf_counter()
            action = agent.act(seen)
            if agent.last_plan is not before:
                plan_ms.append((time.perf_counter() - begin) * 1e3)
                evaluations.append(agent.last_plan.evaluations)
            return action

        return act

    batched = {record.pair: record for record in records if record.policy == "model"}
    for pair in range(min(config["latency_pairs"], len(pairs))):
        (alone,) = run_pairs(env, pairs, [pair], "model", timed, config)
        if alone != batched[pair]:
            raise RuntimeError(f"pair {pair} ended differently alone than in its batch: row independence is broken")
    return {
        "plan_ms_p50": round(float(np.percentile(plan_ms, 50)), 2),
        "plan_ms_p95": round(float(np.percentile(plan_ms, 95)), 2),
        "decisions_timed": len(plan_ms),
        "model_evaluations_per_decision": float(np.mean(evaluations)),
    }
