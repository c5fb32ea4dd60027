"""Evidence: one JSON line per evaluated episode, and the summary recomputed from those lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from lewm.types import InputError


@dataclass(frozen=True)
class EpisodeRecord:
    """What happened on one pair under one policy. Holds nothing that depends on the machine's speed.

    Attributes:
        policy: `model`, or the name of a floor.
        pair: index into the pairs; detour, start, goal: of that pair.
        success_final: at the goal when the budget ended; success_ever: at any step.
        first_success: step of the first success, or None.
        states: visited states, one per step, start included.
        seed: of the policy's randomness.
    """

    policy: str
    pair: int
    detour: bool
    start: list[float]
    goal: list[float]
    success_final: bool
    success_ever: bool
    first_success: int | None
    states: list[list[float]]
    seed: int


def append(path: Path, records: Sequence[EpisodeRecord]) -> None:
    """Add records to a JSONL file."""
    with path.open("a") as file:
        file.write("".join(json.dumps(asdict(record)) + "\n" for record in records))


def repair(path: Path) -> None:
    """Cut a torn last line off; for the one process that writes the file."""
    if path.exists():
        data = path.read_bytes()
        with path.open("r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)


def read(path: Path) -> list[EpisodeRecord]:
    """All records of a JSONL file, without a torn last line; two lines of one episode are an error."""
    if not path.exists():
        return []
    text = path.read_text()
    try:
        records = [EpisodeRecord(**json.loads(line)) for line in text[: text.rfind("\n") + 1].splitlines()]
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} holds a line that is not an episode record: {error}") from None
    seen = {(record.policy, record.pair) for record in records}
    if len(seen) != len(records):
        raise InputError(f"{path} holds an episode twice; delete it and evaluate again")
    return records


def wilson(successes: int, count: int) -> list[float]:
    """95 % Wilson score interval of a success rate."""
    interval = binomtest(successes, count).proportion_ci(0.95, method="wilson")
    return [round(float(interval.low), 4), round(float(interval.high), 4)]


def rates(records: Sequence[EpisodeRecord], prefix: str) -> dict[str, Any]:
    """`<prefix>_final`, `_ever`, and `_final_interval` of these episodes; None where there are none."""
    count = len(records)
    if not count:
        return {f"{prefix}_final": None, f"{prefix}_ever": None, f"{prefix}_final_interval": None}
    final = sum(record.success_final for record in records)
    return {
        f"{prefix}_final": round(final / count, 4),
        f"{prefix}_ever": round(sum(record.success_ever for record in records) / count, 4),
        f"{prefix}_final_interval": wilson(final, count),
    }


def summarise(records: Sequence[EpisodeRecord]) -> dict[str, Any]:
    """Success of the model and of each floor, over all pairs and over the `detour` ones."""
    summary: dict[str, Any] = {}
    for policy in dict.fromkeys(record.policy for record in records):
        mine = [record for record in records if record.policy == policy]
        around = [record for record in mine if record.detour]
        names = ("success", "detour") if policy == "model" else (policy, f"{policy}_detour")
        summary |= rates(mine, names[0]) | rates(around, names[1])
    model = [record for record in records if record.policy == "model"]
    return {"n": len(model), "n_detour": sum(record.detour for record in model), **summary}
