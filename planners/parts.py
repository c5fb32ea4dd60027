"""Planners and costs by name, so that a model can recommend them in plain JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from planners.cem import CEM
from planners.costs import GoalDistance
from planners.types import InputError

PLANNERS: dict[str, Callable[..., Any]] = {"cem": CEM}
COSTS: dict[str, Callable[..., Any]] = {"goal_distance": GoalDistance}


def recommended(table: Mapping[str, Callable[..., Any]], spec: Mapping[str, Any], kind: str) -> Any:
    """Build `{"name": ..., **keywords}` from a table; nothing outside the table can be named."""
    keywords = dict(spec)
    name = keywords.pop("name", None)
    if name not in table:
        raise InputError(f"the model recommends {kind} '{name}', known: {', '.join(table)}; pass {kind}=...")
    try:
        return table[name](**keywords)
    except TypeError as error:
        raise InputError(f"the model recommends settings this {kind} '{name}' does not have ({error})") from None
