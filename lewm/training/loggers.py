"""Where metrics go: metrics.jsonl and metrics.csv always, TensorBoard and Weights & Biases on request."""

from __future__ import annotations

import csv
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lewm.extras import need
from lewm.registry import part, register


class Logger(Protocol):
    """Takes the metrics of logged steps, in order."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """One line."""

    def close(self) -> None:
        """Nothing comes any more."""


class Metrics:
    """metrics.jsonl, one JSON object per logged step, and metrics.csv, the same as a table.

    Lines after step `first`, from which a run goes on, are dropped.
    """

    def __init__(self, run: Path, first: int) -> None:
        path = run / "metrics.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= first]
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text("".join(kept))
        temporary.replace(path)
        self._lines, table = path.open("a"), (run / "metrics.csv").open("w", newline="")
        self._files, self._table, self._labels = (self._lines, table), csv.writer(table), ()
        for line in kept:
            self._add_row(json.loads(line))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a line to each, at once."""
        record = {"step": step, **metrics}
        self._lines.write(json.dumps(record) + "\n")
        self._add_row(record)
        for file in self._files:
            file.flush()

    def sync(self) -> None:
        """Return when all of it is on the disk."""
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()

    def _add_row(self, record: Mapping[str, Any]) -> None:
        if not self._labels:
            self._labels = tuple(record)
            self._table.writerow(self._labels)
        self._table.writerow([record.get(label) for label in self._labels])


class Service(Protocol):
    """A logger that can be asked for by name."""

    def open(self, run: Path, first: int, settings: Mapping[str, Any]) -> Logger:
        """Its logger of a run that goes on after step `first`."""


@register("loggers", "tensorboard")
@dataclass(frozen=True, kw_only=True)
class TensorBoard:
    """Event files in <run>/tensorboard: `tensorboard --logdir runs`; needs the extra `tensorboard`."""

    def open(self, run: Path, first: int, settings: Mapping[str, Any]) -> Logger:
        """See `Service`."""
        need("tensorboard", "tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        return _Events(SummaryWriter(run / "tensorboard", purge_step=first + 1 if first else None))


@dataclass(frozen=True)
class _Events:
    writer: Any

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        for label, value in metrics.items():
            self.writer.add_scalar(label, value, step)

    def close(self) -> None:
        self.writer.close()


@register("loggers", "wandb")
@dataclass(frozen=True, kw_only=True)
class WandB:
    """Weights & Biases; needs the extra `wandb`.

    Attributes:
        project: on wandb.ai; mode: `online` needs an account, `offline` does not (`wandb sync` uploads it later).
    """

    project: str = "lewm"
    mode: str = "offline"

    def open(self, run: Path, first: int, settings: Mapping[str, Any]) -> Logger:
        """See `Service`."""
        wandb = need("wandb", "wandb")
        path = run / "wandb" / "id"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_text(secrets.token_hex(4))
        facts = {"project": self.project, "id": path.read_text(), "name": run.name, "config": dict(settings)}
        resume = {"resume": "allow"} if self.mode == "online" else {}
        return _History(wandb.init(dir=run, mode=self.mode, **facts, **resume))


@dataclass(frozen=True)
class _History:
    run: Any

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self.run.log(dict(metrics), step=step)

    def close(self) -> None:
        self.run.finish()


class Logs:
    """All loggers of a run as one; none of them where this process does not write."""

    def __init__(
        self, run: Path, first: int, services: Sequence[Any], settings: Mapping[str, Any], writes: bool
    ) -> None:
        opened = [part("loggers", given).open(run, first, settings) for given in services] if writes else []
        self._metrics = Metrics(run, first) if writes else None
        self._loggers: list[Logger] = [*opened, self._metrics] if self._metrics else []

    def __enter__(self) -> Logs:
        return self

    def __exit__(self, *_: object) -> None:
        for logger in self._loggers:
            logger.close()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """To each of them."""
        for logger in self._loggers:
            logger.write(step, metrics)

    def sync(self) -> None:
        """Return when the files are on the disk."""
        if self._metrics:
            self._metrics.sync()
