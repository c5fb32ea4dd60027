"""What each row saw and did lately: the real past that every plan starts from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from planners.observations import each


class History:
    """Ring buffers of the last frames, one per environment step, and of the actions executed after them.

        time        t-4   t-3   t-2   t-1    t          block 2, three frames of context
        frames       *           *           *          what `context` returns
        actions      a     a     a     a                between them

    A step is `see`, then `did`; `see` again without `did` replaces the frame, so a refused call leaves no trace.

    Args:
        rows: B; action_dim: A.
        frames: of a context; block: environment steps between two of them.
    """

    def __init__(self, rows: int, action_dim: int, frames: int, block: int) -> None:
        self.reach, self.block = (frames - 1) * block, block
        self.fresh = torch.ones(rows, dtype=torch.bool)  # rows whose next frame is their first
        self._slots = max(self.reach, 1) + 1
        self._frames: Any = None  # (slots, B, ...), or name -> such
        self._actions = torch.zeros(self._slots, rows, action_dim)
        self._last = torch.zeros(2, rows, action_dim)  # what limits refer to, before the first frame too
        self._time = 0

    @property
    def format(self) -> Any:
        """Type and shape of one row's frame, as `observations.formats`."""
        return each(lambda slots: (slots.dtype, slots.shape[2:]), self._frames)

    def restart(self, rows: Tensor) -> None:
        """Forget these rows (indices); their next frame is their first, and they are at rest."""
        self.fresh[rows] = True
        self._last[:, rows] = 0

    def see(self, frame: Any, unusable: Tensor) -> None:
        """This step's frame (B, ...), or name -> such; an unusable one counts as the one before it.

        A fresh row pads its past with the frame and with zero actions, as in training.
        """
        if self._frames is None or self.fresh.all():
            self._frames = each(lambda part: part.new_zeros(self._slots, *part.shape), frame)
        now, first = self._time % self._slots, self.fresh & ~unusable

        def store(slots: Tensor, part: Tensor) -> None:
            slots[now] = part.to(slots)
            if unusable.any():
                slots[now, unusable] = slots[now - 1, unusable]
            slots[:, first] = slots[now, first]

        each(store, self._frames, frame)
        self._actions[:, first] = 0

    def did(self, actions: Tensor, unusable: Tensor) -> None:
        """This step's actions (B, A), executed; ends the step."""
        self._actions[self._time % self._slots] = actions
        self._last = torch.stack([self._last[1], actions])
        self.fresh &= unusable
        self._time += 1

    def context(self, rows: Tensor) -> tuple[Any, Tensor]:
        """Frames (b, frames, ...) at block stride, oldest first, and the actions (b, reach, A) between them."""
        times = torch.arange(self._time - self.reach, self._time + 1)
        seen, done = times[:: self.block] % self._slots, times[:-1] % self._slots
        frames = each(lambda slots: slots[seen][:, rows].transpose(0, 1), self._frames)
        return frames, self._actions[done][:, rows].transpose(0, 1)

    def past(self, rows: Tensor) -> Tensor:
        """The last two executed actions (b, 2, A)."""
        return self._last[:, rows].transpose(0, 1)
