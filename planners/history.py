"""What each row saw and did lately: the real past that every plan starts from."""

from __future__ import annotations

import torch
from torch import Tensor


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
        self._frames: Tensor | None = None
        self._actions = torch.zeros(self._slots, rows, action_dim)
        self._last = torch.zeros(2, rows, action_dim)  # what limits refer to, before the first frame too
        self._time = 0

    @property
    def format(self) -> tuple[torch.dtype, torch.Size]:
        """Type and shape of one row's frame."""
        return self._frames.dtype, self._frames.shape[2:]

    def restart(self, rows: Tensor) -> None:
        """Forget these rows (indices); their next frame is their first, and they are at rest."""
        self.fresh[rows] = True
        self._last[:, rows] = 0

    def see(self, frame: Tensor, unusable: Tensor) -> None:
        """This step's frame (B, ...); an unusable one counts as the one before it.

        A fresh row pads its past with the frame and with zero actions, as in training.
        """
        if self._frames is None or self.fresh.all():
            self._frames = torch.zeros(self._slots, *frame.shape, dtype=frame.dtype, device=frame.device)
        frame = frame.to(self._frames)
        usable, now = ~unusable, self._time % self._slots
        self._frames[now] = frame
        if unusable.any():
            self._frames[now, unusable] = self._frames[now - 1, unusable]
        first = self.fresh & usable
        self._frames[:, first] = frame[first]
        self._actions[:, first] = 0

    def did(self, actions: Tensor, unusable: Tensor) -> None:
        """This step's actions (B, A), executed; ends the step."""
        self._actions[self._time % self._slots] = actions
        self._last = torch.stack([self._last[1], actions])
        self.fresh &= unusable
        self._time += 1

    def context(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (b, frames, ...) at block stride, oldest first, and the actions (b, reach, A) between them."""
        times = torch.arange(self._time - self.reach, self._time + 1)
        seen, done = times[:: self.block] % self._slots, times[:-1] % self._slots
        return self._frames[seen][:, rows].transpose(0, 1), self._actions[done][:, rows].transpose(0, 1)

    def past(self, rows: Tensor) -> Tensor:
        """The last two executed actions (b, 2, A)."""
        return self._last[:, rows].transpose(0, 1)
