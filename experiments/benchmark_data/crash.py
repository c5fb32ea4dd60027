"""What is left of a data set whose writer is killed in the middle."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import workers
from experiments.benchmark_data import process

WRITERS = ("lewm", "lance", "lance_each", "hdf5")


def measure(
    raw: Path, scratch: Path, writers: Sequence[str], kill_at: Sequence[int], peer: Path | None
) -> list[dict[str, Any]]:
    """Each writer gets the episodes of a raw set one by one, and kill -9 once it has taken `kill_at` of them."""
    rows = []
    for writer in writers:
        for count in kill_at:
            target = scratch / f"killed_{writer}_{count}"
            shutil.rmtree(target, ignore_errors=True)
            taken = _killed([*process.command(writer, peer), "write", writer, str(raw), str(target)], count)
            found = json.loads(process.run(writer, peer, "count", "lance" if "lance" in writer else writer, target))
            rows.append({"writer": writer, "taken": taken, "readable": found["episodes"], "error": found["error"]})
            shutil.rmtree(target, ignore_errors=True)
    return rows


def _killed(command: Sequence[str], count: int) -> int:
    """Run until it says `count` and kill it; returns the last number it said."""
    environment = {**os.environ, **workers.ENVIRONMENT}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as writer:
        taken = 0
        for line in writer.stdout:
            taken = int(line)
            if taken >= count:
                break
        else:
            raise RuntimeError(f"{' '.join(command)} ended after {taken} episodes, before it could be killed")
        writer.send_signal(signal.SIGKILL)
        left = writer.stdout.read().split()
    return int(left[-1]) if left else taken
