"""Our own stores, their floors and MP4, served by the loop and the clock of `experiments/peers/data_worker.py`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.ma  # numpy.unique does at its first call; imports are not timed as opening
import zstandard

from experiments.benchmark_data.mp4 import prepare_mp4, write_mp4
from experiments.peers import data_worker
from experiments.peers.data_worker import Episodes, Read, Store, Windows
from lewm.data import Column, EpisodeReader, EpisodeWriter
from lewm.data import Windows as Index
from lewm.data.schema import DatasetInfo
from lewm.types import Episode

GROUP = 10  # episodes committed at once


def ours(cache: str) -> Callable[[Path, Windows], Read]:
    """The public way: EpisodeReader, Windows, batch."""

    def open_store(path: Path, windows: Windows) -> Read:
        reader = EpisodeReader(path, cache=cache)
        every = np.arange(len(reader))
        index = Index(reader, every, frames=windows.frames, block=windows.stride, actions="each")
        count = len(index) // len(reader)

        def read(episodes: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            batch = index.batch(episodes * count + starts)
            return batch.pixels, batch.actions

        return read

    return open_store


def floor_zstd(path: Path, windows: Windows) -> Read:
    """Decompress the frames of the windows, one call each, and do nothing else."""
    reader = EpisodeReader(path)
    shard = path / "shards" / reader.table.shards[0]
    data, ends = np.memmap(shard / "pixels.bin", np.uint8, "r"), np.fromfile(shard / "pixels.idx", "<i8")[::2]
    spans = list(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True))
    view, decompress = memoryview(data), zstandard.ZstdDecompressor().decompress

    def read(episodes: np.ndarray, starts: np.ndarray) -> tuple[None, None]:
        for row in (episodes[:, None] * windows.rows + windows.steps(starts)).ravel().tolist():
            begin, end = spans[row]
            decompress(view[begin:end])
        return None, None

    return read


def floor_copy(path: Path, windows: Windows) -> Read:
    """Copy the frames of the windows from decoded rows in memory into one buffer, and do nothing else."""
    pixels = EpisodeReader(path).info.columns["pixels"]
    rows = np.fromfile(path / "shards/w0000-0/pixels.bin", np.uint8).reshape(-1, pixels.row_bytes)
    out = np.empty((windows.batch * windows.frames, pixels.row_bytes), np.uint8)

    def read(episodes: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, None]:
        wanted = (episodes[:, None] * windows.rows + windows.steps(starts)).ravel()
        return np.take(rows, wanted, axis=0, out=out[: len(wanted)], mode="clip"), None

    return read


STORES = {
    "lewm": Store("zstd", lambda: ours("none")),
    "lewm_compressed": Store("zstd", lambda: ours("compressed")),
    "lewm_ram": Store("zstd", lambda: ours("ram")),
    "lewm_raw": Store("raw", lambda: ours("none")),
    "floor_zstd": Store("zstd", lambda: floor_zstd),
    "floor_copy": Store("raw", lambda: floor_copy),
}
if importlib.util.find_spec("av") is not None:
    STORES |= {name: Store(name, prepare_mp4) for name in ("mp4_h264", "mp4_av1")}


def write_lewm(path: Path, episodes: Episodes) -> None:
    """Groups of ten, each committed before the next is taken, as `lewm collect` writes; they have a last action."""
    writer, group = None, []
    for number, one in enumerate(episodes):
        columns = {name: np.stack(rows[:-1] if name == "action" else rows) for name, rows in one.items()}
        if writer is None:
            writer = EpisodeWriter(path, info_of(columns, "zstd:3", len(columns["action"])))
        group.append(Episode(number, columns))
        if len(group) == GROUP:
            writer.commit(group)
            group = []
    if writer is not None:
        writer.commit(group)
        writer.close()


def info_of(columns: dict[str, np.ndarray], codec: str, steps: int) -> DatasetInfo:
    """A description of episodes of `steps` steps with these columns, pixels stored by `codec`."""
    kinds = {
        name: Column(rows.dtype.name, rows.shape[1:], codec=codec if name == "pixels" else "raw")
        for name, rows in columns.items()
    }
    bound = np.abs(columns["action"]).max(0)
    return DatasetInfo(kinds, tuple((-bound).tolist()), tuple(bound.tolist()), {"steps": steps})


def count_episodes(store: str, path: Path) -> int:
    """Committed episodes, each checked against its checksums."""
    reader = EpisodeReader(path)
    faults = list(reader.verify())
    if faults:
        raise ValueError(faults[0].text)
    return len(reader)


WRITERS = {
    "lewm": write_lewm,
    "mp4_h264": lambda path, episodes: write_mp4(path, episodes, "libx264"),
    "mp4_av1": lambda path, episodes: write_mp4(path, episodes, "libsvtav1"),
}

if __name__ == "__main__":
    data_worker.main(STORES, WRITERS, count_episodes, ("lewm", "numpy", "zstandard", "av"))
