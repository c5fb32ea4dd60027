"""What every package may share: errors, an episode, an action specification. Numpy only.

Axis legend, used as suffixes wherever a tensor changes rank (`z_BTD`):

    B rows (environments)   S candidate sequences   T time (frames or blocks)   H planning horizon (env steps)
    D latent dimension      A action dimension      K env steps per action block
    N flattened batch       h, w, C image height, width, channels

Outside the world model everything is raw: uint8 pixels, actions in the environment's own units.
An action at row t acts between observation t and t+1; an episode of T steps has T+1 observations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import numpy as np


class InputError(ValueError):
    """Something given from outside cannot be used; the message says got, expected and what to do."""


def nearest(name: str, known: list[str]) -> str:
    """A suggestion for a misspelt name: `did you mean 'x'?` or the list of what exists."""
    match = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean '{match[0]}'?" if match else f"known: {', '.join(sorted(known)) or 'none'}"


@dataclass(frozen=True)
class ActionSpec:
    """Bounds of one action in raw units, and the spread of the actions seen in the data.

    Attributes: `low`, `high`, `mean`, `std` are float32 arrays of shape (A,).
    """

    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    def __post_init__(self) -> None:
        for name in ("low", "high", "mean", "std"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float32).reshape(-1))
        sizes = {name: getattr(self, name).shape[0] for name in ("low", "high", "mean", "std")}
        if len(set(sizes.values())) != 1:
            raise InputError(f"an action spec needs arrays of one length, got {sizes}")
        if not (np.isfinite(self.low).all() and np.isfinite(self.high).all() and (self.low < self.high).all()):
            raise InputError(f"action bounds must be finite with low < high, got {self.low} and {self.high}")

    @property
    def dim(self) -> int:
        """Number of action dimensions A."""
        return self.low.shape[0]


@dataclass(frozen=True)
class Episode:
    """One recorded trajectory of T environment steps.

    `id` names the work item that made it. `columns` maps a name to an array of rows: `pixels` (uint8, every
    `frame_stride`-th observation), `action` (T, A) and whatever else was recorded at each of the T+1
    observations. `facts` are JSON values about the whole episode (seed, policy, success).
    """

    id: int
    columns: Mapping[str, np.ndarray]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Number of environment steps T."""
        return len(self.columns["action"])
