"""Push-T on data of our own: where planning from pixels fails, and which part is to blame. A JSON line per answer.

    python docs/results/push_t/run.py RUN PAIRS encoder     # can this encoder see the angle at all, and when?
    python docs/results/push_t/run.py RUN PAIRS probes      # what the trained model's latents hold
    python docs/results/push_t/run.py RUN PAIRS oracles     # the true simulator in place of the predictor, 20 pairs

RUN is a run of docs/results/data_quality/run.py (its folder `expert`), PAIRS the folder `pairs` beside it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import lewm
from experiments.build import build_task
from experiments.pairs import heldout_pairs
from experiments.simulator import SimulatorDynamics
from lewm.data import EpisodeReader, split_episodes
from lewm.models.encoders import ConvEncoder
from planners import CEM, MPC, GoalDistance

LINES = Path(__file__).parent / "answers.jsonl"
AXES = ("agent x", "agent y", "block x", "block y", "sin angle", "cos angle")


def encoder(run: Path, pairs: Path) -> None:
    """Regress the true pose with the model's encoder: pixels scaled by a rule, or by the data's statistics."""
    reader = EpisodeReader(run / "data")
    training, held_out = split_episodes(reader)
    config = json.loads((run / "checkpoint" / "config.json").read_text())["model"]
    scales = {"fixed": (0.5, 0.25), "data": (np.mean(config["pixel_mean"]), np.mean(config["pixel_std"]))}
    for name, (mean, std) in scales.items():
        torch.manual_seed(0)
        rng = np.random.default_rng(0)
        net = nn.Sequential(ConvEncoder(config["image_size"]), nn.SiLU(), nn.Linear(256, len(AXES)))
        optimiser = torch.optim.AdamW(net.parameters(), 2e-3)
        for step in range(401):
            for group in optimiser.param_groups:
                group["lr"] = 2e-3 * min(1, (step + 1) / 30) * (0.5 + 0.5 * np.cos(np.pi * step / 401))
            images, poses = _frames(reader, training, 128, rng)
            loss = (net((images - mean) / std) - poses).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if step in (100, 200, 400):
                images, poses = _frames(reader, held_out, 500, rng)
                with torch.no_grad():
                    predicted = net((images - mean) / std)
                _answer("encoder", pixels=name, steps=step, batch=128, r2=_r2(predicted, poses))


def probes(run: Path, pairs: Path) -> None:
    """Linear and nonlinear probes of the pose from the trained model's latents, on held-out episodes."""
    model, reader = lewm.load(run), EpisodeReader(run / "data")
    training, held_out = split_episodes(reader)
    rng = np.random.default_rng(0)

    def latents(episodes: np.ndarray, count: int) -> tuple[Tensor, Tensor]:
        images, poses = _frames(reader, episodes, count, rng)
        with torch.no_grad():
            return torch.cat(
                [model.encode((part * 255).byte().permute(0, 2, 3, 1)) for part in images.split(250)]
            ), poses

    (z, poses), (z_held, poses_held) = latents(training, 6000), latents(held_out, 1000)
    for name, hidden in (
        ("linear", []),
        ("mlp", [nn.Linear(z.shape[1], 512), nn.SiLU(), nn.Linear(512, 512), nn.SiLU()]),
    ):
        torch.manual_seed(0)
        probe = nn.Sequential(*hidden, nn.Linear(512 if hidden else z.shape[1], len(AXES)))
        optimiser = torch.optim.AdamW(probe.parameters(), 1e-3, weight_decay=1e-2)
        for _ in range(800):
            chosen = torch.randint(0, len(z), (256,))
            loss = (probe(z[chosen]) - poses[chosen]).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            _answer("probe", kind=name, r2=_r2(probe(z_held), poses_held))


def oracles(run: Path, pairs: Path, count: int = 20) -> None:
    """The same search with what truly happens: (b) the task's distance of true states, (a) our latent cost."""
    model, reader = lewm.load(run), EpisodeReader(pairs)
    env = reader.info.source["env"]
    drawn = heldout_pairs(build_task(env, 1), reader, np.arange(len(reader)), count, 25, 0)
    for name, samples, iterations in (("b", 64, 4), ("a", 64, 4), ("b", 128, 8)):
        task, begin = build_task(env, count), time.perf_counter()
        if name == "b":
            dynamics = SimulatorDynamics(task, std=np.full(2, 0.3))
            cost = GoalDistance(metric=dynamics.metric)
        else:
            dynamics = SimulatorDynamics(task, std=np.full(2, 0.3), block=model.action_block, encoder=model)
            cost = GoalDistance()
        planner = CEM(
            horizon=25,
            samples=samples,
            iterations=iterations,
            warm_iterations=iterations // 2,
            elites=samples // 10,
        )
        agent = MPC(dynamics, rows=count, planner=planner, cost=cost, replan_every=5)
        task.reset(drawn.starts, drawn.goals)
        agent.reset(drawn.goals)
        for _ in range(50):
            task.step(agent.act(task.get_state()))
        block = task.measures(task.get_state(), task.get_goal())["block"] <= 1
        _answer(
            "oracle",
            cost={"a": "latents of true pictures", "b": "distance of true states"}[name],
            samples=samples,
            iterations=iterations,
            pairs=count,
            success_final=float(task.success().mean()),
            block_final=float(block.mean()),
            seconds=round(time.perf_counter() - begin),
        )


def _frames(
    reader: EpisodeReader, episodes: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Random images (N, 3, h, w) in [0, 1], and their poses (N, 6), positions in units of 128 from the middle."""
    chosen = rng.choice(episodes, count)
    rows = rng.integers(0, reader.steps[chosen] + 1)
    images = torch.from_numpy(reader.gather("pixels", chosen, rows)).permute(0, 3, 1, 2).float() / 255
    poses = torch.from_numpy(reader.gather("pose", chosen, rows)).float()
    poses[:, :4] = (poses[:, :4] - 256) / 128
    return images, poses


def _r2(predicted: Tensor, truth: Tensor) -> dict[str, float]:
    values = 1 - (predicted - truth).square().mean(0) / truth.var(0, unbiased=False)
    return dict(zip(AXES, values.numpy().round(3).tolist(), strict=True))


def _answer(question: str, **facts: Any) -> None:
    with LINES.open("a") as file:
        file.write(json.dumps({"question": question, **facts}) + "\n")
    print(question, facts, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"encoder": encoder, "probes": probes, "oracles": oracles}[sys.argv[3]](Path(sys.argv[1]), Path(sys.argv[2]))
