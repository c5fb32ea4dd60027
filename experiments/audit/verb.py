"""The verb: episodes of an evaluation are replayed, failed ones planned again, and all of it becomes lines."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from envs import GoalTask
from experiments import cells, records
from experiments.audit import page
from experiments.audit.blame import blame, count, exchanges, verdict
from experiments.audit.measures import Truth, judge, summarise
from experiments.audit.watch import Watched
from experiments.audit.world import by_distance, choose_axes, distances, landscape
from experiments.build import build_task
from experiments.evaluate.agents import Agent, Trained
from experiments.evaluate.episodes import run_pairs
from experiments.evaluate.summary import read_summary
from experiments.evaluate.verb import load
from experiments.pairs import Pairs
from experiments.records import EpisodeRecord
from experiments.runs import at_least, exclusive, progress, provenance, say, write_json
from lewm.registry import load_plugins
from lewm.types import InputError

PROTOCOL = ("env", "task", "pairs_fingerprint", "budget", "checkpoint", "planner", "cost", "replan_every")
NEEDED = ("run", "threads", *(f"protocol.{key}" for key in (*PROTOCOL, "env.name", "agents", "seeds", "track")))


@dataclass(frozen=True)
class Case:
    """What is audited: an evaluated agent, and what it did.

    Attributes:
        trained: the agent.
        task: with one row, to simulate and draw; budget, seed: of the evaluation.
        lines: its episodes with that seed, in order of the pairs; rule: what counts as success, `final` or `ever`.
        said: what fixes every outcome, as JSON values.
    """

    trained: Trained
    task: GoalTask
    budget: int
    seed: int
    lines: Sequence[EpisodeRecord]
    rule: str
    said: Mapping[str, Any]

    def solved(self, line: EpisodeRecord) -> bool:
        """Whether an episode counts as a success."""
        return getattr(line, f"success_{self.rule}")

    def play(self, agent: Agent, pair: int, seed: int) -> EpisodeRecord:
        """One pair under another agent."""
        starts, goals = (np.array([getattr(line, name) for line in self.lines]) for name in ("start", "goal"))
        pairs = Pairs(starts, goals, np.array([line.detour for line in self.lines]), 0)
        (line,) = run_pairs(self.trained.env, pairs, [pair], "audit", agent, seed=seed, budget=self.budget)
        return line


def audit(config: Mapping[str, Any]) -> dict[str, Any]:
    """Audit what is missing, and write the summary and the picture; see `configs/audit.yaml`."""
    at_least(config, pairs=1, decisions=1, failures=0, landscapes=0, grid=3)
    folder, out = Path(config["run"]), Path(config["out"])
    load_plugins(config["plugins"])
    summary = read_summary(folder, NEEDED)
    env = summary["protocol"]["env"]
    torch.set_num_threads(config["threads"] or summary["threads"])
    with closing(build_task(env, 1)) as task, exclusive(out):
        case = _case(folder, summary, out, task, config["plugins"])
        log = out / "audit.jsonl"
        records.repair(log)
        lines = _complete(log, list(_work(case, config)))
        found = _summary(case, lines)
        write_json(out / "audit.json", {**found, "protocol": case.said, **provenance()})
        page.picture(found, lines).savefig(out / "audit.png", dpi=130)
    say(page.table(found))
    say(f"\naudit     {out / 'audit.json'}, audit.png, and the lines they are made of: audit.jsonl")
    return found


def _case(folder: Path, summary: Mapping[str, Any], out: Path, task: GoalTask, plugins: Sequence[str]) -> Case:
    """What an evaluation's folder says was done."""
    protocol = summary["protocol"]
    seed = protocol["seeds"][0]
    episodes = records.read(folder / "episodes.jsonl")
    played = [line for line in episodes if (line.policy, line.seed) == ("model", seed)]
    if not played:
        raise InputError(f"{folder} holds no episode of the model; run lewm evaluate with model among its agents")
    plans = {key: protocol[key] for key in ("planner", "cost", "replan_every")}
    if "compiled" in plans["planner"]:
        plans["planner"] = {**plans["planner"], "compiled": None}  # nobody can listen to a compiled search
    run = os.path.normpath(folder / summary["run"])
    trained = load(run, str(out), protocol["env"], plans, plugins)
    rule = "ever" if protocol["track"] == "paper" else "final"
    said = {key: protocol[key] for key in PROTOCOL} | {"seed": seed}
    return Case(trained, task, protocol["budget"], seed, sorted(played, key=lambda x: x.pair), rule, said)


Work = tuple[dict[str, Any], Callable[[], dict[str, Any]]]


def _work(case: Case, config: Mapping[str, Any]) -> Iterator[Work]:
    """What is to be done: what its line is known by, and what makes the rest of it."""
    fair = [line for line in case.lines if not line.presolved]
    if not fair:
        raise InputError("every pair of this evaluation was solved at the start: there is nothing to audit")
    failed = [line for line in fair if not case.solved(line)]
    solved = [line for line in fair if case.solved(line)]
    half = min(len(failed), max(config["pairs"] // 2, config["pairs"] - len(solved)))
    digest = hashlib.sha256(json.dumps(case.said, sort_keys=True).encode()).hexdigest()[:16]
    for line in failed[:half] + solved[: config["pairs"] - half]:
        key = {"kind": "replay", "of": digest, "pair": line.pair, "asked": config["decisions"]}
        yield key, partial(_replay, case, line, config["decisions"])
    axes = config["axes"]
    if axes is not None and not (
        isinstance(axes, list) and len(set(axes)) == 2 and all(0 <= axis < case.task.state_dim for axis in axes)
    ):
        raise InputError(f"axes are two of 0 to {case.task.state_dim - 1}, those of the state, got {axes}")
    if config["landscapes"] and axes is None:
        axes = choose_axes(case.task, *(np.array([getattr(x, name) for x in fair]) for name in ("start", "goal")))
    for line in (failed + solved)[: config["landscapes"]]:
        key = {"kind": "landscape", "of": digest, "pair": line.pair, "asked": [axes, config["grid"]]}
        yield key, partial(_landscape, case, line, axes, config["grid"])
    swapped = exchanges(case.trained)
    for line in failed[: config["failures"]]:
        key = {"kind": "blame", "of": digest, "pair": line.pair}
        yield key, partial(_blame, case, line, swapped)


def _complete(log: Path, wanted: Sequence[Work]) -> list[dict[str, Any]]:
    """The wanted lines, those that the log lacks made and appended."""
    known = cells.lines(log)
    found = [next((line for line in known if line.items() >= key.items()), None) for key, _ in wanted]
    with progress(len(wanted), "audit", "pairs", initial=len(wanted) - found.count(None)) as bar:
        for place, (key, make) in enumerate(wanted):
            if found[place] is None:
                bar.set_postfix_str(key["kind"])
                found[place] = cells.append(log, {**key, **make()})
                bar.update()
    return found


def _replay(case: Case, line: EpisodeRecord, count: int) -> dict[str, Any]:
    """Decisions on the way to the goal, the first and others evenly after it, and what they chose between."""
    until = line.first_success or case.budget
    steps = np.arange(0, until, case.trained.replan_every)
    chosen = steps[np.unique(np.linspace(0, len(steps) - 1, min(count, len(steps))).astype(int))]
    agent = Watched(case.trained, set(chosen.tolist()))
    again = case.play(agent, line.pair, case.seed)
    truth = Truth(case.task, case.trained)
    return {
        "solved": case.solved(line),
        "reproduced": again.states == line.states,
        "decisions": [asdict(judge(decision, truth)) for decision in agent.decisions],
    }


def _landscape(case: Case, line: EpisodeRecord, axes: Sequence[int], points: int) -> dict[str, Any]:
    seen = np.concatenate([[*other.states, other.goal] for other in case.lines])[:, axes]
    box = np.stack([seen.min(0), seen.max(0)], axis=1)
    return {"solved": case.solved(line), **landscape(case.task, case.trained, line, axes, box, points)}


def _blame(case: Case, line: EpisodeRecord, swapped: Mapping[str, Agent]) -> dict[str, Any]:
    def reaches(name: str) -> bool:
        return case.solved(case.play(swapped[name], line.pair, case.seed + (name == "chance")))

    return blame(reaches)


def _summary(case: Case, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All numbers, from the lines and from the evaluation's own."""
    kinds = {kind: [line for line in lines if line["kind"] == kind] for kind in ("replay", "landscape", "blame")}
    fair = [line for line in case.lines if not line.presolved]
    success = np.array([case.solved(line) for line in fair])
    starts, goals = (np.array([getattr(line, name) for line in fair]) for name in ("start", "goal"))
    away = distances(case.task, case.trained.model, starts, goals)
    counts = count(kinds["blame"])
    failed = int((~success).sum())
    mend, sentence = verdict(counts, failed, len(fair))
    return {
        "n": len(fair),
        "failed": failed,
        "rule": case.rule,
        "seed": case.seed,
        "mend": mend,
        "verdict": sentence,
        "blame": counts,
        "decisions": {
            name: summarise([line for line in kinds["replay"] if line["solved"] is solved])
            for name, solved in (("failed", False), ("solved", True))
        },
        "replays": len(kinds["replay"]),
        "replays_as_recorded": sum(line["reproduced"] for line in kinds["replay"]),
        "landscapes": [
            {key: line[key] for key in ("pair", "solved", "axes", "spearman")} for line in kinds["landscape"]
        ],
        "success_by_distance": {name: by_distance(far, success) for name, far in away.items()},
    }
