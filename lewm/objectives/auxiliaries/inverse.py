"""Terms that ask which actions led from one latent to another: what the actions move cannot be forgotten."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lewm.objectives.auxiliaries.rows import full_precision, mean_squared_distances
from lewm.objectives.encoded import Encoded
from lewm.objectives.objective import Auxiliary
from lewm.registry import register
from lewm.types import InputError


@register("auxiliary", "inverse_dynamics")
class InverseDynamics(Auxiliary):
    """The actions of each transition, regressed from its two latents: SMWM (arXiv 2606.20104).

        mean |h(z_t, z_{t+n}) - (a_t, ..., a_{t+n-1})|^2   over coordinates of the normalised blocks, frames and
        rows

    The paper has n = 1 and no other regulariser, and a weight for each task: 0.1 (Two-Room), 1 (Cube), 5 (Reacher),
    30 (Push-T). Its losses are means over coordinates like ours, so they transfer; the default is the middle.

    Args:
        given: `both` latents, or their `difference`.
        blocks: n.
        hidden, depth: of the head `inverse`.
    """

    label = "inverse_dynamics"

    def __init__(
        self, *, weight: float = 1.0, given: str = "both", blocks: int = 1, hidden: int = 256, depth: int = 2
    ) -> None:
        super().__init__(weight=weight)
        self.blocks = blocks
        settings = {"given": given, "blocks": blocks, "hidden": hidden, "depth": depth}
        self.heads = {"inverse": {"name": "inverse", **settings}}

    def __call__(self, encoded: Encoded) -> Tensor:
        """Scalar."""
        return self.compare(*self.decoded(encoded), encoded)

    def decoded(self, encoded: Encoded) -> tuple[Tensor, Tensor]:
        """What the head says and what was done, (B, T - n, n * E) each."""
        blocks, (z, actions) = self.blocks, (encoded.z_BTD, encoded.actions_BLE)
        if z.shape[1] <= blocks:
            raise InputError(f"{self.label} over {blocks} blocks needs {blocks + 1} frames, got {z.shape[1]}")
        done = actions.unfold(1, blocks, 1).transpose(-1, -2).flatten(-2)  # (B, T - n, n, E) -> n * E
        return encoded.heads["inverse"](z[:, :-blocks], z[:, blocks:]), done

    def compare(self, said: Tensor, done: Tensor, encoded: Encoded) -> Tensor:
        """How far they are apart; scalar."""
        return F.mse_loss(said, done)


@register("auxiliary", "latent_difference")
class LatentDifference(InverseDynamics):
    """The actions regressed from the displacement of the latent alone: Delta-JEPA (arXiv 2606.31232).

        mean |h(z_{t+n} - z_t) - (a_t, ..., a_{t+n-1})|^2

    Equal actions must then move the latent alike wherever they are taken. The weight of 10 and the absence of
    another regulariser are the paper's; its decoder is a transformer with a query for each action, ours an MLP for
    all.
    """

    label = "latent_difference"

    def __init__(self, *, weight: float = 10.0, given: str = "difference", **options: Any) -> None:
        super().__init__(weight=weight, given=given, **options)


@register("auxiliary", "action_nce")
class ActionNCE(InverseDynamics):
    """Which of the batch's actions a transition was: AC-MTM (arXiv 2608.17542).

        mean_i -log softmax_j(-|h_i - a_j|^2 / (temperature * E))[i]   over all N transitions i, j of the global
        batch

    Collapsed latents say the same of all transitions and score log N at best, not 0. Actions that occur often in a
    batch have equals among their negatives, which raises the best score but moves no optimum. Weight and
    temperature are the paper's.
    """

    label = "action_nce"

    def __init__(self, *, weight: float = 0.3, temperature: float = 0.1, **options: Any) -> None:
        super().__init__(weight=weight, **options)
        if not temperature > 0:
            raise InputError(f"{self.label} needs temperature > 0, got {temperature}")
        self.temperature = temperature

    def compare(self, said: Tensor, done: Tensor, encoded: Encoded) -> Tensor:
        """Cross-entropy of the diagonal."""
        with full_precision(said):
            said_NE, done_NE = (encoded.gather(x).flatten(0, 1) for x in (said, done))
            logits = mean_squared_distances(said_NE, done_NE) / -self.temperature
            return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))
