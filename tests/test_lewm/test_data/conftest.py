"""Small episodes whose every row says where it belongs: (episode id, step)."""

import os
from dataclasses import replace

import numpy as np
import pytest

from lewm.data import Column, DatasetInfo, EpisodeReader, EpisodeWriter
from lewm.types import Episode

SHAPE = (2, 3, 1)


@pytest.fixture(scope="module")
def quick_disk():
    """Does not wait for the disk: for tests of many tiny sets that are about something else than power cuts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session")
def make_info():
    def make(stride=1, codec="zstd:1", source=None, creator=None, **columns):
        base = {
            "pixels": Column("uint8", SHAPE, stride, codec),
            "state": Column("float64", (2,)),
            "action": Column("float32", (2,)),
        }
        return DatasetInfo(
            base | columns, (-500.0, -500.0), (500.0, 500.0), source or {"env": "stub"}, creator or {}
        )

    return make


@pytest.fixture(scope="session")
def make_episode(make_info):
    """Episode `number`: pixels begin with (number, step), state is (number, step), action is one more of each."""

    def make(number, steps=6, info=None, facts=None):
        info = info or make_info()
        steps_of = {name: np.arange(c.rows(steps)) * c.stride for name, c in info.columns.items()}
        pixels = np.random.default_rng(number).integers(0, 256, (len(steps_of["pixels"]), *SHAPE), np.uint8)
        pixels[:, 0, 0, 0], pixels[:, 0, 1, 0] = number % 256, steps_of["pixels"]
        states = steps_of["state"].astype(float)
        taken = np.arange(steps)
        columns = {
            "pixels": pixels,
            "state": np.stack([np.full_like(states, number), states], 1),
            "action": np.stack([np.full(steps, number + 1), taken + 1], 1).astype(np.float32),
        }
        return Episode(number, columns, facts or {})

    return make


@pytest.fixture(scope="session")
def write_set(make_info):
    """Write episodes into a folder, one commit each, and open it."""

    def write(folder, episodes, info=None, **options):
        with EpisodeWriter(folder, info or make_info(), **options) as writer:
            for episode in episodes:
                writer.commit([episode])
        return EpisodeReader(folder)

    return write


@pytest.fixture(scope="session")
def change():
    """A copy of an episode with some columns replaced (None removes one)."""

    def changed(episode, **columns):
        merged = {k: v for k, v in {**episode.columns, **columns}.items() if v is not None}
        return replace(episode, columns=merged)

    return changed


@pytest.fixture(scope="session")
def snapshot():
    """Every file below a folder with its bytes, less the locks, which hold none."""

    def files(folder):
        paths = [p for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock"]
        return {str(p.relative_to(folder)): p.read_bytes() for p in paths}

    return files


@pytest.fixture(scope="session")
def equal():
    """Whether two episodes are the same bit for bit: id, facts, columns, dtypes, values."""

    def same(a, b):
        return (
            (a.id, a.facts, a.columns.keys()) == (b.id, b.facts, b.columns.keys())
            and all(a.columns[k].dtype == b.columns[k].dtype for k in a.columns)
            and all(a.columns[k].shape == b.columns[k].shape for k in a.columns)
            and all(a.columns[k].tobytes() == b.columns[k].tobytes() for k in a.columns)
        )

    return same


@pytest.fixture(scope="session")
def matches(equal):
    """Whether the episode at `position` of a reader is exactly `episode`."""
    return lambda reader, position, episode: (
        reader.ids[position] == episode.id
        and reader.steps[position] == episode.steps
        and equal(reader.episode(position), episode)
    )
