"""Imagination beside what happened: how fast does the error grow, and does it depend on the actions?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lewm.models import WorldModel
from lewm.types import InputError

# (seen z_BTD, actions_BLKA: the T - 1 blocks between them and those to come) -> imagined latents (B, L - T + 1, D)
Imagine = Callable[[Tensor, Tensor], Tensor]


def imagination(model: WorldModel) -> Imagine:
    """The open-loop imagination of a model, from latents and raw action blocks."""

    def imagine(z_BTD: Tensor, actions_BLKA: Tensor) -> Tensor:
        blocks, seen = model.normalise(actions_BLKA.to(z_BTD)), z_BTD.shape[1] - 1
        observed = model.predictor.observe(z_BTD, blocks[:, :seen])
        return model.predictor.rollout(observed, blocks[:, None, seen:])[:, 0]

    return imagine


@dataclass(frozen=True)
class RolloutError:
    """Squared errors per horizon 1 ... L in blocks, means over trajectories and dimensions.

    Attributes:
        imagined: of open-loop imagination, |z'_{t+k} - z_{t+k}|^2.
        persistence: of the forecast that nothing moves, |z_{t+k} - z_t|^2.
        shuffled: of imagination with the future actions of another trajectory.
    """

    imagined: list[float]
    persistence: list[float]
    shuffled: list[float]

    @property
    def relative(self) -> list[float]:
        """Imagined over persistence: 0 is perfect, from 1 on imagination is worth nothing."""
        return [a / b if b > 0 else float("nan") for a, b in zip(self.imagined, self.persistence, strict=True)]

    @property
    def action_gap(self) -> list[float]:
        """Shuffled over imagined: 1 if the predictor ignores the actions."""
        return [a / b if b > 0 else float("nan") for a, b in zip(self.shuffled, self.imagined, strict=True)]


@torch.no_grad()
def rollout_error(imagine: Imagine, z_BTD: Tensor, actions_BLKA: Tensor, history: int = 1) -> RolloutError:
    """Imagine from the first `history` frames of each trajectory and compare with the encoded rest.

    Args:
        z_BTD: encoded frames of B >= 2 trajectories; actions_BLKA: the T - 1 raw action blocks between them.
    """
    rows, frames = z_BTD.shape[:2]
    if rows < 2 or not 1 <= history < frames or actions_BLKA.shape[:2] != (rows, frames - 1):
        raise InputError(
            f"rollout_error needs 2 or more trajectories, frames > history {history} and a block between any two, "
            f"got latents {tuple(z_BTD.shape)} and actions {tuple(actions_BLKA.shape)}"
        )
    seen, future = z_BTD[:, :history], z_BTD[:, history:]
    done, chosen = actions_BLKA[:, : history - 1], actions_BLKA[:, history - 1 :]
    others = torch.cat([done, chosen.roll(1, 0)], dim=1)
    return RolloutError(
        _by_horizon(imagine(seen, actions_BLKA), future),
        _by_horizon(seen[:, -1:], future),
        _by_horizon(imagine(seen, others), future),
    )


def _by_horizon(guess: Tensor, future: Tensor) -> list[float]:
    return (guess - future).square().mean((0, 2)).tolist()
