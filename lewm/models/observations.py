"""What a model observes: one camera, or several columns by name; each with the statistics that standardise it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lewm.types import InputError

Observations = Tensor | Mapping[str, Tensor]  # a bare tensor is the main camera, `pixels`
MAIN = "pixels"


def is_image(shape: Sequence[int]) -> bool:
    """Whether rows of this shape are uint8 images, (h, w, 3); all others are vectors, flattened."""
    return len(shape) == 3 and shape[-1] == 3


@dataclass(frozen=True)
class Sensor:
    """A column that a model may observe beside `pixels`: another camera, proprioception, forces.

    Attributes:
        shape: of a row.
        mean, std: of the training data, per element, or per channel of images scaled to [0, 1].
    """

    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("shape", "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        size = 3 if is_image(self.shape) else math.prod(self.shape)
        if not (len(self.mean) == len(self.std) == size > 0 and min(self.std) > 0):
            raise InputError(
                f"a sensor of shape {self.shape} needs {size} means and as many standard deviations above 0, got "
                f"{list(self.mean)} and {list(self.std)}"
            )


class Standardise(nn.Module):
    """Raw rows of a column -> what an encoder takes: zero mean and unit variance over the training data."""

    def __init__(self, sensor: Sensor) -> None:
        super().__init__()
        shape = (3, 1, 1) if is_image(sensor.shape) else (-1,)
        self.register_buffer("mean", torch.tensor(sensor.mean).view(shape))
        self.register_buffer("std", torch.tensor(sensor.std).view(shape))

    def forward(self, rows: Tensor) -> Tensor:
        """(N, h, w, 3) uint8 -> (N, 3, h, w), or (N, length) -> (N, length)."""
        return standardise(rows, self.mean, self.std)


def standardise(rows: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """See `Standardise`; an image's statistics have the shape (3, 1, 1)."""
    if mean.ndim == 3:
        rows = rows.permute(0, 3, 1, 2) / 255.0  # a channels-last view: no copy
    return (rows - mean) / std


def flatten(
    observations: Observations, shapes: Mapping[str, Sequence[int]]
) -> tuple[tuple[int, ...], dict[str, Tensor]]:
    """Leading axes, and the columns of these shapes: images (N, h, w, 3) uint8, vectors (N, length) float32.

    What else was observed is left out.

    Raises:
        InputError: a column is missing, of another dtype or shape, or its leading axes differ from another's.
    """
    given = {MAIN: observations} if isinstance(observations, Tensor) else observations
    missing = sorted(set(shapes) - set(given))
    if missing:
        raise InputError(f"this model observes {sorted(shapes)}, got {sorted(given)}: {missing} missing")
    leading: dict[str, tuple[int, ...]] = {}
    rows = {}
    for column, shape in shapes.items():
        values = given[column]
        axes, image = values.ndim - len(shape), is_image(shape)
        typed = values.dtype == torch.uint8 if image else not values.is_complex()
        if axes < 0 or tuple(values.shape[axes:]) != tuple(shape) or not typed:
            kind = "uint8 images" if image else "real vectors"
            raise InputError(
                f"this model takes {kind} of shape (..., {', '.join(map(str, shape))}) as {column}, got "
                f"{values.dtype} {tuple(values.shape)}; resize or convert it to what was recorded for training"
            )
        leading[column] = tuple(values.shape[:axes])
        rows[column] = values.reshape(-1, *shape) if image else values.reshape(-1, math.prod(shape)).float()
    if len(set(leading.values())) > 1:
        raise InputError(f"columns of one observation need the same leading axes, got {leading}")
    return next(iter(leading.values())), rows
