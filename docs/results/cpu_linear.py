"""What ADRs 0004 and 0006 quote: products, rollouts and noise on one CPU thread, ours beside torch's own, in turns.

python docs/results/cpu_linear.py > docs/results/cpu_linear.txt
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import torch
from torch.nn import functional as F

from experiments.peers.compare import random_model, random_problem
from experiments.runs import provenance
from lewm.models import SIZES, WorldModel, layers, predictors
from lewm.types import ActionSpec
from planners import noise

REPEATS = 15


def in_turns(calls: dict[str, Callable[[], object]], repeats: int = REPEATS) -> dict[str, float]:
    """Median milliseconds of each."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            taken[name].append(1e3 * (time.perf_counter() - begin))
    return {name: median(ms[1:]) for name, ms in taken.items()}


def show(what: str, ms: dict[str, float]) -> None:
    """One line."""
    first, second = ms.values()
    print(f"{what}: {', '.join(f'{k} {v:.3f} ms' for k, v in ms.items())}, ratio {first / second:.2f}", flush=True)


def without_onednn(call: Callable[[], object]) -> Callable[[], object]:
    """The call with torch's own linear layers."""

    def plain() -> None:
        kept, layers._ONEDNN_LINEAR = layers._ONEDNN_LINEAR, None
        try:
            call()
        finally:
            layers._ONEDNN_LINEAR = kept

    return plain


def transformer_ms(keep: bool) -> float:
    """One iteration of the paper-size predictor, 300 candidates, history 1."""
    if not keep:
        predictors.keep_heap = lambda: None
    model, problem = random_model(), random_problem(1, 1, 192, candidates=300)
    observed = problem.observed(model, 1, 1)
    return in_turns({"rollout": lambda: model.predictor.rollout(observed, problem.candidates)}, 7)["rollout"]


@torch.no_grad()
def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    if sys.argv[1:]:
        print(transformer_ms(sys.argv[1] == "keep"))
        return
    made = provenance()
    print(f"commit {made['commit']}, torch {made['versions']['torch']}, {made['machine']}, 1 thread, medians")
    x, w, b = torch.randn(300, 192), torch.randn(2048, 192), torch.randn(2048)
    ms = in_turns({"F.linear": lambda: F.linear(x, w, b), "ours": lambda: layers.linear(x, w, b)}, 200)
    show("linear 300 x 192 -> 2048", ms)
    flop = 2 * 300 * 192 * 2048
    print("  " + ", ".join(f"{name} {flop / t / 1e6:.0f} GFLOP/s" for name, t in ms.items()))
    spec = ActionSpec([-1, -1], [1, 1], [0, 0], [1, 1])
    small = WorldModel(SIZES["small"], spec).eval()
    observed = small.predictor.observe(torch.randn(1, 1, 192), torch.zeros(1, 0, 10))
    future = torch.randn(1, 128, 8, 10)

    def rollout() -> None:
        small.predictor.rollout(observed, future)

    show(
        "rollout of the default model, 128 candidates",
        in_turns({"torch": without_onednn(rollout), "ours": rollout}, 50),
    )
    key, generator = noise.keys(torch.tensor([1]), 0), torch.Generator()
    own = {
        "ours": lambda: noise.normal(key, (128, 2, 40)),
        "torch": lambda: torch.randn(128, 2, 40, generator=generator),
    }
    show("10,240 normals", in_turns(own, 200))
    heap: dict[str, list[float]] = {"drop": [], "keep": []}
    for _ in range(3):
        for how, taken in heap.items():
            done = subprocess.run([sys.executable, __file__, how], capture_output=True, text=True, check=True)
            taken.append(float(done.stdout))
    show("paper-size rollout, heap dropped and kept, 3 processes each", {k: median(v) for k, v in heap.items()})


if __name__ == "__main__":
    main()
