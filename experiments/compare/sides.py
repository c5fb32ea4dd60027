"""What is compared: an agent in the evaluations of one training run or several, and whether two can be compared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from experiments.build import build_task
from experiments.evaluate.summary import read_summary
from experiments.origins import judgement, world
from experiments.records import EpisodeRecord, read
from lewm import registry
from lewm.types import InputError, nearest

ALIKE = ("planner", "cost", "replan_every")  # of the evaluations of one side
NEEDED = ("protocol.env.name", "protocol.track", "protocol.budget", "protocol.pairs_fingerprint")


@dataclass(frozen=True)
class Evaluation:
    """One folder that `lewm evaluate` filled, and one agent in it.

    Attributes:
        lines: its episodes, without those of pairs that were solved at the start.
        measures: other success rules of the task.
    """

    folder: Path
    agent: str
    protocol: Mapping[str, Any]
    measures: tuple[str, ...]
    lines: tuple[EpisodeRecord, ...]

    @property
    def checkpoint(self) -> str:
        """Which trained model it is about."""
        return self.protocol.get("checkpoint", str(self.folder))

    @cached_property
    def pairs(self) -> dict[int, EpisodeRecord]:
        """An episode of each pair."""
        return {line.pair: line for line in self.lines}

    @cached_property
    def conditions(self) -> dict[str, Any]:
        """What two evaluations must have in common to be compared."""
        env, task = self.protocol["env"], self.protocol.get("task", {})
        judged = judgement(env) if env["name"] in registry.names("env") else {}
        settings = {f"env.{key}": value for key, value in {**world(env), **judged}.items()}
        shared = {key: self.protocol.get(key) for key in ("track", "offset", "budget")}
        return {**settings, "task.version": task.get("version"), **shared}

    def succeeded(self, rule: str) -> np.ndarray:
        """Success of each line by a rule: `final`, `ever`, or one of the task's, at the end."""
        if rule in ("final", "ever"):
            return np.array([getattr(line, f"success_{rule}") for line in self.lines], float)
        if rule not in self.measures:
            known = ["final", "ever", *self.measures]
            raise InputError(f"unknown rule '{rule}' in {self.folder}: {nearest(rule, known)}")
        with closing(build_task(self.protocol["env"], 1)) as task:
            ends, goals = (np.array(x) for x in zip(*((r.states[-1], r.goal) for r in self.lines), strict=True))
            return (task.measures(ends, goals)[rule] <= 1).astype(float)


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        agent: whose episodes.
        folders: of the evaluations.
        checkpoints: one per training run; evaluations of the same checkpoint are repeats of one run.
        repeats: how often a run met a pair, with several planner seeds mostly; averaged.
    """

    agent: str
    folders: tuple[str, ...]
    checkpoints: tuple[str, ...]
    repeats: int


def load(text: str) -> tuple[Side, list[Evaluation]]:
    """A side as it is typed: folders joined by commas, or a glob; then perhaps `:agent`.

    Raises:
        InputError: there is no such folder or agent, or the evaluations are not of one way to plan.
    """
    folders, agent = _parse(text)
    found = [_open(folder, agent) for folder in folders]
    for other in found[1:]:
        for key in ALIKE:
            mine, theirs = found[0].protocol.get(key), other.protocol.get(key)
            if mine != theirs:
                raise InputError(
                    f"{found[0].folder} and {other.folder} are given as one side, but differ in {key}: {mine}, "
                    f"{theirs}; compare them with each other, or leave one out"
                )
    checkpoints = tuple(dict.fromkeys(evaluation.checkpoint for evaluation in found))
    met: dict[tuple[str, int], int] = defaultdict(int)
    for evaluation in found:
        for line in evaluation.lines:
            met[evaluation.checkpoint, line.pair] += 1
    return Side(agent, tuple(map(str, folders)), checkpoints, max(met.values())), found


def check_alike(one: Evaluation, other: Evaluation) -> None:
    """Refuse to compare evaluations under other conditions, or on other pairs."""
    here, there = one.conditions, other.conditions
    for key in here | there:
        if here.get(key) != there.get(key):
            raise InputError(
                f"{one.folder} and {other.folder} cannot be compared: {key} is {here.get(key)} and "
                f"{there.get(key)}; evaluate both under the same conditions"
            )
    for pair in one.pairs.keys() & other.pairs.keys():
        mine, theirs = one.pairs[pair], other.pairs[pair]
        if (mine.start, mine.goal) != (theirs.start, theirs.goal):
            prints = (e.protocol["pairs_fingerprint"] for e in (one, other))
            raise InputError(
                f"{one.folder} and {other.folder} were not evaluated on the same pairs (fingerprints "
                f"{' and '.join(prints)}; pair {pair} differs): evaluate both with the same manifest, or the same "
                "track, offset, data and pairs_seed"
            )


def common_pairs(*sides: Sequence[Evaluation]) -> list[int]:
    """The pairs that each side has run with each of its checkpoints, which the other may have, too."""
    run: dict[tuple[int, str], set[int]] = defaultdict(set)
    for place, side in enumerate(sides):
        for evaluation in side:
            run[place, evaluation.checkpoint] |= evaluation.pairs.keys()
    common = sorted(set.intersection(*run.values()))
    if not common:
        raise InputError("there is no pair that all these evaluations have run; evaluate both on the same pairs")
    return common


def outcomes(
    evaluations: Sequence[Evaluation], checkpoints: Sequence[str], pairs: Sequence[int], rule: str
) -> np.ndarray:
    """Success (R, P) of each checkpoint on each pair, the mean over its repeats."""
    place = {pair: column for column, pair in enumerate(pairs)}
    total, count = np.zeros((2, len(checkpoints), len(pairs)))
    for evaluation in evaluations:
        row = checkpoints.index(evaluation.checkpoint)
        for line, success in zip(evaluation.lines, evaluation.succeeded(rule), strict=True):
            if line.pair in place:
                total[row, place[line.pair]] += success
                count[row, place[line.pair]] += 1
    return total / count


def _parse(text: str) -> tuple[list[Path], str]:
    """(folders, agent) of one side."""
    folders: dict[Path, None] = {}
    agents: dict[str, None] = {}
    for part in [text] if _exists(_apart(text)[0]) else text.split(","):  # a name may hold a comma
        place, agent = _apart(part)
        if agent is not None:
            agents[agent] = None
        path = Path(place)
        matches = [path] if path.exists() else sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
        found = [match for match in matches if match.is_dir()]
        if not (place and found):
            raise InputError(f"there is no folder '{place}'; A and B are what `lewm evaluate` filled (out=...)")
        folders |= dict.fromkeys(found)
    if len(agents) > 1:
        raise InputError(f"'{text}' is one side and names several agents, {', '.join(agents)}; choose one")
    return list(folders), next(iter(agents), "model")


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except OSError:  # several names joined may be longer than a name can be
        return False


def _apart(part: str) -> tuple[str, str | None]:
    """(folder, agent) of `folder:agent`; the agent may be left out."""
    head, colon, tail = part.rpartition(":")
    return (head, tail) if colon and "/" not in tail and not _exists(part) else (part, None)


def _open(folder: Path, agent: str) -> Evaluation:
    summary, lines = read_summary(folder, NEEDED), read(folder / "episodes.jsonl")
    mine = tuple(line for line in lines if line.policy == agent and not line.presolved)
    if not mine:
        names = list(dict.fromkeys(line.policy for line in lines))
        raise InputError(f"{folder} holds no episodes of an agent '{agent}': {nearest(agent, names)}")
    return Evaluation(folder, agent, summary["protocol"], tuple(summary.get("measures", ())), mine)
