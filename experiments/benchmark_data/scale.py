"""What a window costs as a set grows to a million episodes: synthetic logs that all point to a few real episodes.

Each log names its episodes in `per_shard` portions, as shards of 1 GiB would be at this size; the shards are links
to the one real shard. So readers really open them and read from them, and the disk holds little more than the log.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.ma  # see `worker.py`

from experiments.peers.data_worker import BATCH, FRAMES, STRIDE, one_core, resident
from lewm.data import EpisodeReader, Windows
from lewm.data.log import Commit, parse_log

PER_SHARD = 5000  # episodes of 101 rows of a few kB each fill a shard of 1 GiB
DRAWS = 40  # batches of a turn
SECOND = 1e3  # milliseconds


def measure(real: Path, scratch: Path, episodes: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """One row per number of episodes. Opened twice in fresh processes; then all of them draw batches in turns."""
    rows = []
    folders = [scratch / f"episodes_{count}" for count in episodes]
    from experiments.runs import progress  # not in the fresh processes, which start with this module

    with progress(2 * len(episodes) + 1, "index", "steps") as bar:
        for count, folder in zip(episodes, folders, strict=True):
            shutil.rmtree(folder, ignore_errors=True)
            _make(real, folder, count)
            bar.update()
            rows.append(
                {
                    "episodes": count,
                    "per_shard": PER_SHARD,
                    "shards": -(-count // PER_SHARD),
                    **_fresh(_open, folder),
                    "again": _fresh(_open, folder),
                }
            )
            bar.update()
        for row, drawn in zip(rows, _fresh(_draw_in_turns, folders, rounds), strict=True):
            row.update(drawn)
        bar.update()
    for folder in folders:
        shutil.rmtree(folder)
    return rows


def _fresh(call: Any, *arguments: Any) -> Any:
    """The result of a call in a new process."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(call, *arguments).result()


def _make(real: Path, folder: Path, count: int) -> None:
    commits = [commit for commit, _ in parse_log(next(real.glob("episodes-*.jsonl")))]
    folder.mkdir(parents=True)
    shutil.copy(real / "dataset.json", folder)
    (folder / "shards").mkdir()
    for k in range(-(-count // PER_SHARD)):
        (folder / f"shards/w0000-{k}").symlink_to(real.resolve() / "shards" / commits[0].shard)
    with (folder / "episodes-w0000.jsonl").open("w") as log:
        for k in range(count):
            source = commits[k % len(commits)]
            log.write(Commit(k, f"w0000-{k // PER_SHARD}", source.steps, source.columns, {"seed": [0, k]}).line())


def _index(folder: Path) -> Windows:
    reader = EpisodeReader(folder)
    return Windows(reader, np.arange(len(reader)), frames=FRAMES, block=STRIDE, actions="each")


def _open(folder: Path) -> dict[str, Any]:
    """Seconds until the first window can be read, and of reading it; memory at most and in the end."""
    one_core()
    before, begin = resident()["rss"], time.perf_counter()
    windows = _index(folder)
    opened = time.perf_counter()
    windows.batch(np.zeros(1, np.int64))
    return {
        "open_seconds": opened - begin,
        "first_seconds": time.perf_counter() - opened,
        "peak_bytes": resident()["peak"] - before,
        "log_mb": (folder / "episodes-w0000.jsonl").stat().st_size / 1e6,
        "windows": len(windows),
        "windows_bytes": windows.nbytes,
        "table_bytes": windows.reader.table.nbytes,
    }


def _draw_in_turns(folders: Sequence[Path], rounds: int) -> list[dict[str, Any]]:
    """Milliseconds of a batch drawn and read, and of the same with nothing read: the index alone."""
    one_core()
    whole, bare = [_index(folder) for folder in folders], [_index(folder) for folder in folders]
    for windows in bare:
        _read_nothing(windows)
    spent: list[dict[str, list[float]]] = [{"draw_ms": [], "index_ms": []} for _ in folders]
    for turn in range(rounds + 1):
        for k, found in enumerate(spent):
            for name, windows in (("draw_ms", whole[k]), ("index_ms", bare[k])):
                times = [_draw(windows, turn * DRAWS + n) for n in range(DRAWS)]
                if turn:  # the first one warms up
                    found[name].append(SECOND * median(times))
    return spent


def _draw(windows: Windows, step: int) -> float:
    begin = time.perf_counter()
    windows.draw(step, BATCH, 0)
    return time.perf_counter() - begin


def _read_nothing(windows: Windows) -> None:
    rows = {
        name: np.zeros((BATCH * FRAMES * STRIDE, *column.shape), column.dtype)
        for name, column in windows.reader.info.columns.items()
    }
    windows.reader.gather = lambda name, episodes, steps, out: rows[name][: steps.size].reshape(
        *steps.shape, *rows[name].shape[1:]
    )
