"""Training windows: T observations at block stride and the action blocks between them.

With `frames=3` and `block=5`, the window that starts at step s holds

    pixels   f[s]        f[s+5]       f[s+10]
    actions     a[s..s+4]   a[s+5..s+9]     (a[s+10..s+14])

The last action block is there with `actions="each"` (stable-worldmodel's and LeWM's windows: T blocks) and not with
`actions="between"` (T-1 blocks, the default). Windows never cross episodes. `pad=p` also allows starts up to p
blocks *before* the episode: there the first observation is repeated and the actions are zero, exactly what a
controller with a history of p+1 frames sees when it has just started. Everything is raw; the model owns its
normalisers.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lewm.data.sampling import Shuffle
from lewm.data.schema import DatasetInfo
from lewm.types import InputError

SHAPES = 8  # of buffers that are kept: a few columns, and the last batch of an epoch


@dataclass(frozen=True)
class Batch:
    """B windows, everything raw.

    Attributes:
        observations: column -> (B, T, *shape), of the column's dtype.
        actions: (B, T-1, K, A) float32, or (B, T, K, A) with `actions="each"`.
        episodes: (B,) positions of the episodes in the reader.
        starts: (B,) first environment step; negative where the window begins before its episode.
    """

    observations: Mapping[str, np.ndarray]
    actions: np.ndarray
    episodes: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def pixels(self) -> np.ndarray:
        """The main camera: (B, T, h, w, C) uint8."""
        return self.observations["pixels"]


class Rows(Protocol):
    """What windows are read from: `lewm.data.EpisodeReader`, or what adds columns to one."""

    info: DatasetInfo

    @property
    def ids(self) -> np.ndarray:
        """Of the episodes (E,)."""

    @property
    def steps(self) -> np.ndarray:
        """Environment steps of each (E,)."""

    def gather(
        self, name: str, positions: np.ndarray, rows: np.ndarray, out: np.ndarray | None = None
    ) -> np.ndarray:
        """See `EpisodeReader.gather`."""


class Windows:
    """All windows of some episodes, addressed by one integer, read a batch at a time.

    The index takes 12 bytes an episode, however many windows it has. A map-style data set for torch as well:
    `windows[i]` and `windows.__getitems__([i, ...])` give dictionaries of arrays, a whole batch read at once.

    Args:
        reader: the data set, or another `Rows`.
        episodes: positions of the episodes to use (see `split_episodes`).
        frames: T, observations per window.
        block: K, environment steps between two of them.
        pad: how many blocks a window may start before its episode.
        columns: what to observe: cameras, sensors, state.
        actions: `between` the observations, or one block for `each`.
        weights: (E,) relative chance of each window of an episode; `draw` then draws with replacement.
        per_episode: windows that `draw` takes from each episode it visits (for within-trajectory objectives).
    """

    def __init__(
        self,
        reader: Rows,
        episodes: np.ndarray,
        *,
        frames: int,
        block: int,
        pad: int = 0,
        columns: Sequence[str] = ("pixels",),
        actions: str = "between",
        weights: np.ndarray | None = None,
        per_episode: int = 1,
    ) -> None:
        if frames < 1 or block < 1 or pad < 0 or per_episode < 1:
            raise InputError(
                "windows need frames, block and per_episode >= 1 and pad >= 0, got "
                f"{frames}, {block}, {per_episode}, {pad}"
            )
        if actions not in ("between", "each"):
            raise InputError(f"windows need actions 'between' or 'each', got '{actions}'")
        self.reader, self.frames, self.block, self.columns = reader, frames, block, tuple(columns)
        self.per_episode, self.blocks = per_episode, frames - (actions == "between")
        self.stride = self._common_stride()
        self.first = -pad * block
        episodes = np.asarray(episodes, np.int64)
        span = max((frames - 1) * block, self.blocks * block)
        counts = np.maximum((reader.steps[episodes] - span - self.first) // self.stride + 1, 0)
        if not counts.any():
            raise InputError(
                f"no window fits: {frames} frames {block} steps apart span {span} steps, the longest of "
                f"{len(episodes)} episodes has {reader.steps[episodes].max(initial=0)}; collect longer episodes"
            )
        used = counts >= per_episode
        if not used[counts > 0].all():
            short = int(np.argmax((counts > 0) & ~used))
            raise InputError(
                f"per_episode={per_episode} needs as many windows in each episode, episode "
                f"{reader.ids[episodes[short]]} has {counts[short]}; lower it, or leave such episodes out"
            )
        self.episodes = episodes[used].astype(np.int32)
        self._ends = np.cumsum(counts[used], dtype=np.int64)
        self._mass = None if weights is None else self._cumulate(np.asarray(weights, np.float64), episodes, used)
        self._pool = _Pool()

    def _common_stride(self) -> int:
        """Steps between two places where every observed column has a row."""
        stride = 1
        for name in self.columns:
            column = self.reader.info.columns.get(name)
            if column is None or column.transition:
                known = sorted(n for n, c in self.reader.info.columns.items() if not c.transition)
                raise InputError(f"windows observe columns such as {known}, got '{name}'")
            stride = int(np.lcm(stride, column.stride))
        if self.block % stride:
            raise InputError(
                f"this data set keeps every {stride}-th frame, so action_block must be a multiple of "
                f"{stride}, got {self.block}; collect with frame_stride=1 to train any block"
            )
        return stride

    def _cumulate(self, weights: np.ndarray, episodes: np.ndarray, used: np.ndarray) -> np.ndarray:
        if weights.shape != episodes.shape or not np.isfinite(weights).all() or (weights < 0).any():
            raise InputError(f"weights need {len(episodes)} finite numbers of at least 0, got {weights}")
        mass = np.cumsum(weights[used] * np.diff(self._ends, prepend=0))
        if not mass[-1] > 0:
            raise InputError("weights need at least one above 0 among the episodes with windows")
        return mass

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def nbytes(self) -> int:
        """Bytes of memory of the index."""
        return self.episodes.nbytes + self._ends.nbytes + (0 if self._mass is None else self._mass.nbytes)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        return self.__getitems__([index % len(self)])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, np.ndarray]]:
        """Windows as dictionaries (the observed columns and `action`), read together; torch's loader asks so."""
        batch = self.batch(np.asarray(indices))
        parts = {**batch.observations, "action": batch.actions}
        return [{name: rows[k] for name, rows in parts.items()} for k in range(len(batch))]

    def batch(self, indices: np.ndarray) -> Batch:
        """Read the windows with these indices, each in [0, len)."""
        if ((indices < 0) | (indices >= len(self))).any():
            raise IndexError(f"windows {indices} of {len(self)}")
        which = np.searchsorted(self._ends, indices, side="right")
        start = self.first + (indices - self._before(which)) * self.stride
        steps = start[:, None] + np.arange(self.frames) * self.block  # (B, T)
        acts = start[:, None] + np.arange(self.blocks * self.block)  # (B, blocks K)
        actions = self._rows("action", which, acts)
        actions[acts < 0] = 0
        blocks = (len(indices), self.blocks, self.block, actions.shape[-1])
        return Batch(
            {name: self._rows(name, which, steps) for name in self.columns},
            actions.astype(np.float32, copy=False).reshape(blocks),
            self.episodes[which],
            start,
        )

    def _before(self, which: np.ndarray) -> np.ndarray:
        """Number of windows in all episodes before these."""
        return np.where(which > 0, self._ends[which - 1], 0)

    def _rows(self, name: str, which: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Rows of a column at these steps (B, n) of the episodes `which` (B,); before the start, the first row."""
        column = self.reader.info.columns[name]
        episodes = np.broadcast_to(self.episodes[which][:, None], steps.shape)
        out = self._pool.take((steps.size, column.row_bytes))
        return self.reader.gather(name, episodes, np.maximum(steps, 0) // column.stride, out)

    def draw(self, step: int, batch_size: int, seed: int) -> Batch:
        """The batch of a training step: a function of (step, seed) alone.

        Epoch after epoch of shuffled windows; with `weights`, drawn with replacement; with `per_episode`, each of
        these followed by others of its episode, spread over it and no two the same.
        """
        if batch_size % self.per_episode:
            raise InputError(f"batch_size {batch_size} must be a multiple of per_episode {self.per_episode}")
        groups = batch_size // self.per_episode
        rng = np.random.default_rng([seed, step])
        if self._mass is None:
            indices = self._shuffled(step * groups + np.arange(groups), seed)
        else:
            which = np.searchsorted(self._mass, rng.random(groups) * self._mass[-1], side="right")
            before = self._before(which)
            indices = before + (rng.random(groups) * (self._ends[which] - before)).astype(np.int64)
        if self.per_episode > 1:
            indices = self._with_siblings(indices, rng)
        return self.batch(indices)

    def _shuffled(self, places: np.ndarray, seed: int) -> np.ndarray:
        epochs, indices = places // len(self), np.empty(len(places), np.int64)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            here = epochs == epoch
            indices[here] = Shuffle(len(self), seed, epoch)(places[here] % len(self))
        return indices

    def _with_siblings(self, indices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Each window and `per_episode` - 1 others of its episode, one from each equal part of the rest."""
        which = np.searchsorted(self._ends, indices, side="right")
        before = self._before(which)
        count, others = self._ends[which] - before, self.per_episode - 1
        edges = np.arange(others + 1) * (count - 1)[:, None] // others  # parts of at least one window each
        ahead = 1 + edges[:, :-1] + (rng.random((len(indices), others)) * np.diff(edges)).astype(np.int64)
        siblings = before[:, None] + (indices - before)[:, None] + np.pad(ahead, ((0, 0), (1, 0)))
        return (before[:, None] + (siblings - before[:, None]) % count[:, None]).reshape(-1)


class _Pool:
    """Buffers for batches, used again once nobody holds them: fresh memory costs more than decoding into old."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[int, int], list[np.ndarray]] = {}
        self._lock = threading.Lock()  # between the count and the view another thread would find the same buffer

    def __reduce__(self) -> tuple[type[_Pool], tuple[()]]:
        return _Pool, ()  # another process starts with an empty one

    def take(self, shape: tuple[int, int]) -> np.ndarray:
        """An uninitialised uint8 array. Any view of it, a torch tensor's too, keeps it from being handed out
        again."""
        with self._lock:
            buffers = self._buffers.pop(shape, [])
            self._buffers[shape] = buffers  # the shape asked for last comes last
            if len(self._buffers) > SHAPES:
                del self._buffers[next(iter(self._buffers))]
            for k in range(len(buffers)):
                if sys.getrefcount(buffers[k]) == 2:  # the list and the argument: no view is alive
                    return buffers[k].view()
            buffer = np.empty(shape, np.uint8)
            buffers.append(buffer)
            del buffers[:-4]
            return buffer.view()
