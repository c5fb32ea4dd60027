"""Time of a search: how long each phase took, and how many more candidates fit before a deadline."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

import torch


class Clock:
    """Started when made. Without a deadline it only takes times, and never waits for an accelerator.

    With one, candidates are scored in chunks that grow while they are short against the deadline, and a chunk whose
    predicted end lies beyond it is not begun. The first always runs.
    """

    FIRST, RECENT, SHARE = 16, 5, 1 / 16  # first chunk; chunks a prediction looks back; of the deadline, to grow

    def __init__(self, deadline_s: float | None = None, device: torch.device | str = "cpu") -> None:
        self.deadline_s, self.hit = deadline_s, False
        self.seconds: dict[str, float] = {}
        self._longest: dict[str, float] = {}
        self._waits = deadline_s is not None and torch.device(device).type != "cpu"
        self._size, self._recent = self.FIRST, deque[tuple[int, float]](maxlen=self.RECENT)
        self._begin = self._last = time.perf_counter()

    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._begin

    def lap(self, phase: str) -> None:
        """Book the time since the last lap under `phase`."""
        now = time.perf_counter()
        spent, self._last = now - self._last, now
        self.seconds[phase] = self.seconds.get(phase, 0.0) + spent
        self._longest[phase] = max(self._longest.get(phase, 0.0), spent)

    def room(self) -> bool:
        """Whether another iteration could score at least one chunk in time."""
        if self.deadline_s is None or not self._recent or self._fits(self._size, self._longest.get("sample", 0.0)):
            return True
        self.hit = True
        return False

    def chunks(self, total: int) -> Iterator[slice]:
        """Slices of `total` candidates, all of them or as many as fit."""
        if self.deadline_s is None:
            yield slice(0, total)
            return
        start = 0
        while start < total:
            size = min(self._size, total - start)
            if self._recent and not self._fits(size):
                self.hit = True
                return
            before = self.elapsed()
            yield slice(start, start + size)
            if self._waits:
                torch.accelerator.synchronize()
            spent = self.elapsed() - before
            self._recent.append((size, spent))
            if spent < self.SHARE * self.deadline_s:
                self._size = 2 * size
            start += size

    def _fits(self, size: int, before: float = 0.0) -> bool:
        chunk = max(spent * max(1.0, size / scored) for scored, spent in self._recent)
        return self.elapsed() + before + chunk + self._longest.get("update", 0.0) <= self.deadline_s
