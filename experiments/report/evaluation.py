"""What a page is made of: all that `lewm evaluate`, and `train`, `diagnose` and `audit` if they were run, left."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments import records
from experiments.build import build_task
from experiments.evaluate.agents import Trained
from experiments.evaluate.summary import read_summary
from experiments.evaluate.verb import load
from experiments.origins import judgement, world
from experiments.pairs import Pairs
from experiments.records import EpisodeRecord
from experiments.runs import read_json
from lewm.types import InputError

AGENT = ("planner", "cost", "replan_every")  # what of a protocol says how the model plans
PROTOCOL = ("agents", "env.name", "task.version", "track", "budget", "pairs_fingerprint", "seeds", *AGENT)
NEEDED = ("run", "n", "threads", *(f"protocol.{key}" for key in PROTOCOL))


@dataclass(frozen=True)
class Evaluation:
    """One evaluated run.

    Attributes:
        label: what the page calls it; folder: of the evaluation.
        summary: as in `summary.json`; lines: of every agent.
        trained: the model, and how it plans.
        metrics: logged lines of training; diagnosis, audit: what their verbs wrote; each may be empty.
    """

    label: str
    folder: Path
    summary: Mapping[str, Any]
    lines: Sequence[EpisodeRecord]
    trained: Trained
    metrics: Sequence[Mapping[str, float]]
    diagnosis: Mapping[str, Any]
    audit: Mapping[str, Any]

    @property
    def protocol(self) -> Mapping[str, Any]:
        """How it was evaluated."""
        return self.summary["protocol"]

    @property
    def rule(self) -> str:
        """Which success is the headline: `final`, but `ever` on the `paper` track."""
        return "ever" if self.protocol["track"] == "paper" else "final"

    @property
    def task(self) -> tuple[Any, ...]:
        """What results must share to stand in one table."""
        asked, env = ("track", "offset", "budget", "pairs_fingerprint"), self.protocol["env"]
        where = json.dumps({**world(env), **judgement(env), "version": self.protocol["task"]["version"]})
        return (env["name"], where, *(self.protocol.get(key) for key in asked))

    @property
    def planned(self) -> list[EpisodeRecord]:
        """Episodes of the model with the first planner seed, pairs solved at the start left out."""
        first = self.protocol["seeds"][0]
        return [r for r in self.lines if (r.policy, r.seed) == ("model", first) and not r.presolved]

    def agents(self) -> dict[str, str]:
        """Agents in the order of the log, and what the keys of their results begin with."""
        names = dict.fromkeys(line.policy for line in self.lines)
        return {name: "success" if name == "model" else name for name in names}

    def pairs(self) -> Pairs:
        """The pairs that the model ran, in their order."""
        lines = [r for r in self.lines if (r.policy, r.seed) == ("model", self.protocol["seeds"][0])]
        lines.sort(key=lambda line: line.pair)
        return Pairs(
            starts=np.array([line.start for line in lines]),
            goals=np.array([line.goal for line in lines]),
            detour=np.array([line.detour for line in lines]),
            solved=np.array([line.presolved for line in lines]),
            presolved=0,
        )

    def missed(self, lines: Sequence[EpisodeRecord]) -> np.ndarray:
        """How far from its goal each episode ended, in tolerances."""
        if not lines:
            return np.zeros(0)
        with closing(build_task(self.trained.env, 1)) as task:
            return task.distance(np.array([r.states[-1] for r in lines]), np.array([r.goal for r in lines]))


def read(folders: Sequence[Path], plugins: Sequence[str] = ()) -> list[Evaluation]:
    """Everything there is in folders that `lewm evaluate` filled.

    Args:
        plugins: packages the models or environments need; only you can name them.
    """
    return [_read(folder, label, plugins) for folder, label in zip(folders, labels(folders), strict=True)]


def labels(folders: Sequence[Path]) -> list[str]:
    """Short names of folders, different ones for different folders."""
    resolved = [folder.resolve() for folder in folders]
    if len(set(resolved)) < len(resolved):
        raise InputError(f"a folder is named twice: {' '.join(map(str, folders))}")
    if len(resolved) == 1:
        return [resolved[0].name]
    common = Path(os.path.commonpath(resolved))
    return [str(path.relative_to(common)) if path != common else path.name for path in resolved]


def _read(folder: Path, label: str, plugins: Sequence[str]) -> Evaluation:
    summary = read_summary(folder, NEEDED)
    protocol = summary["protocol"]
    run = Path(os.path.normpath(folder / summary["run"]))
    history = run / "metrics.jsonl"
    return Evaluation(
        label=label,
        folder=folder,
        summary=summary,
        lines=records.read(folder / "episodes.jsonl"),
        trained=load(
            run=str(run),
            out=str(folder),
            env=protocol["env"],
            agent={key: protocol[key] for key in AGENT},
            plugins=plugins,
        ),
        metrics=[json.loads(line) for line in history.read_text().splitlines()] if history.exists() else [],
        diagnosis=_optional(run / "diagnosis.json"),
        audit=_optional(folder / "audit.json"),
    )


def _optional(path: Path) -> Mapping[str, Any]:
    return read_json(path) if path.exists() else {}
