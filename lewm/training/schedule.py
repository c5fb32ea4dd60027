"""Learning-rate schedules: functions of the step, never of the clock."""

from __future__ import annotations

import math


def warmup_cosine(step: int, steps: int, warmup: int, final: float = 0.0) -> float:
    """Factor in (0, 1]: linear over the first `warmup` steps, then half a cosine down to `final` at `steps`."""
    if step < warmup:
        return (step + 1) / warmup
    cosine = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
    return final + (1 - final) * cosine
