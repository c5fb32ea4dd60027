"""Both sides in turns, each with malloc as it is and told to keep its memory: one row per side, heap and kind."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from experiments.cells import Rows
from experiments.peers import train_worker as peers
from experiments.peers.train_worker import Latents, Steps
from experiments.runs import progress
from experiments.workers import Worker

HEAPS = {  # mallopt(3): large pieces are not mapped one by one, what is freed stays
    "default": {},
    "kept": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)},
}
TINY = 1e-9  # seconds of a turn: one call
TOLERANCE = 1e-4  # relative, of losses and the gradient's norm; other products and another order of sums
Key = tuple[str, str, str]  # side, what it serves, heap
COSTS = ("sigreg", "orthogonal", "sub_jepa", "kummer", "imq")  # of ours; theirs has sigreg


class Crew:
    """Workers by (side, what, heap), and the turns they take: only one of them works at any time."""

    def __init__(self, stack: ExitStack, peer: Path | None) -> None:
        self._stack, self._peer = stack, peer
        self.workers: dict[Key, Worker] = {}

    def add(self, side: str, what: str, heap: str, problem: Steps | Latents) -> Worker | None:
        """Start one; None for the peer's where there is no peer."""
        if side == "peer" and self._peer is None:
            return None
        ours = [sys.executable, "-m", "experiments.benchmark_train.worker"]
        command = ours if side == "lewm" else [str(self._peer), str(Path(peers.__file__))]
        command = [*command, what, json.dumps(asdict(problem))]
        worker = self._stack.enter_context(Worker(f"{what} of {side}", command, HEAPS[heap]))
        self.workers[side, what, heap] = worker
        return worker

    def turns(self, name: str, kinds: Mapping[Key, Sequence[str]], rounds: int, seconds: float) -> Rows:
        """Rows of what each worker can time, warmed up by one turn whose first call is told apart."""
        asked = [(key, kind) for key, worker in self.workers.items() for kind in kinds[key]]
        rows: Rows = []
        with progress((1 + rounds) * len(asked), name, "turns") as bar:
            for key, kind in asked:
                worker, (side, what, heap) = self.workers[key], key
                first = worker.ask("turn", kind=kind, seconds=TINY)["seconds"]
                worker.ask("turn", kind=kind, seconds=seconds / 2)
                about = {"side": side, "what": what, "heap": heap, "kind": kind}
                rows.append(about | {"versions": worker.hello["versions"], "first": round(first, 5), "seconds": []})
                bar.update()
            for turn in range(rounds):
                for k in range(len(asked)):
                    (key, kind), row = asked[(k + turn) % len(asked)], rows[(k + turn) % len(asked)]
                    found = self.workers[key].ask("turn", kind=kind, seconds=seconds)
                    row["frames"] = self.workers[key].hello["frames"]
                    row["seconds"].append(round(found["seconds"] / found["frames"] * row["frames"], 6))
                    bar.update()
        for (key, _), row in zip(asked, rows, strict=True):
            row["peak_mb"] = self.workers[key].ask("peak", kind="memory")["mb"]
        return rows


def steps(problem: dict[str, Any], scratch: Path, peer: Path | None, *, rounds: int, seconds: float) -> Rows:
    """Steps of the same model on the same batch, after their losses were found equal; and the floor."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=scratch)))
        crew, given = Crew(stack, peer), Steps(**problem, folder=str(folder))
        theirs = crew.add("peer", "steps", "default", given)
        if theirs is not None:
            theirs.ask("save", kind="model", path=str(folder / "weights.pt"))
        ours = crew.add("lewm", "steps", "default", given)
        checked = _check(ours, theirs)
        rates = [ours.ask("rates", kind="products") for _ in range(2)]
        crew.add("peer", "steps", "kept", given)
        crew.add("lewm", "steps", "kept", given)
        rows = crew.turns(f"steps {given.size}", dict.fromkeys(crew.workers, ("step",)), rounds, seconds)
        rates.append(ours.ask("rates", kind="products"))
        return [*rows, checked, {"kind": "floor", "flop": ours.hello["flop"], "gflops": rates}]


def _check(ours: Worker, theirs: Worker | None) -> dict[str, Any]:
    """Losses and gradient norms of both, without dropout; a `RuntimeError` where they differ."""
    found = ours.ask("check", kind="model")
    row = {"kind": "check", "lewm": found}
    if theirs is None:
        return row
    row["peer"] = theirs.ask("check", kind="model", seed=found["seed"])
    row["peer"]["regularisation"] /= ours.hello["batch"]  # theirs is EP, ours EP / N
    apart = {key: abs(value / found[key] - 1) for key, value in row["peer"].items()}
    row["apart"] = max(apart.values())
    if not row["apart"] < TOLERANCE:
        raise RuntimeError(f"not the same step: {row['peer']} there, {found} here")
    return row


def sigreg(problem: dict[str, Any], scratch: Path, peer: Path | None, *, rounds: int, seconds: float) -> Rows:
    """Forward and backward of regularisers alone, how equal both SIGRegs are, and how near to all directions."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=scratch)))
        crew = Crew(stack, peer)
        for heap in HEAPS:
            for side in ("peer", "lewm"):
                crew.add(side, "sigreg", heap, Latents(**problem))
        kinds = {key: COSTS if key[0] == "lewm" else COSTS[:1] for key in crew.workers}
        rows = crew.turns("regularisers", kinds, rounds, seconds)
        return [*rows, *(_compare(crew, folder, near) for near in (False, True))]


def _compare(crew: Crew, folder: Path, near: bool) -> dict[str, Any]:
    """Value and gradient of all kinds at the same latents, beside those of 16k directions."""
    found: dict[str, tuple[float, np.ndarray]] = {}
    path = folder / "gradient.npy"

    def ask(side: str, kind: str, seed: int) -> tuple[float, np.ndarray]:
        worker = crew.workers[side, "sigreg", "default"]
        value = worker.ask("save", kind="gradients", path=str(path), which=kind, near=near, seed=seed)["value"]
        return value, np.load(path).astype(np.float64)

    for kind in (*COSTS, "reference"):
        found[kind] = ask("lewm", kind, 1 if kind == "reference" else 2)
    if ("peer", "sigreg", "default") in crew.workers:
        found["theirs"] = ask("peer", "sigreg", 2)
    _, truth = found["reference"]
    cosines = {kind: _cosine(gradient, truth) for kind, (_, gradient) in found.items()}
    row = {"kind": "compared", "near": near, "values": {kind: value for kind, (value, _) in found.items()}}
    if "theirs" in found:
        (ours, own), (theirs, given) = found["sigreg"], found["theirs"]
        row |= {"value_apart": abs(ours / theirs - 1)}
        row |= {"gradient_apart": float(np.abs(own - given).max() / np.abs(given).max())}
    return row | {"cosines": cosines}


def _cosine(x: np.ndarray, y: np.ndarray) -> float:
    return float((x * y).sum() / np.linalg.norm(x) / np.linalg.norm(y))


def frames(
    problem: dict[str, Any], data: Path, batch: int, peer: Path | None, *, rounds: int, seconds: float
) -> Rows:
    """Steps of the CPU default, batches read from a data set, in turns with the paper's model on a fixed batch."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir=data.parent))
        crew = Crew(stack, peer)
        for heap in HEAPS:
            crew.add("lewm", "small", heap, Steps(**{**problem, "batch": batch}, folder=str(data)))
            crew.add("lewm", "steps", heap, Steps(**problem, folder=folder))
            crew.add("peer", "steps", heap, Steps(**problem, folder=folder))
        return crew.turns("frames", dict.fromkeys(crew.workers, ("step",)), rounds, seconds)
