"""What a model observes: of a task's states, and of recorded episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs import GoalTask
from lewm.data import EpisodeReader
from lewm.models import WorldModel
from lewm.models.observations import Sensor, is_image
from lewm.types import InputError
from planners.observations import each

STATISTICS_FRAMES = 256
DARKEST = 0.02  # standard deviation of a channel that hardly varies
CONSTANT = 1e-6  # below this share of its size the elements of a vector do not vary, and are not scaled


def columns_of(encoder: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns that an encoder with these settings observes."""
    parts = encoder.get("parts")
    return tuple(parts) if isinstance(parts, Mapping) else ("pixels",)


def observe(task: GoalTask, states: np.ndarray, columns: Sequence[str]) -> np.ndarray | dict[str, np.ndarray]:
    """What is seen of states (B, s): images (B, h, w, 3) for `pixels` alone, else column -> rows (B, ...)."""
    if tuple(columns) == ("pixels",):
        return task.draw(states)
    sensed = {"state": states, **task.sense(states)}
    return {column: task.draw(states) if column == "pixels" else sensed[column] for column in columns}


def encode(model: WorldModel, task: GoalTask, states: np.ndarray) -> Tensor:
    """Latents (B, D) of what is seen of states (B, s)."""
    return model.encode(each(torch.from_numpy, observe(task, states, model.columns)))


def recorded(
    reader: EpisodeReader, columns: Sequence[str], episodes: np.ndarray, steps: np.ndarray
) -> dict[str, np.ndarray]:
    """Rows of these columns at environment steps (n,) of the episodes at these positions (n,)."""
    strides = {column: reader.info.columns[column].stride for column in columns}
    return {column: reader.gather(column, episodes, steps // stride) for column, stride in strides.items()}


def sensors(reader: EpisodeReader, episodes: np.ndarray, columns: Sequence[str]) -> dict[str, Sensor]:
    """Shape and statistics of the columns beside `pixels`, over the episodes at these positions."""
    found = {}
    for name in columns:
        column = reader.info.columns.get(name)
        if column is None or column.transition:
            known = sorted(n for n, c in reader.info.columns.items() if not c.transition)
            raise InputError(f"{reader.folder} holds the columns {known}, the model is to observe '{name}'")
        if name == "pixels":
            continue
        if is_image(column.shape):
            mean, std = image_statistics(reader, episodes, name)
        else:
            statistics = reader.statistics(name, episodes)
            mean, spread = statistics.mean.ravel(), statistics.std.ravel()
            std = np.where(spread > CONSTANT * np.maximum(1, np.abs(mean)), spread, 1.0)
        found[name] = Sensor(column.shape, tuple(mean.tolist()), tuple(std.tolist()))
    return found


def image_statistics(
    reader: EpisodeReader, episodes: np.ndarray, name: str = "pixels"
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the channels over some frames of these episodes, of pixels in [0, 1]."""
    rng = np.random.default_rng(0)
    chosen = rng.choice(episodes, STATISTICS_FRAMES)
    stride = reader.info.columns[name].stride
    frames = reader.gather(name, chosen, rng.integers(0, reader.steps[chosen] // stride + 1))
    counts = np.zeros(3 * 256, np.int64)  # of each value, channel after channel
    for frame in frames:
        counts += np.bincount((frame + 256 * np.arange(3)).ravel(), minlength=len(counts))
    share, levels = counts.reshape(3, 256) / (frames.size / 3), np.arange(256) / 255
    mean = share @ levels
    std = np.maximum(np.sqrt((share * (levels - mean[:, None]) ** 2).sum(1)), DARKEST)
    return mean.round(4), std.round(4)
