"""Terms that teach heads how far apart in time two latents are; a planner may ask them instead of the distance."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lewm.objectives.auxiliaries.rows import widened
from lewm.objectives.encoded import Encoded
from lewm.objectives.objective import Auxiliary
from lewm.registry import register
from lewm.types import InputError


@register("auxiliary", "reachability")
class Reachability(Auxiliary):
    """Whether a goal can be reached within h blocks, the classifier of RC-aux (arXiv 2605.07278).

        (positive + (cross + hard_weight * hard) / (1 + hard_weight)) / 2

    where each is the mean binary cross-entropy of R on

        positive   R(z_i, z_{i+d}, h) with h >= d, which this window shows to be enough
        hard       the same pairs with h < d: near, but not that soon
        cross      z_i and a frame of another episode, any h

    plus `predicted` times the same with predictions of the frames as sources, what a planner will ask. Every later
    frame of the window is a goal of every earlier one, which contains the paper's terminal term; the paper's
    predictions come from a rollout, ours from one step, and its unreachable goals may be of the same episode. All
    weights are the paper's. That d blocks were taken does not prove that d are needed: its authors' stated limit.

    Args:
        horizon: largest h; hidden, depth: of the head `reachability`.
        attached: whether the gradient reaches the latents; else the head is learned and nothing else changes.
    """

    label = "reachability"

    def __init__(
        self,
        *,
        weight: float = 0.35,
        predicted: float = 0.5,
        hard_weight: float = 1.0,
        attached: bool = True,
        horizon: int = 5,
        hidden: int = 256,
        depth: int = 2,
    ) -> None:
        super().__init__(weight=weight)
        if not (predicted >= 0 and hard_weight >= 0):
            raise InputError(f"reachability needs predicted, hard_weight >= 0, got {predicted}, {hard_weight}")
        self.predicted, self.hard_weight, self.attached = predicted, hard_weight, attached
        self.heads = {
            "reachability": {"name": "reachability", "horizon": horizon, "hidden": hidden, "depth": depth}
        }

    def __call__(self, encoded: Encoded) -> Tensor:
        """Scalar."""
        z = encoded.gather(encoded.z_BTD)
        rows = len(z)
        shift = int(torch.randint(1, max(rows, 2), (), generator=encoded.generator))
        episodes = torch.arange(rows, device=z.device)
        if encoded.episodes_B is not None:
            episodes = encoded.gather(encoded.episodes_B)
        foreign = episodes != episodes.roll(shift)
        loss = self._loss(encoded, z, z, foreign, shift)
        if self.predicted:
            imagined = torch.cat([z[:, :1], encoded.gather(encoded.predicted_BLD)], dim=1)
            loss = loss + self.predicted * self._loss(encoded, imagined, z, foreign, shift)
        return loss

    def _loss(self, encoded: Encoded, sources: Tensor, goals: Tensor, foreign: Tensor, shift: int) -> Tensor:
        """`foreign` (B,) says which rows may take goals from the row `shift` before as unreachable ones."""
        head = encoded.heads["reachability"]
        early, late = torch.triu_indices(goals.shape[1], goals.shape[1], 1, device=goals.device)
        sources, goals = sources[:, early], goals[:, late]
        if not self.attached:
            sources, goals = sources.detach(), goals.detach()
        own, other = widened(head(sources, goals)), widened(head(sources, goals.roll(shift, 0)))
        enough = torch.arange(1, own.shape[-1] + 1, device=own.device) >= (late - early)[:, None]  # (P, horizon)
        positive = _mean(F.softplus(-own), enough)
        hard = _mean(F.softplus(own), ~enough)
        cross = _mean(F.softplus(other), foreign[:, None, None])
        return 0.5 * (positive + (cross + self.hard_weight * hard) / (1 + self.hard_weight))


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of the chosen values, 0 of none."""
    chosen = chosen.expand_as(values)
    return torch.where(chosen, values, 0.0).sum() / chosen.sum().clamp(min=1)


@register("auxiliary", "temporal_distance")
class TemporalDistance(Auxiliary):
    """How many blocks lie between two latents, the regression of TRM (arXiv 2605.22164).

        mean huber(m(z_i, z_j) - (j - i))   over frames i < j of each window, in blocks

    TRM trains the head after the model, on pairs from whole episodes, and found that to matter: 97.5 % of its tasks
    solved with separations of all lengths, 35 % with at most 50 steps. Pairs here are of one window, so that the
    head knows `trainer.frames` - 1 blocks and beyond them only that it is far. The weight is ours: little, for with
    it the latents are changed too (`attached=false`: only the head is learned, as in the paper).

    Args:
        form: of the head `distance`: `symmetric`, as TRM means it, or `quasimetric`.
        hidden, depth: of the head.
    """

    label = "temporal_distance"

    def __init__(
        self,
        *,
        weight: float = 0.1,
        attached: bool = True,
        form: str = "symmetric",
        hidden: int = 256,
        depth: int = 2,
    ) -> None:
        super().__init__(weight=weight)
        self.attached = attached
        self.heads = {"distance": {"name": "distance", "form": form, "hidden": hidden, "depth": depth}}

    def __call__(self, encoded: Encoded) -> Tensor:
        """Scalar."""
        z = encoded.z_BTD if self.attached else encoded.z_BTD.detach()
        early, late = torch.triu_indices(z.shape[1], z.shape[1], 1, device=z.device)
        said = widened(encoded.heads["distance"](z[:, early], z[:, late]))
        return F.smooth_l1_loss(said, (late - early).to(said).expand_as(said))
