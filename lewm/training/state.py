"""What a run needs to go on from where it stopped, and weights averaged over steps."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from lewm.types import InputError


class Average:
    """An exponential moving average of a model's weights and running statistics.

        average <- k average + (1 - k) weights,   k = min(decay, (1 + step) / (10 + step)),

    so that it is not held back by the weights it began with (Polyak and Juditsky 1992, with the usual ramp).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after a step."""
        keep = min(self.decay, (1 + step) / (10 + step))
        for name, tensor in model.state_dict().items():
            mine = self.tensors[name]
            mine.lerp_(tensor, 1 - keep) if mine.is_floating_point() else mine.copy_(tensor)


@dataclass(frozen=True)
class TrainingState:
    """A run's weights, optimiser and average, and the file that they are saved in."""

    path: Path
    model: nn.Module
    optimiser: torch.optim.Optimizer
    average: Average | None

    def save(self, step: int) -> None:
        """Replace the file by the state after so many steps, as a whole."""
        state = {"step": step, "model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}
        state |= {"average": self.average.tensors} if self.average else {}
        temporary = self.path.with_name(f".{self.path.stem}.tmp")
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)

    def restore(self) -> int:
        """Load the file if there is one; returns the number of steps done."""
        if not self.path.exists():
            return 0
        try:
            state = torch.load(self.path, weights_only=True, map_location="cpu")
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            if self.average:
                for name, tensor in self.average.tensors.items():
                    tensor.copy_(state["average"][name])
            step = state["step"]
        except Exception as error:  # torch raises many kinds for a damaged file
            raise InputError(f"{self.path} cannot be read ({error}); delete it to train from the start") from None
        return step
