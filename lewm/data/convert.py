"""Bring a data set of another format into the store: streamed, resumable, one episode in memory at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lewm.data.formats.base import Source, Tick, bounds_of
from lewm.data.log import committed_ids
from lewm.data.recording import Recording, StoredRows
from lewm.data.schema import Column, DatasetInfo
from lewm.data.writer import IN_FLIGHT, EpisodeWriter
from lewm.types import Episode, InputError, nearest

GROUP_SECONDS = 1.0  # how much work a kill may cost


@dataclass(frozen=True)
class Choices:
    """What the user may decide about an import.

    Attributes:
        rename: column of the source -> name in the store.
        drop: columns (of the source) to leave out.
        codecs: column of the store -> codec.
        bounds: action bounds ((A,), (A,)) in raw units, where the format states none or wrong ones.
    """

    rename: Mapping[str, str] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    codecs: Mapping[str, str] = field(default_factory=dict)
    bounds: tuple[np.ndarray, np.ndarray] | None = None


def convert(
    source: Source, out: Path | str, choices: Choices, *, creator: Mapping[str, Any], tick: Tick = lambda _: None
) -> None:
    """Record every episode of `source` that `out` does not hold yet; run again after a kill it goes on.

    Episodes keep the source's ids, so the result is the same set however often the work was interrupted.
    """
    names = _names(source.columns, choices)
    info = _info(source, names, choices, creator)
    out = Path(out)
    with EpisodeWriter(out, info) as writer, closing(_missing(source, committed_ids(out), tick)) as episodes:
        group: list[Recording] = []
        begin = time.monotonic()
        for episode in episodes:
            recording = writer.begin(episode.id, episode.facts)
            for name, column in names.items():
                rows = episode.columns[name]
                if isinstance(rows, StoredRows) and rows.column == info.columns[column]:
                    recording.take(column, rows)
                else:
                    recording.extend(column, np.asarray(rows))
            group.append(recording)
            if len(group) == IN_FLIGHT or time.monotonic() - begin > GROUP_SECONDS:
                writer.commit(group)
                tick(len(group))
                group, begin = [], time.monotonic()
        writer.commit(group)
        tick(len(group))


def _missing(source: Source, done: set[int], tick: Tick) -> Iterator[Episode]:
    """The source's episodes that are not done; those before the first missing one are not even opened."""
    first = next((k for k in range(len(source)) if source.id(k) not in done), len(source))
    tick(first)
    for episode in source.episodes(first):
        if episode.id in done:
            tick(1)
        else:
            yield episode


def _names(columns: Mapping[str, Column], choices: Choices) -> dict[str, str]:
    """Column of the source -> its name here."""
    for name in (*choices.rename, *choices.drop):
        if name not in columns:
            raise InputError(f"the source has no column '{name}': {nearest(name, list(columns))}")
    names = {name: choices.rename.get(name, name) for name in columns if name not in choices.drop}
    twice = {name for name in names.values() if list(names.values()).count(name) > 1}
    if twice:
        raise InputError(f"two columns would be called '{min(twice)}'; rename or drop one of them")
    if "action" not in names.values():
        raise InputError(f"a data set needs a column 'action'; rename one of {sorted(names)} to it")
    for name in choices.codecs:
        if name not in names.values():
            raise InputError(f"there is no column '{name}' to encode: {nearest(name, list(names.values()))}")
    return names


def _info(source: Source, names: Mapping[str, str], choices: Choices, creator: Mapping[str, Any]) -> DatasetInfo:
    columns = {
        new: replace(source.columns[old], codec=choices.codecs.get(new, source.columns[old].codec))
        for old, new in names.items()
    }
    stated = choices.bounds or source.action_bounds()
    low, high = stated or bounds_of(source.actions())
    about = dict(source.about)
    if choices.bounds or not stated:
        about["action_bounds"] = "given" if choices.bounds else "seen in the data"
    if choices.drop or choices.rename:
        about["columns"] = {"renamed": dict(choices.rename), "dropped": list(choices.drop)}
    low, high = np.asarray(low, float), np.asarray(high, float)
    return DatasetInfo(columns, tuple(low.tolist()), tuple(high.tolist()), about, creator)
