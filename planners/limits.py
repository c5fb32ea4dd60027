"""What an action may do, in raw units: bounds, and limits of its rate and acceleration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from planners.errors import InputError


@dataclass(frozen=True)
class Limits:
    """Hard limits, one number per action dimension; every candidate and every returned action keeps them.

    Attributes:
        low, high: bounds.
        std: typical spread, the scale of the search; a quarter of the range by default.
        rate: largest change from one environment step to the next; None: no limit.
        acceleration: largest change of that change; None: no limit.
    """

    low: Any
    high: Any
    std: Any = None
    rate: Any = None
    acceleration: Any = None

    @classmethod
    def of(cls, spec: Any, device: torch.device | str = "cpu") -> Limits:
        """Checked float32 tensors (A,) from anything with `low`, `high` and `std`.

        Raises:
            InputError: bounds that are not finite or not in order, limits that are not positive, other lengths.
        """

        def tensor(name: str) -> Tensor | None:
            value = getattr(spec, name, None)
            if value is None:
                return None
            return torch.as_tensor(value, dtype=torch.float32, device=device).reshape(-1)

        low, high, std, rate, acceleration = map(tensor, ("low", "high", "std", "rate", "acceleration"))
        if low is None or high is None:
            raise InputError(f"an action spec needs low and high, got {spec!r}; planners.Limits(low, high) is one")
        if low.shape != high.shape or not (low.isfinite() & high.isfinite() & (low < high)).all():
            raise InputError(f"action bounds must be finite with low < high, got {low.tolist()}, {high.tolist()}")
        std = (high - low) / 4 if std is None else std
        for name, value in (("std", std), ("rate", rate), ("acceleration", acceleration)):
            if value is not None and (value.shape != low.shape or not (value > 0).all()):
                raise InputError(f"{name} must be {len(low)} positive numbers, got {value.tolist()}")
        return cls(low, high, std, rate, acceleration)

    def project(self, actions: Tensor, past: Tensor) -> Tensor:
        """The actions (B, S, H, A), moved step by step to where they keep all limits.

        An action that would leave no way to brake before a bound is already held back. Where past actions make it
        impossible to keep all, bounds go before rate and rate before acceleration.

        Args:
            actions: raw.
            past: (B, 2, A), the actions executed before the first.
        """
        if self.rate is None and self.acceleration is None:
            return actions.clamp(self.low, self.high)
        before, last = past[:, None, 0], past[:, None, 1]
        speed, kept = last - before, []
        for action in actions.unbind(2):
            change = action - last
            up, down = self.high - last, last - self.low
            if self.acceleration is not None:
                change = change.clamp(speed - self.acceleration, speed + self.acceleration)
                up, down = self._stopping(up), self._stopping(down)
            if self.rate is not None:
                change = change.clamp(-self.rate, self.rate)
            now = (last + change.clamp(-down, up)).clamp(self.low, self.high)
            speed, last = now - last, now
            kept.append(now)
        return torch.stack(kept, dim=2)

    def _stopping(self, distance: Tensor) -> Tensor:
        """The largest change v that leaves room to brake: v + (v - a) + (v - 2 a) + ... = distance."""
        a, distance = self.acceleration, distance.clamp(min=0)
        n = ((torch.sqrt(1 + 8 * distance / a) - 1) / 2).floor()
        return n * a + (distance - n * (n + 1) / 2 * a) / (n + 1)
