"""Planners, costs and proposals by name, so that a model can recommend them in plain JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from planners.cem import CEM, ICEM, CategoricalCEM
from planners.chain import Chain
from planners.costs import Effort, GoalDistance, RateExcess, Smoothness, Sum
from planners.errors import InputError
from planners.gradient import LBFGS, Adam
from planners.mppi import MPPI
from planners.predictive import PredictiveSampling
from planners.proposals import Categorical, Coloured, Kernel, PowerLaw, Spline, White

PLANNERS: dict[str, Callable[..., Any]] = {
    "cem": CEM,
    "icem": ICEM,
    "categorical_cem": CategoricalCEM,
    "mppi": MPPI,
    "predictive_sampling": PredictiveSampling,
    "adam": Adam,
    "lbfgs": LBFGS,
    "chain": Chain,
}
COSTS: dict[str, Callable[..., Any]] = {
    "goal_distance": GoalDistance,
    "effort": Effort,
    "smoothness": Smoothness,
    "rate_excess": RateExcess,
    "sum": Sum,
}
PROPOSALS: dict[str, Callable[..., Any]] = {
    "white": White,
    "coloured": Coloured,
    "power_law": PowerLaw,
    "spline": Spline,
    "kernel": Kernel,
    "categorical": Categorical,
}
KINDS = {"planner": PLANNERS, "cost": COSTS, "proposal": PROPOSALS}


def recommended(kind: str, spec: Mapping[str, Any]) -> Any:
    """Build `{"name": ..., **keywords}`; a keyword may hold parts itself. Nothing outside `KINDS` can be named."""
    table, keywords = KINDS[kind], dict(spec)
    name = keywords.pop("name", None)
    if name not in table:
        raise InputError(f"the model recommends {kind} '{name}', known: {', '.join(table)}; pass {kind}=...")

    def inner(key: str, value: Any) -> Any:
        if isinstance(value, Mapping) and "name" in value:
            return recommended(key if key in KINDS else kind, value)
        return [inner(key, v) for v in value] if isinstance(value, list | tuple) else value

    try:
        return table[name](**{key: inner(key, value) for key, value in keywords.items()})
    except TypeError as error:
        raise InputError(f"the model recommends settings this {kind} '{name}' does not have ({error})") from None
