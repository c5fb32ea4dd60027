"""Evidence: one JSON line per evaluated episode."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lewm.types import InputError


@dataclass(frozen=True)
class EpisodeRecord:
    """What happened on one pair under one policy. Holds nothing that depends on the machine's speed.

    Attributes:
        policy: name of the agent, `model` or another.
        pair: index into the pairs; detour, start, goal: of that pair.
        success_final: at the goal when the budget ended; success_ever: at any step.
        first_success: step of the first success, or None.
        states: visited states, one per step, start included.
        seed: of the evaluation; the row's own follows from it and the pair.
        presolved: whether the pair was at its goal from the start, which only the `paper` track allows.
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
    presolved: bool = False

    @property
    def key(self) -> tuple[str, int, int]:
        """(policy, seed, pair): which episode this is."""
        return (self.policy, self.seed, self.pair)


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
    if len({record.key for record in records}) != len(records):
        raise InputError(f"{path} holds an episode twice; delete it and evaluate again")
    return records


def read_all(folder: Path) -> list[EpisodeRecord]:
    """The records of a folder's `episodes.jsonl` and of its workers' logs, each episode once."""
    found = {record.key: record for path in _logs(folder) for record in read(path)}
    return list(found.values())


class Tail:
    """Reads a folder's logs as they grow: `new()` gives the records since the last call."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}  # bytes of each log

    def new(self) -> list[EpisodeRecord]:
        """Records of whole lines that were not there before."""
        found = []
        for path in _logs(self._folder):
            if path.exists():
                with path.open("rb") as file:
                    file.seek(self._read.get(path, 0))
                    lines, _, _ = file.read().rpartition(b"\n")
                if lines:
                    self._read[path] = self._read.get(path, 0) + len(lines) + 1
                    found += [EpisodeRecord(**json.loads(line)) for line in lines.splitlines()]
        return found


def merge(folder: Path, order: Sequence[tuple[str, int]]) -> list[EpisodeRecord]:
    """Make one log of all, by agent and seed in this order (others behind them), then pair; returns its records."""
    places = {which: place for place, which in enumerate(order)}

    def place(record: EpisodeRecord) -> tuple:
        which = (record.policy, record.seed)
        return (places.get(which, len(places)), which, record.pair)

    records, log = sorted(read_all(folder), key=place), folder / "episodes.jsonl"
    if records != read(log):
        temporary = folder / ".episodes.tmp"
        temporary.unlink(missing_ok=True)
        append(temporary, records)
        temporary.replace(log)
    for path in _logs(folder)[1:]:
        path.unlink()
    return records


def _logs(folder: Path) -> list[Path]:
    return [folder / "episodes.jsonl", *sorted(folder.glob("episodes-*.jsonl"))]
