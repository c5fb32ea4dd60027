"""The least arithmetic of an optimiser step of LeWM, and how fast this machine multiplies."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch

from experiments.peers.train_worker import SLICES, Steps
from lewm.models.layers import linear

DIM, HIDDEN, PROJECTOR = 192, 768, 2048  # of the ViT, of both projectors
INNER, MLP = 1024, 2048  # of the predictor
SIDE, REPEATS = 1536, 5  # of the square matrices that are multiplied


def step_flop(problem: Steps) -> float:
    """FLOP of a step's products, two for each multiply-add: forward, and twice that for the gradients.

    No gradient goes into pixels and directions. In the last block of the ViT only the class token asks, as nothing
    else of it is used. Norms, activations, softmax and the optimiser are left out.
    """
    depth, predictor_depth = problem.layers
    images, tokens = problem.batch * problem.frames, (problem.size // problem.patch) ** 2 + 1
    per_token = 4 * DIM**2 + 2 * DIM * HIDDEN
    one_asks = images * (2 * tokens * DIM**2 + (per_token - 2 * DIM**2) + 2 * tokens * DIM)
    vit = (depth - 1) * images * tokens * (per_token + 2 * tokens * DIM) + one_asks
    predicted = problem.batch * (problem.frames - 1)
    per_token = 4 * DIM * INNER + 2 * DIM * MLP + 6 * DIM**2 + 2 * (problem.frames - 1) * INNER
    predictor = predictor_depth * predicted * per_token
    projectors = 2 * DIM * PROJECTOR * (images + predicted)
    once = images * (tokens - 1) * 3 * problem.patch**2 * DIM + images * DIM * SLICES  # one gradient, not two
    return 2 * (3 * (vit + predictor + projectors) + 2 * once)


class Products:
    """Square products by torch's own library and by oneDNN, whichever is faster here."""

    def __init__(self) -> None:
        self._a, self._b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)

    def rates(self) -> dict[str, float]:
        """GFLOP/s of each, medians."""
        with torch.no_grad():
            calls = {"torch": lambda: self._a @ self._b.T, "oneDNN": lambda: linear(self._a, self._b)}
            taken = {name: median(_seconds(call) for _ in range(REPEATS)) for name, call in calls.items()}
        return {name: round(2e-9 * SIDE**3 / seconds, 1) for name, seconds in taken.items()}


def _seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin
