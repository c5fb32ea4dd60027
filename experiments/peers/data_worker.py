"""Reads the same random windows from one store, turn by turn; runs in the peer's venv.

    python data_worker.py serve STORE FOLDER       answer commands, one JSON line each (see `serve`)
    python data_worker.py write STORE RAW TARGET   write the first --episodes of our raw set as that store
    python data_worker.py count STORE TARGET       how many episodes can be read from it
    python data_worker.py index EPISODES           their index of that many episodes of 101 rows

Stores: stable-worldmodel's Lance and HDF5, through its own writers and readers. One file, as it is run by path
where we are not installed; `experiments/benchmark_data/worker.py` serves ours with the same loop and clock.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import sys
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

Read = Callable[[np.ndarray, np.ndarray], tuple[Any, Any]]
"""(episodes, starts) (B,) -> uint8 frames (B, T, h, w, 3) or (B, T, 3, h, w), and actions (B, T, stride * A)."""

Episodes = Iterator[dict[str, list[np.ndarray]]]
FRAMES, STRIDE, BATCH = 4, 5, 64  # a window: frames, environment steps between two; windows read at once
PEER = "stable_worldmodel"
PACKAGES = ("stable-worldmodel", "torch", "pylance", "lancedb", "h5py", "pillow", "simplejpeg")


@dataclass(frozen=True)
class Windows:
    """The windows everybody reads: `frames` rows `stride` apart, and `stride` actions for each.

    Attributes:
        episodes, starts: (n,) of the whole list; batch: windows read at once; rows: of an episode.
    """

    frames: int
    stride: int
    batch: int
    rows: int
    episodes: np.ndarray
    starts: np.ndarray

    @staticmethod
    def load(folder: Path) -> Windows:
        """From FOLDER/windows.npz."""
        with np.load(folder / "windows.npz") as file:
            numbers = (int(file[name]) for name in ("frames", "stride", "batch", "rows"))
            return Windows(*numbers, file["episodes"], file["starts"])

    @property
    def per_episode(self) -> int:
        """Windows that fit an episode, as stable-worldmodel counts them."""
        return self.rows - self.frames * self.stride + 1

    def steps(self, starts: np.ndarray) -> np.ndarray:
        """Rows of the frames (B, T)."""
        return starts[:, None] + np.arange(self.frames) * self.stride


@dataclass(frozen=True)
class Store:
    """How a kind of store is read: `prepare` imports what it needs, and gives what opens FOLDER/path."""

    path: str
    prepare: Callable[[], Callable[[Path, Windows], Read]]


def skip_init(name: str) -> None:
    """Make a package importable without running its __init__, which would import simulators and torchvision."""
    module = types.ModuleType(name)
    module.__path__ = list(importlib.util.find_spec(name).submodule_search_locations)
    sys.modules[name] = module


def turbo_jpeg() -> None:
    """Put simplejpeg (libjpeg-turbo) in the place of torchvision's decoder, which their Lance reader prefers."""
    import simplejpeg
    import torch

    def decode_jpeg(blobs: list[Any], mode: object) -> list[Any]:
        images = (simplejpeg.decode_jpeg(memoryview(blob.numpy())) for blob in blobs)
        return [torch.from_numpy(image).permute(2, 0, 1) for image in images]

    io = types.ModuleType("torchvision.io")
    io.decode_jpeg, io.ImageReadMode = decode_jpeg, types.SimpleNamespace(RGB="RGB")
    sys.modules |= {"torchvision": types.ModuleType("torchvision"), "torchvision.io": io}


def prepare_lance(decoder: str) -> Callable[[Path, Windows], Read]:
    """Their LanceDataset, read a whole batch at once by its __getitems__, torch's default_collate behind it.

    Args:
        decoder: `pil`, what it falls back to without torchvision; `turbo`; or `none`: rows are fetched and frames
            left undecoded, a bound for any decoder.
    """
    if decoder == "turbo":
        turbo_jpeg()
    skip_init(PEER)
    import torch
    from stable_worldmodel.data import LanceDataset
    from torch.utils.data import default_collate

    class Undecoded(LanceDataset):
        def _decode_images(self, blobs: list[bytes]) -> Any:
            return torch.zeros(len(blobs), 3, 1, 1, dtype=torch.uint8)

    kind = Undecoded if decoder == "none" else LanceDataset

    def open_store(path: Path, windows: Windows) -> Read:
        data = kind(path / "data.lance", **_asked(windows))
        return lambda episodes, starts: _pair(
            default_collate(data.__getitems__((episodes * windows.per_episode + starts).tolist()))
        )

    return open_store


def prepare_hdf5() -> Callable[[Path, Windows], Read]:
    """Their HDF5Dataset, window by window as it has no batched path, torch's default_collate behind it."""
    skip_init(PEER)
    from stable_worldmodel.data import HDF5Dataset
    from torch.utils.data import default_collate

    def open_store(path: Path, windows: Windows) -> Read:
        data = HDF5Dataset(path=path / "data.h5", **_asked(windows))
        return lambda episodes, starts: _pair(
            default_collate([data[k] for k in (episodes * windows.per_episode + starts).tolist()])
        )

    return open_store


def _asked(windows: Windows) -> dict[str, Any]:
    return {"frameskip": windows.stride, "num_steps": windows.frames, "keys_to_load": ["pixels", "action"]}


def _pair(batch: Mapping[str, Any]) -> tuple[Any, Any]:
    return batch["pixels"], batch["action"]


STORES = {
    "lance": Store("lance", lambda: prepare_lance("pil")),
    "lance_turbo": Store("lance", lambda: prepare_lance("turbo")),
    "lance_fetch": Store("lance", lambda: prepare_lance("none")),
    "hdf5": Store("hdf5", prepare_hdf5),
}


def write_lance(path: Path, episodes: Episodes, each: bool = False) -> None:
    """One stream of episodes, one commit, as their World.collect writes; or one commit for each."""
    skip_init(PEER)
    from stable_worldmodel.data import LanceWriter

    with LanceWriter(path / "data.lance") as writer:
        for some in ([one] for one in episodes) if each else [episodes]:
            writer.write_episodes(some)


def write_hdf5(path: Path, episodes: Episodes) -> None:
    """As their World.collect writes."""
    skip_init(PEER)
    from stable_worldmodel.data import HDF5Writer

    with HDF5Writer(path / "data.h5") as writer:
        for one in episodes:
            writer.write_episode(one)


WRITERS = {
    "lance": write_lance,
    "lance_each": lambda path, episodes: write_lance(path, episodes, each=True),
    "hdf5": write_hdf5,
}


def raw_episodes(raw: Path, count: int | None) -> Episodes:
    """Episodes of our raw set (one shard of fixed-size rows); says on stdout how many were handed out."""
    info = json.loads((raw / "dataset.json").read_text())
    rows = info["source"]["steps"] + 1
    columns = {
        name: np.memmap(raw / f"shards/w0000-0/{name}.bin", column["dtype"], "r").reshape(
            -1, rows, *column["shape"]
        )
        for name, column in info["columns"].items()
    }
    for k in range(count or len(columns["action"])):
        yield {name: list(column[k]) for name, column in columns.items()}
        print(k + 1, flush=True)


def count_episodes(store: str, path: Path) -> int:
    """Episodes that their reader lists, the last one read in full."""
    skip_init(PEER)
    from stable_worldmodel.data import HDF5Dataset, LanceDataset

    data = HDF5Dataset(path=path / "data.h5") if store == "hdf5" else LanceDataset(path / "data.lance")
    if len(data.lengths):
        data.load_episode(len(data.lengths) - 1)
    return len(data.lengths)


def measure_index(episodes: int) -> dict[str, float]:
    """Seconds and bytes that their index takes: the base class of all their readers."""
    skip_init(PEER)
    from stable_worldmodel.data.dataset import Dataset

    before, begin = resident()["rss"], time.perf_counter()
    data = Dataset(np.full(episodes, 101), np.arange(episodes) * 101, STRIDE, FRAMES)
    seconds = time.perf_counter() - begin
    return {"windows": len(data), "seconds": seconds, "bytes": resident()["rss"] - before}


def resident() -> dict[str, int]:
    """Bytes of memory: in use (`rss`), of it no mapped file (`anon`), most so far (`peak`); zeros where unknown."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    except OSError:
        return {"rss": 0, "anon": 0, "peak": 0}
    names = {"rss": "VmRSS", "anon": "RssAnon", "peak": "VmHWM"}
    return {key: 1024 * int(lines[name].split()[0]) for key, name in names.items()}


def one_core() -> None:
    """Stay on one core, whatever threads a library starts."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def serve(store: Store, folder: Path, packages: Sequence[str]) -> None:
    """Say that all is imported, then answer each line of stdin with one line.

    {"do": "open"}                  -> seconds until open, and of the first window
    {"do": "check"}                 -> largest and mean error of frames and actions against FOLDER/truth.npz
    {"do": "memory", "batches": n}  -> what memory grew by since before opening, n batches read
    {"do": "turn", "seconds": s}    -> whole batches of the list for at least s seconds: windows, seconds
    """
    one_core()
    begin = time.perf_counter()
    open_store = store.prepare()
    seconds, found = time.perf_counter() - begin, versions(packages)
    print(json.dumps({"import_seconds": seconds, "versions": found}), flush=True)
    windows = Windows.load(folder)
    server = _Server(open_store, folder / store.path, folder, windows)
    for line in sys.stdin:
        command = json.loads(line)
        answer = getattr(server, command.pop("do"))(**command)
        print(json.dumps(answer), flush=True)


class _Server:
    def __init__(
        self, open_store: Callable[[Path, Windows], Read], path: Path, folder: Path, windows: Windows
    ) -> None:
        self._open_store, self._path, self._folder, self._windows = open_store, path, folder, windows
        self._at = 0

    def open(self) -> dict[str, float]:
        windows = self._windows
        gc.collect()
        self._before = resident()
        begin = time.perf_counter()
        self._read = self._open_store(self._path, windows)
        opened = time.perf_counter()
        self._read(windows.episodes[:1], windows.starts[:1])
        return {"open_seconds": opened - begin, "first_seconds": time.perf_counter() - opened}

    def check(self) -> dict[str, float]:
        windows = self._windows
        frames, actions = (np.asarray(x) for x in self._read(*self._batch(0)))
        with np.load(self._folder / "truth.npz") as truth:
            if frames.shape[2] == 3:
                frames = np.moveaxis(frames, 2, -1)
            wanted = truth["actions"].reshape(windows.batch, windows.frames, -1)
            if frames.shape != truth["frames"].shape:  # nothing decoded
                return {"max_error": None, "mean_error": None, "actions_error": _error(actions, wanted)[0]}
            largest, mean = _error(frames, truth["frames"])
        return {"max_error": largest, "mean_error": mean, "actions_error": _error(actions, wanted)[0]}

    def memory(self, batches: int) -> dict[str, int]:
        for _ in range(batches):
            self._next()
        gc.collect()
        now = resident()
        return {f"{key}_bytes": now[key] - self._before[key] for key in ("rss", "anon")}

    def turn(self, seconds: float) -> dict[str, float]:
        count, begin = 0, time.perf_counter()
        while (spent := time.perf_counter() - begin) < seconds:
            self._next()
            count += self._windows.batch
        return {"windows": count, "seconds": spent}

    def _next(self) -> None:
        self._read(*self._batch(self._at))
        self._at = (self._at + 1) % (len(self._windows.starts) // self._windows.batch)

    def _batch(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        here = slice(number * self._windows.batch, (number + 1) * self._windows.batch)
        return self._windows.episodes[here], self._windows.starts[here]


def _error(found: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    difference = np.abs(found.reshape(wanted.shape).astype(np.float64) - wanted)
    return float(difference.max()), float(difference.mean())


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of these packages, of those that are here."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, names in (("serve", ["store", "folder"]), ("write", ["store", "raw", "target"])):
        add = verbs.add_parser(verb).add_argument
        for name in names:
            add(name, type=str if name == "store" else Path)
        if verb == "write":
            add("--episodes", type=int, help="of the raw set (default: all)")
    count = verbs.add_parser("count")
    count.add_argument("store")
    count.add_argument("target", type=Path)
    verbs.add_parser("index").add_argument("episodes", type=int)
    return parser.parse_args()


def main(
    stores: Mapping[str, Store] = STORES,
    writers: Mapping[str, Callable[[Path, Episodes], None]] = WRITERS,
    count: Callable[[str, Path], int] = count_episodes,
    packages: Sequence[str] = PACKAGES,
) -> None:
    """Do what the command line says."""
    args = arguments()
    if args.verb == "serve":
        serve(stores[args.store], args.folder, packages)
    elif args.verb == "write":
        args.target.mkdir(parents=True, exist_ok=True)
        writers[args.store](args.target, raw_episodes(args.raw, args.episodes))
    elif args.verb == "index":
        print(json.dumps(measure_index(args.episodes)))
    else:
        try:
            print(json.dumps({"episodes": count(args.store, args.target), "error": None}))
        except Exception as error:  # whatever a damaged file makes of it
            print(json.dumps({"episodes": 0, "error": f"{type(error).__name__}: {error}"[:200]}))


if __name__ == "__main__":
    main()
