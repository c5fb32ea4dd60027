"""Whose fault is a failed pair? It is planned again with one part exchanged at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from experiments.evaluate.agents import Agent, Planning, Trained
from experiments.evaluate.oracles import LatentOracle, StateOracle
from lewm import registry

SAMPLES, ITERATIONS = 4, 2  # times as many, of the larger search
GROWS = {"samples": SAMPLES, "elites": SAMPLES, "iterations": ITERATIONS, "warm_iterations": ITERATIONS}

# In the order they are tried: the first that brings the pair to its goal names the part.
EXCHANGES = {
    "chance": "the same again, with another seed",
    "search": f"{SAMPLES}x the samples, {ITERATIONS}x the iterations",
    "predictor": "the true simulator imagines, our latent cost judges",
    "cost": "the true simulator imagines, the task's own distance judges",
}
BEYOND = "beyond"  # none of them does

ADVICE = {
    "search": "Search more first: a larger search takes {n} of {looked} failed pairs to their goals.",
    "predictor": "Mend the predictor first: {n} of {looked} failed pairs reach their goals with the true simulator "
    "in its place, under the same latent cost.",
    "cost": "Mend the cost or the representation first: {n} of {looked} failed pairs reach their goals only when "
    "true distances replace latent ones.",
    BEYOND: "Look at the task first: {n} of {looked} failed pairs fail with the true simulator and true distances, "
    "too; budget, horizon or search do not suffice.",
    "chance": "No part stands out: another seed of the same search is all that {n} of {looked} failed pairs need.",
}


def larger(planner: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a planner that searches more; of a chain, all its planners do."""
    spec = {**registry.defaults("planner", planner["name"]), **planner}

    def grown(key: str, value: Any) -> Any:
        if isinstance(value, Mapping) and value.get("name") in registry.names("planner"):
            return larger(value)
        if key == "schedule":
            return [SAMPLES * samples for samples in value]
        return value * GROWS[key] if key in GROWS and value is not None else value

    return {key: grown(key, value) for key, value in spec.items()}


def exchanges(trained: Trained) -> dict[str, Agent]:
    """The agents of `EXCHANGES`."""
    return {
        "chance": Planning(trained),
        "search": Planning(replace(trained, planner=larger(trained.planner))),
        "predictor": LatentOracle(trained),
        "cost": StateOracle(trained),
    }


def blame(reaches: Callable[[str], bool]) -> dict[str, Any]:
    """Which part a failed pair is put down to, and what was tried for it.

    Args:
        reaches: whether the pair comes to its goal under an exchange of `EXCHANGES`.
    """
    tried: dict[str, bool] = {}
    for name in EXCHANGES:
        tried[name] = reaches(name)
        if tried[name]:
            return {"blame": name, "tried": tried}
    return {"blame": BEYOND, "tried": tried}


def count(lines: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many failed pairs each part is blamed for."""
    return {name: sum(line["blame"] == name for line in lines) for name in (*EXCHANGES, BEYOND)}


def verdict(counts: Mapping[str, int], failed: int, total: int) -> tuple[str | None, str]:
    """The part to mend first, and a sentence that says why.

    Args:
        counts: of `count`; failed: pairs that failed, of `total`.
    """
    if not failed:
        return None, f"Nothing to mend here: all {total} pairs reach their goals. Ask for harder ones."
    looked = sum(counts.values())
    if not looked:
        return None, f"{failed} of {total} pairs fail, and none was planned again: failures=10 says why."
    order = ("search", "predictor", "cost", BEYOND, "chance")  # of equals, the first
    first = max(order, key=lambda name: counts[name])
    advice = ADVICE[first].format(n=counts[first], looked=looked)
    rest = ", ".join(f"{name} {counts[name]}" for name in order if name != first and counts[name])
    few = " Too few to be sure." if looked < 10 else ""
    return first, f"{advice}{f' The others: {rest}.' if rest else ''}{few}"
