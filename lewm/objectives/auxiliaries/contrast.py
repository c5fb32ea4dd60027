"""Contrast between a prediction and its target, and what the target is told apart from."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lewm.objectives.auxiliaries.rows import full_precision, mean_squared_distances
from lewm.objectives.encoded import Encoded
from lewm.objectives.objective import Auxiliary
from lewm.registry import register
from lewm.types import InputError

NEGATIVES = ("within", "across", "all")


@register("auxiliary", "within_episode")
class WithinEpisode(Auxiliary):
    """InfoNCE between a prediction and its target, with negatives from the same episode (arXiv 2606.07770).

        mean_i -log softmax_j(-|f(z, a)_i - z_j|^2 / (temperature * D))[target of i]

    Told apart from frames of its own episode, a target cannot be recognised by what stays the same throughout it:
    slow noise, backgrounds. `within`: the other frames of the window, and those of the batch's other windows of
    the episode, except of the same time; `across`: those of other episodes, where such things do help; `all`: both.

    The score is the distance that prediction errors and planners use, so `temperature` times this term pulls a
    prediction to its target as hard as the prediction error does: our default weight, for want of the paper's.
    """

    label = "within_episode"

    def __init__(self, *, weight: float = 0.1, temperature: float = 0.1, negatives: str = "within") -> None:
        super().__init__(weight=weight)
        if negatives not in NEGATIVES or not temperature > 0:
            raise InputError(
                f"{self.label} needs temperature > 0 and negatives in {', '.join(NEGATIVES)}, "
                f"got {temperature} and '{negatives}'"
            )
        self.temperature, self.negatives = temperature, negatives

    def __call__(self, encoded: Encoded) -> Tensor:
        """Scalar."""
        with full_precision(encoded.z_BTD):
            predicted, z = (encoded.gather(x) for x in (encoded.predicted_BLD, encoded.z_BTD))
            logits = mean_squared_distances(predicted.flatten(0, 1), z.flatten(0, 1)) / -self.temperature
            allowed, target = self.candidates(encoded, *z.shape[:2])
            return F.cross_entropy(logits.masked_fill(~allowed, -torch.inf), target)

    def candidates(self, encoded: Encoded, rows: int, frames: int) -> tuple[Tensor, Tensor]:
        """Which of the B * T frames each of the B * L predictions is compared with, and which is its target.

        Times are in blocks, and so must `starts_B` be, or windows that overlap have the same frame at two times.
        """
        device = encoded.z_BTD.device
        row, frame = (x.flatten() for x in torch.meshgrid(torch.arange(rows), torch.arange(frames), indexing="ij"))
        row, time = row.to(device), frame.to(device)
        episode = row
        if encoded.episodes_B is not None and encoded.starts_B is not None:
            episode = encoded.gather(encoded.episodes_B)[row]
            time = time + encoded.gather(encoded.starts_B)[row]
            time = time.clamp(min=0)  # a window that begins before its episode repeats the first frame
        target = torch.arange(rows * frames, device=device).view(rows, frames)[:, 1:].flatten()
        same = episode[target, None] == episode
        another_time = (time[target, None] - time).abs() >= 0.5
        negative = {"within": same & another_time, "across": ~same, "all": ~same | another_time}[self.negatives]
        return negative.scatter(1, target[:, None], True), target
