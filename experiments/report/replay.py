"""Episodes run once more to look over the planner's shoulder: where is each of its plans imagined to end?"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from envs import GoalTask
from experiments.build import build_task
from experiments.evaluate.agents import Overheard, Planning, Trained
from experiments.evaluate.episodes import run_pairs
from experiments.observe import encode
from experiments.records import EpisodeRecord
from experiments.report.evaluation import Evaluation
from experiments.runs import progress
from lewm import registry
from planners import MPC

BANK = 2000
AT_ONCE = 200  # frames drawn and encoded at a time


@dataclass(frozen=True)
class Rollout:
    """One episode and what its planner imagined.

    Attributes:
        record: as it was evaluated; same: whether it went the same way again.
        planned: (P,) steps at which a plan was made; ends: (P, D) latents in which those plans end.
    """

    record: EpisodeRecord
    same: bool
    planned: np.ndarray
    ends: Tensor


@dataclass(frozen=True)
class Bank:
    """States (n, s) and the latents (n, D) of their pictures, to show a latent by the nearest of them."""

    states: np.ndarray
    z: Tensor

    def nearest(self, z: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """For latents (m, D) the nearest entries (m,), and their distances (m,)."""
        far, index = torch.cdist(z.to(self.z), self.z).min(1)
        return index.numpy(), far.numpy()

    @property
    def typical(self) -> float:
        """Root mean squared distance of two entries."""
        return float((2 * self.z.var(0).sum()).sqrt())


class Watched(Planning):
    """The model behind its planner, as it is evaluated, with a record of where each of its plans ends."""

    def __init__(self, trained: Trained) -> None:
        super().__init__(trained)
        self.planned: list[int] = []
        self.ends: list[Tensor] = []

    def controller(self, rows: int, seeds: Sequence[int]) -> MPC:
        """See `Planning`."""
        ear = Overheard(registry.build("planner", self.trained.planner))
        return self.trained.controller(rows, seeds, planner=ear)

    @torch.no_grad()
    def decided(self, t: int, task: GoalTask, agent: MPC, seconds: float) -> None:
        """See `Planning`."""
        cost, actions = agent.planner.cost, agent.last_plan.actions[:, None]
        rows = range(len(actions))
        imagined = [cost.dynamics.rollout(cost.context[k : k + 1], actions[k : k + 1]) for k in rows]
        self.planned.append(t)
        self.ends.append(torch.cat(imagined)[:, 0, -1].cpu())


def replay(evaluation: Evaluation, chosen: Sequence[EpisodeRecord]) -> list[Rollout]:
    """Run these episodes of the model again, exactly as they were evaluated."""
    if not chosen:
        return []
    watched = Watched(evaluation.trained)
    with progress(len(chosen), "replay", "episodes") as bar:
        again = run_pairs(
            evaluation.trained.env,
            evaluation.pairs(),
            [record.pair for record in chosen],
            "model",
            watched,
            seed=chosen[0].seed,
            budget=evaluation.protocol["budget"],
            tick=bar.update,
        )
    ends_BPD = torch.stack(watched.ends, dim=1)
    planned = np.array(watched.planned)
    return [
        Rollout(record, record == new, planned, ends)
        for record, new, ends in zip(chosen, again, ends_BPD, strict=True)
    ]


def make_bank(evaluation: Evaluation, rollouts: Sequence[Rollout]) -> Bank:
    """At most `BANK` states: goals, those of the rollouts, and of what any agent visited a random choice."""
    rng = np.random.default_rng(0)
    goals = np.unique([line.goal for line in evaluation.lines], axis=0)[: BANK // 4]
    own = [state for rollout in rollouts for state in rollout.record.states]
    visited = [state for line in evaluation.lines for state in line.states]
    parts = [goals]
    for states, count in ((own, BANK // 4), (visited, BANK)):
        left = min(count, BANK - sum(map(len, parts)), len(states))
        chosen = [states[k] for k in rng.permutation(len(states))[:left]]
        parts.append(np.array(chosen).reshape(left, goals.shape[1]))
    states = np.concatenate(parts)
    with (
        closing(build_task(evaluation.trained.env, 1)) as task,
        progress(len(states), "encode", "frames") as bar,
        torch.no_grad(),
    ):
        latents = []
        for first in range(0, len(states), AT_ONCE):
            latents.append(encode(evaluation.trained.model, task, states[first : first + AT_ONCE]))
            bar.update(len(latents[-1]))
    return Bank(states, torch.cat(latents).float().cpu())
