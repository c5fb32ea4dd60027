"""Optimiser steps and SIGReg of stable-worldmodel's own LeWM, turn by turn; runs in the peer's venv.

    python train_worker.py steps PROBLEM      answer commands, one JSON line each (see `envs_worker.serve`)
    python train_worker.py sigreg PROBLEM     PROBLEM: JSON, the fields of `Steps` or of `Latents`

`setup_lewm.sh` makes that venv; `experiments/benchmark_train/worker.py` serves ours with the same batch, loops and
clock.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

try:
    from experiments.peers.data_worker import PEER, skip_init, versions
    from experiments.peers.envs_worker import Loop, serve
except ImportError:  # we are not installed in the peer's venv
    from data_worker import PEER, skip_init, versions
    from envs_worker import Loop, serve

FRAMES, BLOCK, ACTION, SLICES = 4, 5, 2, 1024
WEIGHT, LEARNING_RATE, DECAY, CLIP = 0.09, 5e-5, 1e-3, 1.0  # as published, the first of EP, which is N times ours
MEAN, STD = (torch.tensor(x).view(3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
PACKAGES = ("stable-worldmodel", "transformers", "torch", "numpy")


@dataclass(frozen=True)
class Steps:
    """What is trained, on what: the published sizes but for the number of layers, which may be less for a try."""

    size: int
    patch: int
    batch: int
    threads: int
    layers: Sequence[int]
    folder: str
    frames: int = FRAMES

    def windows(self) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (B, T, h, w, 3), of coarse squares so that pictures differ, and z-scored actions (B, T, E)."""
        rng = np.random.default_rng(0)
        coarse = rng.integers(0, 256, (self.batch, self.frames, 4, 4, 3), dtype=np.uint8)
        square = np.ones((-(-self.size // 4),) * 2 + (1,), np.uint8)
        pixels = np.kron(coarse, square)[:, :, : self.size, : self.size]
        actions = rng.standard_normal((self.batch, self.frames, BLOCK * ACTION), np.float32)
        return np.ascontiguousarray(pixels), actions


@dataclass(frozen=True)
class Latents:
    """What SIGReg is asked about: (B, T, D) far from N(0, I), or near it."""

    batch: int
    frames: int
    dim: int
    slices: int

    def make(self, near: bool) -> Tensor:
        """`near` as at the end of a training; else correlated, too narrow and with light tails, as at its begin."""
        generator = torch.Generator().manual_seed(0)
        z = torch.randn(self.batch, self.frames, self.dim, generator=generator)
        if near:
            return z
        mix = torch.randn(self.dim, self.dim, generator=generator) / self.dim**0.5
        return 0.6 * torch.tanh(z @ mix)


class Memory:
    """How much there was."""

    def peak(self) -> dict[str, float]:
        """MB; of this process alone, which ru_maxrss is not: it begins with the parent's."""
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return {"mb": round(int(line.split()[1]) / 1024, 1)}
        raise OSError("/proc/self/status does not tell the peak of memory")


class Gradients:
    """Value and gradient of regularisers at the same latents, each times N, as published."""

    def __init__(self, kinds: dict[str, Callable[[Tensor, int], Tensor]], latents: Latents) -> None:
        self.kinds, self._latents = kinds, latents

    def save(self, path: str, which: str, near: bool, seed: int) -> dict[str, float]:
        """The gradient (B, T, D) into `path`; directions drawn from `seed`."""
        z = self._latents.make(near).requires_grad_()
        value = self.kinds[which](z, seed)
        value.backward()
        np.save(path, z.grad.numpy())
        return {"value": value.item()}

    def loop(self, kind: str) -> Loop:
        """Forward and backward, with other directions each time."""
        z = self._latents.make(near=True).requires_grad_()

        def step(t: int) -> None:
            z.grad = None
            self.kinds[kind](z, t).backward()

        return Loop(nothing, step, self._latents.batch * self._latents.frames)


def without_dropout(model: nn.Module) -> nn.Module:
    """A copy, theirs or ours, that drops nothing and still uses the statistics of the batch."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    return model


class Theirs:
    """The training step of their `scripts/train/lewm.py` in float32, around their modules."""

    def __init__(self, problem: Steps) -> None:
        from lewm_worker import FULL, build, disturb

        torch.manual_seed(0)
        sizes = {**FULL, "vit": FULL["vit"] | {"image_size": problem.size, "patch_size": problem.patch}}
        sizes["vit"]["num_hidden_layers"], depth = problem.layers
        sizes["predictor"] = FULL["predictor"] | {"depth": depth}
        self._model = build(sizes, BLOCK * ACTION).train()
        disturb(self._model, torch.Generator().manual_seed(0))  # as what starts at zero would hide errors
        self._sigreg = _loss().SIGReg(num_proj=SLICES)
        self._optimiser = torch.optim.AdamW(self._model.parameters(), LEARNING_RATE, weight_decay=DECAY)
        self._pixels, self._actions = problem.windows()

    def save(self, path: str) -> None:
        """The weights, as they are published."""
        torch.save(self._model.state_dict(), path)

    def check(self, seed: int) -> dict[str, float]:
        """Losses and norm of the gradient without dropout, directions drawn from `seed`."""
        model = without_dropout(self._model)
        prediction, regularisation = self._losses(model, seed)
        loss = prediction + WEIGHT * regularisation
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        found = {"loss": loss, "prediction": prediction, "regularisation": regularisation, "norm": norm}
        return {name: value.item() for name, value in found.items()}

    def step(self, t: int) -> None:
        """Change the weights."""
        prediction, regularisation = self._losses(self._model)
        (prediction + WEIGHT * regularisation).backward()
        nn.utils.clip_grad_norm_(self._model.parameters(), CLIP)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)

    def _losses(self, model: nn.Module, seed: int | None = None) -> tuple[Tensor, Tensor]:
        pixels = (torch.from_numpy(self._pixels).permute(0, 1, 4, 2, 3) / 255 - MEAN) / STD
        encoded = model.encode({"pixels": pixels, "action": torch.from_numpy(self._actions)})
        z, actions = encoded["emb"], encoded["act_emb"]
        predicted = model.predict(z[:, :-1], actions[:, :-1])
        if seed is not None:
            torch.manual_seed(seed)
        return (predicted - z[:, 1:]).square().mean(), self._sigreg(z.transpose(0, 1))


def nothing(episode: int) -> None:
    """No reset is needed."""


def _loss() -> Any:
    """Their module of losses."""
    for package in (PEER, f"{PEER}.wm"):
        if package not in sys.modules:
            skip_init(package)
    from stable_worldmodel.wm import loss

    return loss


def _sigreg(slices: int) -> Callable[[Tensor, int], Tensor]:
    sigreg = _loss().SIGReg(num_proj=slices)

    def measure(z_BTD: Tensor, seed: int) -> Tensor:
        torch.manual_seed(seed)
        return sigreg(z_BTD.transpose(0, 1))

    return measure


def main(arguments: Sequence[str]) -> None:
    """Serve what the command line says."""
    part, problem = arguments[0], json.loads(arguments[1])
    timed: dict[str, Any] = {"memory": Memory()}
    hello: dict[str, Any] = {"versions": versions(PACKAGES)}
    if part == "steps":
        problem = Steps(**problem)
        torch.set_num_threads(problem.threads)
        timed["model"] = model = Theirs(problem)
        timed["step"] = Loop(nothing, model.step, problem.batch * problem.frames)
    else:
        problem = Latents(**problem)
        torch.set_num_threads(1)
        timed["gradients"] = found = Gradients({"sigreg": _sigreg(problem.slices)}, problem)
        timed["sigreg"] = found.loop("sigreg")
    serve(timed, hello | {"frames": problem.batch * problem.frames})


if __name__ == "__main__":
    main(sys.argv[1:])
