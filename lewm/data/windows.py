"""Training windows: T frames at block stride and the action blocks between them.

With `frames=3` and `block=5`, the window that starts at step s holds

    pixels   f[s]        f[s+5]       f[s+10]
    actions     a[s..s+4]   a[s+5..s+9]

Windows never cross episodes. `pad=p` also allows starts up to p blocks *before* the episode: there the first
frame is repeated and the actions are zero, exactly what a controller with a history of p+1 frames sees when it
has just started. Everything is raw; the model owns its normalisers.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from lewm.data.reader import EpisodeReader
from lewm.types import InputError


@dataclass(frozen=True)
class Batch:
    """Windows: `pixels` (B, T, h, w, C) uint8 and `actions` (B, T-1, K, A) float32, both raw."""

    pixels: np.ndarray
    actions: np.ndarray


def split_episodes(reader: EpisodeReader, validation: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Positions of (training, validation) episodes, decided by a hash of each id: stable as the set grows.

    Where the hash would leave one side empty, an episode changes sides; a single one serves as both.
    """
    if not 0 <= validation < 1:
        raise InputError(f"the share held out for validation must be in [0, 1), got {validation}")
    held = np.array([zlib.crc32(f"split {i}".encode()) / 2**32 < validation for i in reader.ids])
    if validation > 0 and not held.any():
        held[-1] = True
    if len(held) == 1:
        return np.zeros(1, int), np.zeros(1, int)
    if held.all():
        held[0] = False
    return np.flatnonzero(~held), np.flatnonzero(held)


class Windows:
    """All windows of some episodes, addressed by one integer, read a batch at a time.

    Args:
        reader: the data set.
        episodes: positions of the episodes to use (see `split_episodes`).
        frames: T, frames per window.
        block: K, environment steps between two frames.
        pad: how many blocks a window may start before its episode.
    """

    def __init__(
        self, reader: EpisodeReader, episodes: np.ndarray, *, frames: int, block: int, pad: int = 0
    ) -> None:
        self.reader, self.episodes, self.frames, self.block = reader, np.asarray(episodes), frames, block
        if frames < 1 or block < 1 or pad < 0:
            raise InputError(f"windows need frames and block >= 1 and pad >= 0, got {frames}, {block}, {pad}")
        self.stride = reader.info.columns["pixels"].stride
        if block % self.stride:
            raise InputError(
                f"this data set keeps every {self.stride}-th frame, so action_block must be a multiple of "
                f"{self.stride}, got {block}; collect with frame_stride=1 to train any block"
            )
        self.first = -pad * block
        steps = reader.steps[self.episodes]
        starts = (steps - (frames - 1) * block - self.first) // self.stride + 1
        self._ends = np.cumsum(np.maximum(starts, 0))
        self._shuffle: tuple[tuple[int, int], np.ndarray] = ((-1, -1), np.empty(0, int))
        if not len(self):
            raise InputError(
                f"no window fits: {frames} frames {block} steps apart span {(frames - 1) * block} steps, "
                f"the longest of {len(steps)} episodes has {steps.max(initial=0)}; collect longer episodes"
            )

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def batch(self, indices: np.ndarray) -> Batch:
        """Read the windows with these indices, each in [0, len)."""
        which = np.searchsorted(self._ends, indices, side="right")
        before = np.where(which > 0, self._ends[which - 1], 0)
        start = self.first + (indices - before) * self.stride
        steps = start[:, None] + np.arange(self.frames) * self.block  # (B, T)
        acts = start[:, None] + np.arange((self.frames - 1) * self.block)  # (B, (T-1) K)
        actions = self._rows("action", which, acts)
        actions[acts < 0] = 0
        return Batch(
            self._rows("pixels", which, steps),
            actions.reshape(len(indices), self.frames - 1, self.block, actions.shape[-1]),
        )

    def _order(self, seed: int, epoch: int) -> np.ndarray:
        """The shuffle of an epoch; the last one is kept, since a permutation costs more than a batch."""
        if self._shuffle[0] != (seed, epoch):
            self._shuffle = ((seed, epoch), np.random.default_rng([seed, epoch]).permutation(len(self)))
        return self._shuffle[1]

    def _rows(self, name: str, which: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Rows of a column at these steps (B, n) of the episodes `which` (B,); before the start, the first row."""
        episodes = np.broadcast_to(self.episodes[which][:, None], steps.shape)
        return self.reader.gather(name, episodes, np.maximum(steps, 0) // self.reader.info.columns[name].stride)

    def draw(self, step: int, batch_size: int, seed: int) -> Batch:
        """The batch of a training step: epoch after epoch of shuffled windows, a function of (step, seed) alone."""
        place = step * batch_size + np.arange(batch_size)
        epochs = place // len(self)
        indices = np.empty(batch_size, np.int64)
        for epoch in np.unique(epochs):
            indices[epochs == epoch] = self._order(seed, int(epoch))[place[epochs == epoch] % len(self)]
        return self.batch(indices)
