"""What goes wrong, and whose turn it is: `InputError` the caller's, `PlannerFailure` the robot's fallback."""

from __future__ import annotations


class InputError(ValueError):
    """Something given from outside cannot be used; the message says got, expected and what to do."""


class PlannerFailure(RuntimeError):
    """No plan, and no fallback that would act without one."""
