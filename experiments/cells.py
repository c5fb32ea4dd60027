"""Measured cells of a benchmark: a log of JSON lines that a rerun completes, and what its page has in common."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.records import repair
from experiments.runs import provenance, say
from lewm.types import InputError

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Cell:
    """Something measured at once: its name, what its outcome depends on, and how it is done."""

    name: str
    settings: Mapping[str, Any]
    measure: Callable[[], Rows]


def complete(log: Path, wanted: Iterable[Cell], at_once: int = 1) -> None:
    """Measure the cells that the log lacks; one that it holds with other settings is an `InputError`.

    Args:
        at_once: cells measured at a time, in threads: for those that are processes of their own.
    """
    repair(log)
    missing = [cell for cell in wanted if not _done(cell, log)]
    if missing:
        append(log, {"made": provenance()})
    for cell, rows in _measured(missing, at_once):
        append(log, {"cell": cell.name, "settings": cell.settings, "rows": rows})


def _measured(missing: Sequence[Cell], at_once: int) -> Iterator[tuple[Cell, Rows]]:
    """Cells and what they gave, as they come; one at a time is done in this very thread."""

    def measure(cell: Cell) -> Rows:
        say(f"benchmark {cell.name}")
        return cell.measure()

    if at_once == 1:
        yield from ((cell, measure(cell)) for cell in missing)
        return
    with ThreadPoolExecutor(at_once) as pool:
        jobs = {pool.submit(measure, cell): cell for cell in missing}
        try:
            yield from ((jobs[job], job.result()) for job in as_completed(jobs))
        finally:
            pool.shutdown(cancel_futures=True)


def cells(log: Path) -> list[dict[str, Any]]:
    """The measured cells of a log."""
    return [line for line in lines(log) if "cell" in line]


def lines(log: Path) -> list[dict[str, Any]]:
    """Every line of a log; none where there is no log."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def table(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table in Markdown."""
    body = ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|", *body, ""])


def made(log: Path) -> list[str]:
    """One paragraph for each time something was measured: command, commit, versions, machine."""
    sources = [line["made"] for line in lines(log) if "made" in line]
    return [
        f"`{source['command']}`, commit {source['commit']}, python {source['versions']['python']}, "
        f"numpy {source['versions']['numpy']}, {source['machine']}.\n"
        for source in sources
    ]


def _done(cell: Cell, log: Path) -> bool:
    for found in cells(log):
        if found["cell"] == cell.name:
            if _finite(found["settings"]) != json.loads(_text(cell.settings)):
                raise InputError(
                    f"{log} holds another '{cell.name}' ({found['settings']}, now {cell.settings}); choose another "
                    "out=..., or delete it"
                )
            return True
    return False


def append(log: Path, line: Mapping[str, Any]) -> dict[str, Any]:
    """Add a line to a log, where what is no finite number, which JSON has not, is null; returns what was added."""
    text = _text(line)
    with log.open("a") as file:
        file.write(text + "\n")
    return json.loads(text)


def number(value: float | None) -> float:
    """A number as it was measured; null was not finite."""
    return math.nan if value is None else float(value)


def _text(value: Any) -> str:
    return json.dumps(_finite(value), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
