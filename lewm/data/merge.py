"""Put data sets side by side: their files are copied as they are, only the log lines change."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from lewm.data.formats.base import Tick
from lewm.data.log import Commit, log_paths, read_log
from lewm.data.reader import EpisodeReader
from lewm.data.schema import sync_folder
from lewm.data.writer import claim
from lewm.types import InputError


def merge(
    folders: Sequence[Path | str], out: Path | str, *, creator: Mapping[str, Any], tick: Tick = lambda _: None
) -> None:
    """Merge sets of the same columns and action bounds; run again after a kill it goes on.

    Parts of one work (the same source, no id twice) keep their ids; else episodes are numbered anew, set after set,
    and say in their facts where they come from (`merged_from`: fingerprint and id).

    Raises:
        InputError: the sets do not fit together, or one of them is damaged.
    """
    readers = [EpisodeReader(folder) for folder in folders]
    if len(readers) < 2:
        raise InputError("merging needs at least two data sets")
    _check(readers)
    out = Path(out)
    keep = all(reader.info.source == readers[0].info.source for reader in readers)
    if keep:
        ids, counts = np.unique(np.concatenate([reader.ids for reader in readers]), return_counts=True)
        if (counts > 1).any():
            raise InputError(
                f"episode {ids[counts > 1][0]} is in more than one of these sets, which come from the same work; "
                "leave one of them out"
            )
    source = (
        readers[0].info.source if keep else {"merged": [{"of": r.fingerprint, **r.info.source} for r in readers]}
    )
    claim(out, replace(readers[0].info, source=source, creator=creator))
    first = 0
    for number, reader in enumerate(readers):
        new = dict(zip(reader.ids.tolist(), range(first, first + len(reader)), strict=True))
        for log in log_paths(reader.folder):
            _copy_writer(reader, log, out, f"m{number:02d}-", None if keep else new, tick)
        first += len(reader)


def _check(readers: Sequence[EpisodeReader]) -> None:
    first = readers[0]
    for reader in readers[1:]:
        for key in ("columns", "action_low", "action_high"):
            ours, theirs = asdict(first.info)[key], asdict(reader.info)[key]
            if ours != theirs:
                raise InputError(
                    f"{first.folder} and {reader.folder} differ in {key} ({ours} and {theirs}); bring one to the "
                    "other's with `lewm data convert`"
                )


def _copy_writer(
    reader: EpisodeReader, log: Path, out: Path, prefix: str, ids: Mapping[int, int] | None, tick: Tick
) -> None:
    """Copy one writer's shards, then its log: its episodes are there at once or not at all."""
    commits, _ = read_log(log)
    target = out / log.name.replace("episodes-", f"episodes-{prefix}", 1)
    if not target.exists():
        for shard in sorted({commit.shard for commit in commits}):
            temporary = out / "shards" / f".{prefix}{shard}"
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.copytree(reader.folder / "shards" / shard, temporary)
            for path in temporary.iterdir():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            shutil.rmtree(out / "shards" / f"{prefix}{shard}", ignore_errors=True)
            temporary.rename(out / "shards" / f"{prefix}{shard}")
        sync_folder(out / "shards")
        lines = "".join(_renamed(commit, prefix, reader.fingerprint, ids).line() for commit in commits)
        part = target.with_suffix(".part")
        with part.open("w") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        part.rename(target)
        sync_folder(out)
    tick(len(commits))


def _renamed(commit: Commit, prefix: str, fingerprint: str, ids: Mapping[int, int] | None) -> Commit:
    commit = replace(commit, shard=f"{prefix}{commit.shard}")
    if ids is None:
        return commit
    facts = {**commit.facts, "merged_from": [fingerprint, commit.id]}
    return replace(commit, id=ids[commit.id], facts=facts)
