"""What is measured of a trained model beside its success: on held-out episodes, the same for every variant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from lewm import checkpoint
from lewm.data import EpisodeReader, split_episodes
from lewm.diagnosis.examine import draw
from lewm.diagnosis.geometry import rank_correlation
from lewm.diagnosis.health import health
from lewm.diagnosis.rollout import imagination, rollout_error

WINDOWS, AHEAD = 200, 8


@torch.no_grad()
def measures(run: Path, data: Path, validation: float, plugins: Sequence[str]) -> dict[str, float]:
    """Numbers that might tell a good planner's model from a bad one's.

    `rollout_1`, `rollout_8`: open-loop error one and eight blocks ahead, relative to standing still;
    `action_gap`: how much worse with another trajectory's actions, eight blocks ahead; `rank_correlation` of latent
    with true distance; `effective_rank`, `two_nn` of the latents.
    """
    model, reader = checkpoint.load(run, plugins=plugins), EpisodeReader(data)
    held = split_episodes(reader, validation)[1]
    frames, truth = AHEAD + model.history, next(name for name in ("pose", "state") if name in reader.info.columns)
    sample = draw(reader, held, count=WINDOWS, frames=frames, block=model.action_block, truth=truth)
    z = model.encode(sample.pixels)
    error = rollout_error(imagination(model), z, sample.actions_BLKA, model.history)
    state = sample.truth_BTP[:, 0]
    state = state[:, state.std(0) > 1e-9]
    found = health(z[:, 0])
    return {
        "rollout_1": error.relative[0],
        "rollout_8": error.relative[AHEAD - 1],
        "action_gap": error.action_gap[AHEAD - 1],
        "rank_correlation": rank_correlation(z[:, 0], state / state.std(0)),
        "effective_rank": found.effective_rank,
        "two_nn": found.two_nn,
    }
