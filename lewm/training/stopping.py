"""Being asked to stop: finish the step, save, and leave with the code that schedulers know."""

from __future__ import annotations

import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(SystemExit):
    """Training stopped as it was asked to, and saved its state.

    Uncaught, it ends the process with 128 + the signal's number, as in a shell: 143 for SIGTERM, 130 for SIGINT.
    """

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(128 + number)


class StopRequest:
    """Notes SIGTERM and SIGINT instead of dying of them, while it is entered in the main thread.

    A second SIGINT has its old meaning. A second SIGTERM has none, for schedulers and launchers each send one.
    """

    def __init__(self) -> None:
        self.number: signal.Signals | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or signal.Signals(number)
        signal.signal(signal.SIGINT, self._before[signal.SIGINT])
