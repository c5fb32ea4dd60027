"""Our own steps, served by the loops and the clock of `experiments/peers/train_worker.py`.

python -m experiments.benchmark_train.worker steps PROBLEM     the paper's model, from the weights that are there
python -m experiments.benchmark_train.worker small PROBLEM     the CPU default, on the data set that is there
python -m experiments.benchmark_train.worker sigreg PROBLEM    regularisers alone
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.benchmark_train.floor import Products, step_flop
from experiments.peers.data_worker import versions
from experiments.peers.envs_worker import Loop, serve
from experiments.peers.train_worker import (
    ACTION,
    BLOCK,
    CLIP,
    DECAY,
    LEARNING_RATE,
    SLICES,
    WEIGHT,
    Gradients,
    Latents,
    Memory,
    Steps,
    nothing,
    without_dropout,
)
from lewm import registry
from lewm.data import Batch, EpisodeReader, Loader, Windows
from lewm.models import SIZES, WorldModel
from lewm.models.released import load_released
from lewm.objectives import Encoded
from lewm.training import Trainer, join
from lewm.training.step import Stepper
from lewm.types import ActionSpec

PACKAGES = ("lewm", "torch", "numpy")
UNIT = ActionSpec([-1.0] * ACTION, [1.0] * ACTION, [0.0] * ACTION, [1.0] * ACTION)  # the given actions are z-scored
REFERENCE = 16384  # directions that stand for all of them
MANY, SEED = 10**9, 0


class Ours:
    """The trainer's own step, on batches that are given."""

    def __init__(
        self, model: WorldModel, trainer: Trainer, objective: Mapping[str, Any], batches: Iterator[Batch]
    ) -> None:
        self._model, self._trainer, self._batches = model.train(), trainer, batches
        self._objective = registry.build("objective", objective)
        self._stepper, self._done = self._make(model), 0

    def check(self) -> dict[str, float]:
        """Losses and norm of the gradient without dropout, of step 0; `seed` is what its directions come from."""
        found = self._make(without_dropout(self._model))(next(self._batches), 0)
        named = {"loss": found.loss, **found.parts, "norm": found.norm}
        seed = int(np.random.SeedSequence([SEED, 0]).generate_state(2)[1])
        return {name: value.item() for name, value in named.items()} | {"seed": seed}

    def step(self, t: int) -> None:
        """Read a batch, change the weights."""
        self._stepper(next(self._batches), self._done)
        self._done += 1

    def _make(self, model: WorldModel) -> Stepper:
        s = self._trainer
        optimiser = torch.optim.AdamW(model.parameters(), s.learning_rate, weight_decay=s.weight_decay, fused=True)
        return Stepper(s, model, self._objective, optimiser, None, join(s.device), SEED)


def paper(problem: Steps) -> Ours:
    """LeWM with the weights that the peer has left in the folder, or fresh ones."""
    weights = Path(problem.folder) / "weights.pt"
    if weights.exists():
        model = load_released(weights, UNIT)
    else:
        torch.manual_seed(SEED)
        size = SIZES["lewm"]
        encoder = {"name": "vit", "patch": problem.patch, "depth": problem.layers[0]}
        predictor = {**size.predictor, "depth": problem.layers[1]}
        model = WorldModel(replace(size, image_size=problem.size, encoder=encoder, predictor=predictor), UNIT)
    pixels, actions = problem.windows()
    blocks = actions[:, :-1].reshape(problem.batch, problem.frames - 1, BLOCK, ACTION)
    rows = np.arange(problem.batch)
    batch = Batch({"pixels": pixels}, blocks, rows, rows)
    weight = WEIGHT * problem.batch  # the paper's EP is N times ours
    regulariser = {"name": "sigreg", "weight": weight, "directions": {"name": "iid", "count": SLICES}}
    settings = {"batch_size": problem.batch, "learning_rate": LEARNING_RATE, "weight_decay": DECAY, "clip": CLIP}
    objective = {"name": "lejepa", "regulariser": regulariser}
    return Ours(model, Trainer(steps=MANY, warmup=0, **settings), objective, repeat(batch))


def small(problem: Steps) -> Ours:
    """The CPU default with the objective and settings of `lewm train`, its batches read from a data set."""
    torch.manual_seed(SEED)
    reader, trainer = EpisodeReader(Path(problem.folder)), Trainer(steps=MANY, batch_size=problem.batch)
    episodes = np.arange(len(reader))
    model = WorldModel(replace(SIZES["small"], image_size=problem.size), reader.action_spec(episodes))
    windows = Windows(reader, episodes, frames=problem.frames, block=model.action_block, pad=model.history - 1)
    loader = Loader(windows, batch_size=problem.batch, seed=SEED)
    return Ours(model, trainer, {"name": "lejepa"}, loader.batches(0, MANY))


def _measure(regulariser: Any, z_BTD: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    encoded = Encoded(z_BTD, z_BTD[:, :-1, :0], predictor=None, generator=generator)
    return len(z_BTD) * regulariser(encoded)


def regularisers(problem: Latents) -> Gradients:
    """Those that are compared, and one with so many directions that it stands for all of them."""
    specs = {
        "sigreg": {"name": "sigreg", "directions": {"name": "iid", "count": problem.slices}},
        "orthogonal": {"name": "sigreg", "directions": {"name": "orthogonal", "count": problem.slices}},
        "sub_jepa": {"name": "sub_jepa", "directions": {"name": "subspaces", "count": problem.slices}},
        "kummer": {"name": "exact_sigreg", "form": "kummer"},
        "imq": {"name": "exact_sigreg", "form": "imq"},
        "reference": {"name": "sigreg", "directions": {"name": "iid", "count": REFERENCE}},
    }
    built = {kind: registry.build("regulariser", spec) for kind, spec in specs.items()}
    return Gradients({kind: partial(_measure, one) for kind, one in built.items()}, problem)


def main(arguments: Sequence[str]) -> None:
    """Serve what the command line says."""
    part, problem = arguments[0], json.loads(arguments[1])
    timed: dict[str, Any] = {"memory": Memory()}
    hello: dict[str, Any] = {"versions": versions(PACKAGES)}
    if part == "sigreg":
        problem = Latents(**problem)
        torch.set_num_threads(1)
        timed["gradients"] = found = regularisers(problem)
        timed |= {kind: found.loop(kind) for kind in found.kinds}
    else:
        problem = Steps(**problem)
        torch.set_num_threads(problem.threads)
        timed["model"] = ours = (paper if part == "steps" else small)(problem)
        timed["step"], timed["products"] = Loop(nothing, ours.step, problem.batch * problem.frames), Products()
        hello["flop"] = step_flop(problem)
    serve(timed, hello | {"batch": problem.batch, "frames": problem.batch * problem.frames})


if __name__ == "__main__":
    main(sys.argv[1:])
