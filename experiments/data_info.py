"""What `lewm data info` prints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lewm.data import Column, EpisodeReader, split_episodes
from lewm.data.formats import Format, Source


def describe(reader: EpisodeReader) -> str:
    """A data set of ours: columns, episodes, lengths, sizes, provenance."""
    steps, info = reader.steps, reader.info
    training, validation = split_episodes(reader)
    writers = ", ".join(name.removeprefix("episodes-").removesuffix(".jsonl") for name in reader.table.logs)
    lines = [
        f"{reader.folder}  (a data set of ours, fingerprint {reader.fingerprint})",
        f"  episodes     {len(reader)} (ids {reader.ids[0]} to {reader.ids[-1]}; training {len(training)}, "
        f"validation {len(validation)}), {int(steps.sum()):,} steps",
        f"  lengths      {steps.min()} to {steps.max()} steps, median {np.median(steps):g}",
        f"  size         {reader.nbytes / 1e6:.1f} MB in {len(reader.table.shards)} shards of writers {writers}",
        f"  actions      {_range(info.action_low, info.action_high)}",
        "  columns",
        *(f"    {line}" for line in _columns(info.columns)),
    ]
    for name, column in info.columns.items():
        place, rows = reader.table.places[name], int((steps // column.stride + 1).sum())
        if column.compressed:
            stored = int((place["end"] - place["begin"]).sum())
            lines.append(
                f"  {name}: {stored / rows:,.0f} bytes a row, {column.row_bytes * rows / stored:.1f} times smaller"
            )
    lines += [f"  facts of episode {reader.ids[0]}: {_short(reader.facts(0))}", "  made from", *_tree(info.source)]
    return "\n".join([*lines, "  made by", *_tree(info.creator)])


def describe_source(path: Path, one: type[Format], source: Source) -> str:
    """A data set in another format, as it would come over."""
    lines = [f"{path}  ({one.title})", f"  episodes     {len(source)}", "  columns"]
    lines += [f"    {line}" for line in _columns(source.columns)]
    return "\n".join([*lines, "  about", *_tree(source.about)])


def _columns(columns: Mapping[str, Column]) -> list[str]:
    width = max(len(name) for name in columns)
    lines = []
    for name, column in columns.items():
        kind = "between observations" if column.transition else "at each observation"
        every = f", every {column.stride} steps" if column.stride > 1 else ""
        shape = " x ".join(str(n) for n in column.shape) or "scalar"
        lines.append(f"{name:<{width}}  {column.dtype:<8} {shape:<14} {column.codec:<8} {kind}{every}")
    return lines


def _range(low: tuple[float, ...], high: tuple[float, ...]) -> str:
    return ", ".join(f"{a:g} to {b:g}" for a, b in zip(low, high, strict=True))


def _tree(record: Mapping[str, Any]) -> list[str]:
    return [f"    {key:<14} {_short(value)}" for key, value in record.items()] or ["    nothing recorded"]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 150 else text[:147] + "..."
