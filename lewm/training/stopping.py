"""Being asked to stop: finish the step, save, and leave with the code that schedulers know."""

from __future__ import annotations

import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):
    """Training stopped as it was asked to, and saved its state.

    Attributes:
        code: what the process should exit with: 128 + signal as a shell says it, 143 for SIGTERM and 130 for SIGINT.
    """

    def __init__(self, number: int, step: int) -> None:
        super().__init__(
            f"stopped by {signal.Signals(number).name} after step {step}, state saved; the same command goes on from there"
        )
        self.code = 128 + number


class StopRequest:
    """Notes SIGTERM and SIGINT instead of dying of them, while it is entered in the main thread.

    A second SIGINT has its old meaning. A second SIGTERM has none, for schedulers and launchers each send one.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or number
        signal.signal(signal.SIGINT, self._before[signal.SIGINT])
