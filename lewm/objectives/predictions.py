"""Prediction errors: how far imagined latents are from encoded ones. Gradient flows into both."""

from __future__ import annotations

import torch
from torch import Tensor

from lewm.objectives.encoded import Encoded
from lewm.registry import register
from lewm.types import InputError


@register("prediction", "one_step")
class OneStep:
    """|f(z_t, a_t) - z_{t+1}|^2, mean over coordinates, frames and rows: LeWM's (arXiv 2603.19312, equation 1)."""

    def __call__(self, encoded: Encoded) -> Tensor:
        """Scalar."""
        return (encoded.predicted_BLD - encoded.z_BTD[:, 1:]).square().mean()


@register("prediction", "open_loop")
class OpenLoop:
    """sum_k w_k |f^k(z_t, a_t ... a_{t+k-1}) - z_{t+k}|^2: the predictor on its own output, as a planner uses it.

    Predictions of k = 1 ... `steps` blocks from every frame of the window, w_k proportional to k^`growth`. All in
    `steps` calls: a predictor that looks at several frames is given, for the k-th, predictions of k - 1 blocks in
    the place of all of them, where a planner's oldest are real. RC-aux's
    is growth 1 (arXiv 2605.07278, whose number of steps is drawn anew for each batch).
    """

    def __init__(self, *, steps: int = 3, growth: float = 0.0) -> None:
        if steps < 1:
            raise InputError(f"open_loop needs steps >= 1, got {steps}")
        self.steps, self.growth = steps, growth

    def __call__(self, encoded: Encoded) -> Tensor:
        """Scalar; no deeper than the window."""
        z, actions = encoded.z_BTD, encoded.actions_BLE
        ahead, errors = encoded.predicted_BLD, []
        for k in range(1, min(self.steps, z.shape[1] - 1) + 1):
            if k > 1:
                ahead = encoded.predictor(ahead[:, :-1], actions[:, k - 1 :])
            errors.append((ahead - z[:, k:]).square().mean())
        weights = torch.arange(1.0, len(errors) + 1).to(z) ** self.growth
        return (torch.stack(errors) * weights).sum() / weights.sum()  # a product by @ would be half under autocast


@register("prediction", "prefixes")
class Prefixes:
    """mean_k |f(z_0, a_0 ... a_{k-1}) - z_k|^2: all horizons of the window from its first frames.

    What a `prefix` predictor answers in one call (Fast-LeWM, arXiv 2606.26217), and any other by rolling out. It
    starts from as many frames as the predictor's history can use, but at least one block is left to predict.
    """

    def __call__(self, encoded: Encoded) -> Tensor:
        """Scalar."""
        z, actions, predictor = encoded.z_BTD, encoded.actions_BLE, encoded.predictor
        seen = min(predictor.history, z.shape[1] - 1)
        observed = predictor.observe(z[:, :seen], actions[:, : seen - 1])
        imagined = predictor.rollout(observed, actions[:, None, seen - 1 :])[:, 0]
        return (imagined - z[:, seen:]).square().mean()


@register("prediction", "invariance")
class Invariance:
    """mean_v |z_v - mu|^2, mu the mean of the global views: LeJEPA on V views of a picture (arXiv 2511.08544, 5.1).

    The views stand in the place of frames, the first `global_views` of them global; nothing is predicted, and
    gradient flows into mu as well. With `sigreg`, which tests each view over the batch, it is LeJEPA, which
    minimises (1 - lambda) invariance + (lambda / V) sum_v EP_v, ours is invariance + w mean_v EP_v / N, the same
    but for a factor at w = lambda N / (1 - lambda). Its lambda of 0.05 at N = 128 is a weight of 6.7, that of 0.02
    at 256 in its minimal example 5.2. As in that example, and unlike the paper's formula, this is the mean over
    coordinates.
    """

    def __init__(self, *, global_views: int = 2) -> None:
        if global_views < 1:
            raise InputError(f"invariance needs global_views >= 1, got {global_views}")
        self.global_views = global_views

    def __call__(self, encoded: Encoded) -> Tensor:
        """Scalar."""
        z = encoded.z_BTD
        return (z - z[:, : self.global_views].mean(1, keepdim=True)).square().mean()
