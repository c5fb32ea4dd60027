"""Data sets of our own as a source: to encode anew, to merge, to save what is intact of a damaged one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from lewm.data.formats.base import Source
from lewm.data.reader import EpisodeReader
from lewm.types import Episode, InputError


class StoreSource(Source):
    """One data set, or several of the same columns and action bounds, one after the other.

    Its episodes hold `StoredRows`, so that what keeps its codec is copied bit for bit (`np.asarray` decodes them).
    Parts of one work (the same source, no id twice) keep their ids. Else episodes are numbered anew, set after set,
    and say in their facts where they come from (`merged_from`: fingerprint and id).

    Args:
        skip_damaged: leave out episodes with any wrong checksum, and list what is wrong in `damaged` as they are
        met.

    Raises:
        InputError: the sets do not fit together, or one of them is damaged.
    """

    def __init__(self, *folders: Path | str, skip_damaged: bool = False) -> None:
        self._readers = [EpisodeReader(folder, skip_damaged=skip_damaged) for folder in folders]
        self._skip = skip_damaged
        self.damaged = [fault.text for reader in self._readers for fault in reader.faults]
        first = self._readers[0]
        for reader in self._readers[1:]:
            _check_alike(first, reader)
        same = all(reader.info.source == first.info.source for reader in self._readers)
        ids = np.concatenate([reader.ids for reader in self._readers])
        if same:
            known, counts = np.unique(ids, return_counts=True)
            if (counts > 1).any():
                raise InputError(
                    f"episode {known[counts > 1][0]} is in more than one of these sets, which come from the same "
                    "work; leave one of them out"
                )
        self._renumbered = not same
        self._ids = np.arange(len(ids)) if self._renumbered else ids
        self.columns = first.info.columns
        sources = [{"of": reader.fingerprint, **reader.info.source} for reader in self._readers]
        self.about = dict(first.info.source) if same else {"merged": sources}

    def __len__(self) -> int:
        return len(self._ids)

    def id(self, position: int) -> int:
        """The id of the episode at this position."""
        return int(self._ids[position])

    def episodes(self, first: int = 0) -> Iterator[Episode]:
        """Episodes from a position on; their columns are `StoredRows`."""
        place = 0
        for reader in self._readers:
            for position in range(len(reader)):
                if place >= first:
                    try:
                        columns = {name: reader.stored(name, position) for name in self.columns}
                        facts = reader.facts(position)
                    except InputError as error:
                        if not self._skip:
                            raise
                        self.damaged.append(str(error))
                    else:
                        if self._renumbered:
                            facts["merged_from"] = [reader.fingerprint, int(reader.ids[position])]
                        yield Episode(self.id(place), columns, facts)
                place += 1

    def action_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """As recorded."""
        info = self._readers[0].info
        return np.array(info.action_low), np.array(info.action_high)


def _check_alike(first: EpisodeReader, reader: EpisodeReader) -> None:
    for key in ("columns", "action_low", "action_high"):
        ours, theirs = asdict(first.info)[key], asdict(reader.info)[key]
        if ours != theirs:
            raise InputError(
                f"{first.folder} and {reader.folder} differ in {key} ({ours} and {theirs}); bring one to the "
                "other's with `lewm data convert`"
            )
