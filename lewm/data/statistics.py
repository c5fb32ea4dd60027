"""Mean, spread and range of a column, in one pass and bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lewm.types import InputError

if TYPE_CHECKING:
    from lewm.data.reader import EpisodeReader

CHUNK_BYTES = 1 << 24


@dataclass(frozen=True)
class Statistics:
    """Of the rows of a column, per element: `mean`, `std`, `low`, `high` (*shape) in float64, and their `count`."""

    count: int
    mean: np.ndarray
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray


def column_statistics(reader: EpisodeReader, name: str, positions: np.ndarray) -> Statistics:
    """Over all valid rows of the episodes at these positions, in their order (row T of a transition is not valid).

    Chunks are merged by the update of Chan, Golub and LeVeque (1983), stable where a sum of squares is not.
    """
    column, positions = reader.info.columns[name], np.asarray(positions)
    if not len(positions):
        raise InputError(f"statistics of '{name}' need at least one episode of {reader.folder}")
    counts = reader.steps[positions].astype(np.int64) // column.stride + (0 if column.transition else 1)
    ends = np.cumsum(counts)
    size = int(np.prod(column.shape, dtype=np.int64))
    chunk = max(1, CHUNK_BYTES // (8 * size + 24))  # in float64, and three numbers that say where a row is
    count, mean, square = 0, np.zeros(column.shape), np.zeros(column.shape)
    low, high = np.full(column.shape, np.inf), np.full(column.shape, -np.inf)
    for first in range(0, int(ends[-1]), chunk):
        place = np.arange(first, min(first + chunk, int(ends[-1])))
        which = np.searchsorted(ends, place, side="right")
        rows = reader.gather(name, positions[which], place - (ends[which] - counts[which])).astype(np.float64)
        n, here = len(rows), rows.mean(0)
        delta = here - mean
        square += ((rows - here) ** 2).sum(0) + delta**2 * (count * n / (count + n))
        mean = mean + delta * (n / (count + n))
        count += n
        low, high = np.minimum(low, rows.min(0)), np.maximum(high, rows.max(0))
    return Statistics(count, mean, np.sqrt(square / count), low, high)
