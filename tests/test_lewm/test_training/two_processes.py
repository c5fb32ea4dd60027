"""Run by test_distributed.py: what two processes compute, beside what one does with the whole batch.

    python two_processes.py FOLDER

writes FOLDER/errors.json, how far each quantity is off, relative to its size.
"""

import json
import multiprocessing
import os
import socket
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from lewm import registry
from lewm.data import Batch
from lewm.models import WorldModel, WorldModelConfig
from lewm.objectives import Objective
from lewm.training import Processes, Trainer, join
from lewm.training.distributed import synchronised
from lewm.training.step import Share, Stepper
from lewm.types import ActionSpec

ROWS, FRAMES, DIM = 12, 4, 16
ENCODER = {"name": "conv", "channels": (4, 8), "features": 16}
PREDICTOR = {"name": "residual_mlp", "width": 16}
TERMS = [(kind, name) for kind in ("prediction", "regulariser", "auxiliary") for name in registry.names(kind)]
TRAINER = Trainer(steps=3, batch_size=ROWS, warmup=0, accumulate=2, ema=0.9, log_every=1, save_every=2)


class Noise:
    """Batches of noise."""

    def draw(self, step: int, batch_size: int, seed: int) -> Batch:
        rng = np.random.default_rng([seed, step])
        pixels = rng.integers(0, 256, (batch_size, FRAMES, 8, 8, 3), np.uint8)
        actions = rng.standard_normal((batch_size, FRAMES - 1, 2, 2)).astype(np.float32)
        episodes = np.arange(batch_size) // 3
        return Batch({"pixels": pixels}, actions, episodes, np.arange(batch_size))


def model_for(objective: Objective) -> WorldModel:
    torch.manual_seed(0)
    spec = ActionSpec(low=(-1, -1), high=(1, 1), mean=(0, 0), std=(1, 1))
    config = WorldModelConfig(
        ENCODER, PREDICTOR, objective.heads, objective.link, image_size=8, latent_dim=DIM, projector_hidden=16
    )
    return WorldModel(WorldModelConfig(**vars(config) | {"action_block": 2}), spec).double().train()


def objective_with(kind: str, name: str) -> Objective:
    if kind == "auxiliary":
        return Objective(regulariser="none", auxiliary=[name])
    return Objective(**{"regulariser": "none", kind: name})


def loss_and_gradient(kind: str, name: str, processes: Processes) -> dict[str, torch.Tensor]:
    """Of one batch, and the statistics that batch normalisation keeps."""
    objective = objective_with(kind, name)
    model = model_for(objective)
    stepper = Stepper(Trainer(batch_size=ROWS), model, objective, None, None, processes, 0)
    batch = Share(Noise(), processes.rows(ROWS, 1)).draw(0, ROWS, 0)
    with synchronised(model, processes):
        terms, _ = stepper.loss(batch, torch.Generator().manual_seed(1))
        terms.total.backward()
    processes.average_gradients(model.parameters())
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    statistics = torch.cat([buffer.flatten().double() for buffer in model.buffers()])
    return {"loss": processes.mean(terms.total), "gradient": gradient, "statistics": statistics}


def trained(run: Path) -> dict[str, torch.Tensor]:
    objective = Objective(regulariser="sigreg")
    model = model_for(objective)
    run.mkdir(exist_ok=True)
    TRAINER.fit(model, objective, Noise(), run, 0, lambda *_: None)
    return {"weights": torch.cat([tensor.flatten().double() for tensor in model.state_dict().values()])}


def error(value: torch.Tensor, expected: torch.Tensor) -> float:
    return ((value - expected).norm() / expected.norm()).item()


def everything(processes: Processes, run: Path) -> dict[str, dict[str, torch.Tensor]]:
    found = {f"{kind} {name}": loss_and_gradient(kind, name, processes) for kind, name in TERMS}
    return found | {"trainer default": trained(run)}


def child(rank: int, port: int, folder: Path, alone: dict) -> None:
    os.environ |= {
        **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
    }
    processes = join()
    together = everything(processes, folder / "together")
    with patch.object(Processes, "gather", lambda self, x: x):  # what comes of statistics of their own
        together["regulariser sigreg, ungathered"] = loss_and_gradient("regulariser", "sigreg", processes)
    if rank == 0:
        errors = {
            name: {key: error(value, alone[name.partition(",")[0]][key]) for key, value in found.items()}
            for name, found in together.items()
        }
        (folder / "errors.json").write_text(json.dumps(errors))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    alone = everything(Processes(), folder / "alone")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    fork = multiprocessing.get_context("fork")  # nothing has started a thread yet, and torch is imported once
    children = [fork.Process(target=child, args=(rank, port, folder, alone)) for rank in range(2)]
    for process in children:
        process.start()
    for process in children:
        process.join()
    sys.exit(max(abs(process.exitcode) for process in children))
