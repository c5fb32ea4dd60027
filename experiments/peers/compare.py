"""Our planner and stable-worldmodel's side by side: the same weights, the same problem, in turns on one machine.

`bash experiments/peers/setup.sh FOLDER` makes the peer's venv. LeWM's predictor has its published size, its planner
its published settings (300 candidates, 30 elites, 5 blocks of 5 steps of 2 actions). Weights are random: time and
equality do not depend on them. Images are not encoded: that is 0.3 % of a plan, and the same network.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import planners
from lewm.models import SIZES, WorldModel
from lewm.models.predictors import Observed
from lewm.types import ActionSpec

WORKER = Path(__file__).with_name("stable_worldmodel_worker.py")
SAMPLES, ELITES, BLOCKS, BLOCK, ACTION = 300, 30, 5, 5, 2
TOLERANCE = 1e-5  # of float32, relative to the largest


@dataclass(frozen=True)
class Row:
    """One line of the table: median seconds of `timed`, a whole `solve` or only its calls of the `cost`."""

    rows: int
    history: int
    threads: int
    iterations: int
    timed: str
    peer_seconds: float
    our_seconds: float
    peer: str

    @property
    def ratio(self) -> float:
        """How many times faster we are."""
        return self.peer_seconds / self.our_seconds


@dataclass(frozen=True)
class Problem:
    """Latents in place of images, and z-scored actions; see the worker for the shapes."""

    z: Tensor
    past: Tensor
    goal: Tensor
    candidates: Tensor

    def observed(self, model: WorldModel, rows: int, history: int) -> Observed:
        """What the last `history` frames of some rows are to our predictor."""
        past = self.past[:rows, self.past.shape[1] - (history - 1) :]
        return model.predictor.observe(self.z[:rows, -history:], past)


def random_model(seed: int = 0) -> WorldModel:
    """LeWM's model whose actions matter: AdaLN starts at zero, and would hide errors in the modulation."""
    torch.manual_seed(seed)
    spec = ActionSpec([-10.0] * ACTION, [10.0] * ACTION, [0.0] * ACTION, [1.0] * ACTION)  # z-scored is raw
    model = WorldModel(SIZES["lewm"], spec).eval()
    for name, parameter in model.predictor.named_parameters():
        if "modulation" in name:
            nn.init.normal_(parameter, std=0.05)
    return model.requires_grad_(False)


def random_problem(rows: int, history: int, dim: int, seed: int = 1, candidates: int = 32) -> Problem:
    """Latents are about unit Gaussian after SIGReg, z-scored actions too."""
    generator = torch.Generator().manual_seed(seed)
    block = BLOCK * ACTION
    sizes = ((rows, history, dim), (rows, history - 1, block), (rows, dim), (rows, candidates, BLOCKS, block))
    return Problem(*(torch.randn(size, generator=generator) for size in sizes))


def cost_of(model: WorldModel, problem: Problem, rows: int, history: int) -> planners.LatentCost:
    """LeWM's cost: squared distance of the last latent to the goal. All our use of costs is here."""
    term = planners.GoalDistance(running=0.0, terminal=1.0)
    return planners.LatentCost(model, problem.observed(model, rows, history), problem.goal[:rows, None], term)


def solve(model: WorldModel, problem: Problem, rows: int, history: int, iterations: int) -> None:
    """One plan with LeWM's settings. All our use of the search is here."""
    planner = planners.CEM(
        samples=SAMPLES, elites=ELITES, iterations=iterations, horizon=BLOCKS * BLOCK, correlation=0.0
    )
    state = planner.init(rows, model.action_spec, seeds=range(rows))
    planner.plan(cost_of(model, problem, rows, history), state)


def call_cost(model: WorldModel, problem: Problem, rows: int, history: int, iterations: int) -> None:
    """As many calls of the cost as a solve makes; the observed frames are encoded again, as in every solve."""
    candidates = torch.randn(rows, SAMPLES, BLOCKS * BLOCK, ACTION, generator=torch.Generator().manual_seed(0))
    cost = cost_of(model, problem, rows, history)
    for _ in range(iterations):
        cost(candidates)


def difference(model: WorldModel, problem: Problem, history: int, answers: Path) -> float:
    """Largest relative difference between their latents and costs and ours, of the same candidates."""
    rows = len(problem.z)
    actions = problem.candidates.unflatten(-1, (BLOCK, ACTION)).flatten(2, 3)
    ours = {
        "latents": model.rollout(problem.observed(model, rows, history), actions),
        "costs": cost_of(model, problem, rows, history)(actions),
    }
    with np.load(answers) as theirs:
        pairs = [(ours[key], torch.from_numpy(theirs[key])) for key in ours]
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


class Worker:
    """The peer's process, which measures once each time it is asked."""

    def __init__(self, command: Sequence[str], errors: Path) -> None:
        self.command, self.errors = command, errors

    def __enter__(self) -> Worker:
        with self.errors.open("w") as errors:
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(self.command, stdin=pipe, stdout=pipe, stderr=errors, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.__exit__(None, None, None)  # closes its stdin, at which it ends

    def measure(self) -> dict[str, Any]:
        """The next line of the worker, measured while we wait."""
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended; its last words follow
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the peer's process ended:\n{self.errors.read_text()[-2000:]}")
        return json.loads(line)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """That many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def compare(
    peer_python: Path,
    *,
    rows: Sequence[int] = (1, 8),
    history: Sequence[int] = (1, 3),
    threads: int = 1,
    iterations: int = 30,
    repeats: int = 5,
) -> list[Row]:
    """Check that both imagine the same, then time both in turns: a machine's speed drifts by 30 % in minutes.

    Raises:
        RuntimeError: the peer failed, or its latents or costs differ from ours.
    """
    model = random_model()
    problem = random_problem(max(rows), max(history), model.config.latent_dim)
    with tempfile.TemporaryDirectory() as name, torch_threads(threads):
        folder = Path(name)
        np.savez(folder / "weights.npz", **{k: v.numpy() for k, v in model.predictor.state_dict().items()})
        np.savez(folder / "problem.npz", **{k: v.numpy() for k, v in vars(problem).items()})
        options = {"--rows": rows, "--history": history, "--threads": [threads], "--repeats": [repeats + 1]}
        options |= {"--iterations": [iterations], "--samples": [SAMPLES], "--topk": [ELITES]}
        words = [str(word) for option, values in options.items() for word in (option, *values)]
        command = [str(peer_python), str(WORKER), str(folder), "--paced", *words]
        with Worker(command, folder / "stderr.txt") as worker:
            table = []
            for h in history:
                for r in rows:
                    table.append(_alternate(worker, model, problem, r, h, iterations, repeats))
                    worst = difference(model, problem, h, folder / f"answers_h{h}.npz")
                    if not worst < TOLERANCE:
                        raise RuntimeError(f"history {h}: latents or costs differ by {worst:.1e} relative")
            return table


def _alternate(
    worker: Worker, model: WorldModel, problem: Problem, rows: int, history: int, iterations: int, repeats: int
) -> Row:
    """Theirs, ours, theirs, ours ...; the first of each warms up."""
    theirs, ours = [], []
    for _ in range(repeats + 1):
        line = worker.measure()
        if (line["rows"], line["history"], line["iterations"]) != (rows, history, iterations):
            raise RuntimeError(f"asked the peer for {rows} rows and history {history}, got {line}")
        theirs.append(line["seconds"])
        call = solve if line["timed"] == "solve" else call_cost
        start = time.perf_counter()
        call(model, problem, rows, history, iterations)
        ours.append(time.perf_counter() - start)
    peer = f"{line['package']} {line['version']}, torch {line['torch']}"
    seconds = (median(theirs[1:]), median(ours[1:]))
    return Row(rows, history, line["threads"], iterations, line["timed"], *seconds, peer)
