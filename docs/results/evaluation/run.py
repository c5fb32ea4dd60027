"""The results table: collect, train and evaluate on five tasks, cell by cell, and the page made of the lines.

    python docs/results/evaluation/run.py FOLDER             # what is missing
    python docs/results/evaluation/run.py FOLDER two_room    # one task
    python docs/results/evaluation/page.py                   # README.md from the lines alone

Each cell is one `lewm` command with one thread, in a process of its own, two at a time; FOLDER keeps data and
models.
cells.jsonl holds a line per cell (command, seconds, summary), episodes/ one line per episode, without the way
between its start and its end.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from experiments import records
from experiments.cells import Cell, Rows, complete
from experiments.runs import read_json

HERE = Path(__file__).parent
CELLS, EPISODES = HERE / "cells.jsonl", HERE / "episodes"
AT_ONCE = 2  # cells, with one thread each
SEEDS = (0, 1, 2)  # of training and of the planner
TRACKS: dict[str, list[str]] = {
    "free": ["track=free"],
    "heldout 25": ["track=heldout", "offset=25"],
    "heldout 50": ["track=heldout", "offset=50"],
    "paper": ["track=paper"],
    **{f"door {door}": ["track=free", "env=two_room", f"env.door={door}", "pairs=50"] for door in (18, 26, 34, 42)},
}
CLONING = "{name:cloning,frames:50000}"
ORACLES = ["model", "oracle_latent", "oracle_state"]
SIGREG, FLOORED, PLDM = (f"objective={name}" for name in ("lejepa", "floored", "pldm"))
REACHER = ["model.predictor.history=2", "trainer.steps=6000", "planner.horizon=25"]
SEEING = [  # what moves, where much of a picture does not
    *("model/encoder=keypoints", FLOORED, "objective.auxiliary=[{name:inverse_dynamics,weight:1.0}]"),
]
PUSHING = [
    *("model.image_size=96", "model/encoder=keypoints", "model.latent_dim=64", "model.predictor.history=2"),
    *("planner.horizon=25", "planner.samples=200", "planner.iterations=6", "planner.warm_iterations=4"),
    "planner.elites=20",
]
REFIT = [  # the predictor alone, on its own output, on latents scaled by how seldom they change
    *("whiten=0.8", "objective/prediction=open_loop", "objective.prediction.steps=5"),
    *("objective/regulariser=none", "model.predictor.width=512", "model.predictor.depth=3"),
    *("trainer.steps=8000", "trainer.batch_size=128", "trainer.frames=7", "trainer.learning_rate=1e-3"),
    "planner.horizon=15",
]
MAZE = ["model.predictor.history=2", "trainer.steps=1500", "planner.horizon=25"]


@dataclass(frozen=True)
class Model:
    """One way to train.

    Attributes:
        train: what is typed beside data, folder and seed.
        seeds: of training.
        tracks: what it is scored on.
        start: the command that makes encoder and projector, which then stay; none: all is learnt at once.
        full: whether every agent runs beside it (with seed 0), or the model alone.
    """

    train: Sequence[str]
    seeds: Sequence[int] = SEEDS
    tracks: Sequence[str] = ("free",)
    start: Sequence[str] = ()
    full: bool = False


@dataclass(frozen=True)
class Task:
    """One task: sets of episodes that are merged, settings of every training, and the models.

    Attributes:
        repeated: tracks that are run with every planner seed; the others are with the first.
    """

    collect: Sequence[Sequence[str]]
    common: Sequence[str]
    models: Mapping[str, Model]
    planner_seeds: Sequence[int] = SEEDS
    repeated: Sequence[str] = ("free", "heldout 25", "heldout 50")


TASKS: dict[str, Task] = {
    "two_room": Task(
        [["env=two_room", "preset=standard"]],
        [],
        {
            "ours": Model([SIGREG], tracks=("free", "heldout 25", "heldout 50", "paper"), full=True),
            "ours, floored": Model([FLOORED], tracks=("free", "heldout 25")),
            "PLDM's objective": Model([PLDM]),
            "DINO-WM's objective": Model(["objective/regulariser=none"], (0,), start=["pretrain"]),
        },
    ),
    "two_room, five doors": Task(
        [["env=two_room", "preset=standard", "episodes=400", f"env.door={d}"] for d in (14, 22, 30, 38, 46)],
        ["trainer.steps=1200"],
        {
            name: Model([objective], tracks=("door 18", "door 26", "door 34", "door 42"))
            for name, objective in {"ours": SIGREG, "ours, floored": FLOORED}.items()
        },
        (0,),
    ),
    "wall": Task(
        [["env=wall"]],
        [],
        {
            "ours": Model([SIGREG, "trainer.steps=1200"], (0,)),
            "ours, floored": Model([FLOORED, "trainer.steps=1200"], (0,)),
            "ours, keypoints": Model(
                [*SEEING, "model.encoder.stem=4", "trainer.steps=3000"],
                (0,),
                ("free", "heldout 25", "heldout 50", "paper"),
                full=True,
            ),
        },
        (0,),
    ),
    "reacher": Task(
        [["env=reacher", "preset=standard"]],
        REACHER,
        {
            "ours, floored": Model([FLOORED], tracks=("heldout 25", "heldout 50", "paper", "free"), full=True),
            "ours": Model([SIGREG], (0,), ("heldout 25", "heldout 50", "free")),
        },
        repeated=("heldout 25",),
    ),
    "push_t": Task(
        [["env=push_t", "preset=standard", "episodes=10000", "workers=2"]],
        PUSHING,
        {
            "ours, keypoints": Model(
                REFIT,
                (0,),
                ("heldout 25", "heldout 50", "paper"),
                start=["train", *PUSHING, *SEEING, "trainer.steps=4000"],
                full=True,
            ),
        },
        (0,),
    ),
    "pointmaze": Task(
        [["env=pointmaze", "episodes=1000", "steps=100"]],
        MAZE,
        {
            "ours, floored": Model([FLOORED], (0,), ("heldout 25", "heldout 50", "paper"), full=True),
        },
        (0,),
    ),
}


def main(folder: Path, tasks: Sequence[str]) -> None:
    """Every cell that is not there yet: data first, then models, then evaluations."""
    for stage in (_data, _encoders, _models, _evaluations):
        found = [stage(name, TASKS[name], (folder / slug(name)).resolve()) for name in tasks]
        complete(CELLS, [cell for cells in found for cell in cells], AT_ONCE)


def _data(name: str, task: Task, folder: Path) -> Iterator[Cell]:
    if len(task.collect) == 1:
        yield _cell(f"{name}, data", ["collect", *task.collect[0]], folder / "data")
        return
    parts = [folder / f"data-{k}" for k in range(len(task.collect))]

    def collect_and_merge() -> Rows:
        begin = time.perf_counter()
        for part, settings in zip(parts, task.collect, strict=True):
            _lewm(["collect", *settings, f"out={part}"])
        _lewm(["data", "merge", *map(str, parts), str(folder / "data")])
        return [{"seconds": round(time.perf_counter() - begin, 1)}]

    commands = [_spoken(["collect", *settings]) for settings in task.collect]
    yield Cell(f"{name}, data", {"commands": [*commands, "lewm data merge"]}, collect_and_merge)


def _encoders(name: str, task: Task, folder: Path) -> Iterator[Cell]:
    for label, model in task.models.items():
        for seed in model.seeds if model.start else ():
            words = [*model.start, f"data={folder}/data", f"seed={seed}", "threads=1"]
            which = "first stage" if model.start[0] == "train" else model.start[0]
            yield _cell(f"{name}, {label}, {which}, seed {seed}", words, _start(folder, label, seed))


def _models(name: str, task: Task, folder: Path) -> Iterator[Cell]:
    for label, model in task.models.items():
        for seed in model.seeds:
            words = ["train", f"data={folder}/data", f"seed={seed}", *task.common, *model.train, "threads=1"]
            if model.start:
                words += [f"init={_start(folder, label, seed)}", "frozen=[encoder,projector]"]
                words += ["init_only=[encoder,projector]"] if model.start[0] == "train" else []
            yield _cell(f"{name}, {label}, train, seed {seed}", words, _run(folder, label, seed), _trained)


def _evaluations(name: str, task: Task, folder: Path) -> Iterator[Cell]:
    for label, model in task.models.items():
        for seed in model.seeds:
            first = seed == model.seeds[0] and model.full
            agents = ["model", *(["random", "greedy", CLONING, "retrieval"] if first else [])]
            tracks = model.tracks if seed == model.seeds[0] else [t for t in model.tracks if t != "paper"]
            for track in tracks:  # the searches of the paper's take twenty times as long
                cell = f"{name}, {label}, {track}, seed {seed}"
                seeds = task.planner_seeds if track in task.repeated else (0,)
                yield _scored(cell, _run(folder, label, seed), track, agents, seeds)
            if first:
                cell = f"{name}, {label}, {model.tracks[0]}, oracles"
                yield _scored(cell, _run(folder, label, seed), model.tracks[0], ORACLES, (0,), "pairs=30")


def _scored(name: str, run: Path, track: str, agents: Sequence[str], seeds: Sequence[int], *more: str) -> Cell:
    words = ["evaluate", f"run={run}", *TRACKS[track], f"agents=[{','.join(agents)}]", *more]
    words += [f"seeds=[{','.join(map(str, seeds))}]", "threads=1"]
    out = run / slug(name.partition(", seed")[0])
    return _cell(name, words, out, partial(_evaluated, EPISODES / f"{slug(name)}.jsonl.gz"))


def _cell(name: str, words: list[str], out: Path, facts: Any = lambda out: {}) -> Cell:
    def measure() -> Rows:
        begin = time.perf_counter()
        computing = _lewm([*words, f"out={out}"])
        clock = {"seconds": round(time.perf_counter() - begin, 1), "cpu_seconds": round(computing, 1)}
        return [{**clock, **facts(out)}]

    return Cell(name, {"command": _spoken(words)}, measure)


def _trained(out: Path) -> dict[str, Any]:
    meta = read_json(out / "checkpoint" / "meta.json")["provenance"]
    return {key: meta.get(key) for key in ("steps", "probe_r2", "commit", "versions", "machine")}


def _evaluated(log: Path, out: Path) -> dict[str, Any]:
    """The summary; the lines go beside, with the ends of each way alone."""
    log.parent.mkdir(exist_ok=True)
    lines = []
    for record in records.read(out / "episodes.jsonl"):
        line = {key: value for key, value in vars(record).items() if key not in ("states", "start", "goal")}
        lines.append(json.dumps(line | {"end": [round(x, 4) for x in record.states[-1]]}) + "\n")
    log.write_bytes(gzip.compress("".join(lines).encode(), mtime=0))
    summary = read_json(out / "summary.json")
    return {"summary": {key: value for key, value in summary.items() if key not in ("run", "command")}}


def _lewm(words: Sequence[str]) -> float:
    """Run a command; returns its seconds of computing, which say more than the clock where others compute, too."""
    with tempfile.TemporaryFile("w+") as said:
        command = [sys.executable, "-m", "experiments.cli", *words]
        child = subprocess.Popen(command, stdout=said, stderr=said, env={**os.environ, "OMP_NUM_THREADS": "1"})
        _, status, used = os.wait4(child.pid, 0)
        if status:
            said.seek(0)
            raise RuntimeError(f"lewm {' '.join(words)} failed:\n{said.read()[-2000:]}")
    return used.ru_utime + used.ru_stime


def _spoken(words: Sequence[str]) -> str:
    """A command as it is typed: folders by their last part."""
    return "lewm " + " ".join(f"{w.partition('=')[0]}={Path(w).name}" if "=/" in w else w for w in words)


def slug(name: str) -> str:
    """A name as it is in paths."""
    return "-".join("".join(c if c.isalnum() or c == "_" else " " for c in name).split())


def _start(folder: Path, label: str, seed: int) -> Path:
    return folder / f"{slug(label)}-start" / f"seed-{seed}"


def _run(folder: Path, label: str, seed: int) -> Path:
    return folder / slug(label) / f"seed-{seed}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or list(TASKS))
