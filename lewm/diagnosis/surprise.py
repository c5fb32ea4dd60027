"""Violation of expectation: does the model notice what cannot happen?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lewm.diagnosis.rollout import Imagine
from lewm.types import InputError


@dataclass(frozen=True)
class Surprise:
    """Prediction errors along trajectories, undisturbed and with something impossible at one frame.

    Attributes:
        usual, disturbed: mean squared error per predicted frame, over trajectories and dimensions.
        at: place in them of the impossible frame.
        t: of the paired t-test of disturbed > usual there; one difference per episode, pairs of them, pairs - 1
            degrees of freedom.
    """

    usual: list[float]
    disturbed: list[float]
    at: int
    t: float
    pairs: int

    @property
    def ratio(self) -> float:
        """How many times the usual error the impossible frame costs; 1 goes unnoticed."""
        usual = self.usual[self.at]
        return self.disturbed[self.at] / usual if usual > 0 else float("nan")


@torch.no_grad()
def one_step(imagine: Imagine, z_BTD: Tensor, actions_BLKA: Tensor, history: int = 1) -> Tensor:
    """Each frame from `history` on, predicted from the `history` real ones before it: (B, T - history, D)."""
    frames = range(history, z_BTD.shape[1])
    steps = [imagine(z_BTD[:, t - history : t], actions_BLKA[:, t - history : t]) for t in frames]
    return torch.cat(steps, dim=1)


def squared_error(predicted_BLD: Tensor, z_BLD: Tensor) -> Tensor:
    """Mean over dimensions: (B, L)."""
    return (predicted_BLD - z_BLD).square().mean(-1)


def splice(x_BT: Tensor, other_BT: Tensor, at: int) -> Tensor:
    """The one up to frame `at`, the other from there on: a teleport, or a sudden change of colour."""
    return torch.cat([x_BT[:, :at], other_BT[:, at:]], dim=1)


def recoloured(pixels: Tensor) -> Tensor:
    """The same pictures with red, green and blue changed about: (..., h, w, C). Grey stays grey."""
    return pixels.roll(1, -1)


@torch.no_grad()
def surprise(usual_BL: Tensor, disturbed_BL: Tensor, at: int, episodes_B: Tensor) -> Surprise:
    """Compare prediction errors (B, L) of trajectories with those of their disturbed copies.

    As in LeWM's test (arXiv 2603.19312, section 5.2): mean squared error of the next latent, teleport and change of
    colour, paired t-test. Ours pairs the means of episodes, as windows of one episode are not independent.
    """
    if usual_BL.shape != disturbed_BL.shape or not 0 <= at < usual_BL.shape[1]:
        raise InputError(
            f"surprise needs errors of one shape and a frame within it, got {tuple(usual_BL.shape)}, "
            f"{tuple(disturbed_BL.shape)} and frame {at}"
        )
    gain = (disturbed_BL - usual_BL)[:, at].double()
    _, label, count = torch.unique(episodes_B.to(gain.device), return_inverse=True, return_counts=True)
    gains = torch.zeros(len(count), dtype=gain.dtype, device=gain.device).index_add_(0, label, gain) / count
    return Surprise(usual_BL.mean(0).tolist(), disturbed_BL.mean(0).tolist(), at, paired_t(gains), len(gains))


def paired_t(differences_N: Tensor) -> float:
    """Student's t of the mean of N differences against zero; NaN for fewer than two or where all are equal."""
    if len(differences_N) < 2:
        return float("nan")
    spread = differences_N.double().std()
    return float(differences_N.double().mean() / spread * len(differences_N) ** 0.5) if spread > 0 else float("nan")
