"""What an objective sees of a batch, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor


class Predictor(Protocol):
    """What objectives ask of a predictor; see `lewm.models.predictors`."""

    history: int

    def __call__(self, z_BTD: Tensor, actions_BTE: Tensor) -> Tensor:
        """The latent one block after each frame."""

    def observe(self, z_BTD: Tensor, past_BTE: Tensor) -> Any:
        """What imagination starts from."""

    def rollout(self, observed: Any, future_BSLE: Tensor) -> Tensor:
        """Latents (B, S, L, D) after each block of each candidate."""


def _alone(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True)
class Encoded:
    """A batch of encoded windows and the learned modules that an objective may ask.

    Attributes:
        z_BTD: latents of T frames, one action block apart.
        actions_BLE: the L = T - 1 normalised action blocks between them.
        predictor: of the next latent.
        heads: role -> module over latents (inverse dynamics, reachability); those the objective's `heads` name.
        generator: draws this step's random numbers, on the CPU.
        episodes_B: which episode each window is of; starts_B: the block of it at which the window begins, a
            fraction where windows start between blocks.
        gather: rows of this process -> rows of all processes, with gradients; what is a statistic of the batch must
            be one of the global batch.
    """

    z_BTD: Tensor
    actions_BLE: Tensor
    predictor: Predictor
    generator: torch.Generator
    heads: Mapping[str, Any] = field(default_factory=dict)
    episodes_B: Tensor | None = None
    starts_B: Tensor | None = None
    gather: Callable[[Tensor], Tensor] = _alone

    @cached_property
    def predicted_BLD(self) -> Tensor:
        """Teacher-forced predictions of frames 1 ... L, made once for all the terms that look at them."""
        return self.predictor(self.z_BTD[:, :-1], self.actions_BLE)


@dataclass(frozen=True)
class LossTerms:
    """Scalars of one batch: `total` is minimised, `parts` say what it is made of, before their weights."""

    total: Tensor
    parts: Mapping[str, Tensor]

    @property
    def prediction(self) -> Tensor:
        """The prediction error."""
        return self.parts["prediction"]

    @property
    def regularisation(self) -> Tensor:
        """The anti-collapse statistic."""
        return self.parts["regularisation"]
