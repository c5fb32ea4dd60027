"""What a foreign format is to us: a way to recognise it, a stream of episodes out of it, and a way to write it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lewm.data.schema import Column
from lewm.types import Episode, InputError

if TYPE_CHECKING:
    from lewm.data.reader import EpisodeReader

Tick = Callable[[int], None]
"""Called with the number of episodes just finished."""


class Source(ABC):
    """A foreign data set opened for streaming; memory does not grow with its size.

    Attributes:
        columns: name -> Column of what `episodes` carries. Images are uint8 (h, w, C), the main camera is `pixels`;
            `action` is there, floats.
        about: JSON facts about the set for `DatasetInfo.source` (environment, fps, versions, what was left out).
    """

    columns: Mapping[str, Column]
    about: Mapping[str, Any]

    @abstractmethod
    def __len__(self) -> int:
        """Number of episodes."""

    def id(self, position: int) -> int:
        """The id of the episode at this position; the position itself unless the format has ids of its own."""
        return position

    @abstractmethod
    def episodes(self, first: int = 0) -> Iterator[Episode]:
        """Episodes `first`, `first + 1`, ... in the format's own order; their ids are these positions."""

    @abstractmethod
    def action_bounds(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Bounds (A,) the format states, in raw units; None where it states none."""

    def actions(self) -> Iterator[np.ndarray]:
        """The actions (T, A) of each episode, for formats without stated bounds; override where images can wait."""
        for episode in self.episodes():
            yield np.asarray(episode.columns["action"])


class Format(ABC):
    """One foreign format. Subclasses are registered under the kind `format`.

    Attributes:
        name: as in `lewm data convert --from NAME`.
        title: a line for the list of formats.
        extra: the extra of our distribution that brings what it needs, or None.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    extra: ClassVar[str | None] = None

    @staticmethod
    @abstractmethod
    def detect(path: Path) -> bool:
        """Whether `path` looks like this format; cheap, never raises, needs no extra where names tell."""

    @staticmethod
    def open(path: Path) -> Source:
        """Open for streaming. Raises `InputError` for what is damaged or not of this format."""
        raise NotImplementedError

    @staticmethod
    def write(reader: EpisodeReader, out: Path, *, fps: float, tick: Tick) -> None:
        """Write every episode; run again after a kill it completes `out`. A finished part is never half a file.

        Further keywords with a default are options of the format (`lewm data convert --option KEY=VALUE`).
        """
        raise NotImplementedError


def bounds_of(actions: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest action (A,) seen, widened where they are equal.

    Raises:
        InputError: no action at all, or one that is not finite.
    """
    low = high = None
    for number, rows in enumerate(actions):
        if not np.isfinite(rows).all():
            raise InputError(f"episode {number}: an action is NaN or infinite; mend or leave out that episode")
        if len(rows):
            low = rows.min(0) if low is None else np.minimum(low, rows.min(0))
            high = rows.max(0) if high is None else np.maximum(high, rows.max(0))
    if low is None:
        raise InputError("there is no action in this data set")
    same = low == high
    room = np.maximum(np.abs(low), 1) * 1e-3
    return np.where(same, low - room, low).astype(np.float64), np.where(same, high + room, high).astype(np.float64)
