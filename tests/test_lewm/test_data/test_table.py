"""The table of all commit lines, and its cache."""

import json
import os
import re
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from lewm.data import EpisodeReader
from lewm.data import table as module
from lewm.data.log import Commit
from lewm.data.table import read_table
from lewm.types import InputError


def same_table(a, b):
    arrays = ("ids", "steps", "shard", "log", "offset")
    return (
        (a.shards, a.logs) == (b.shards, b.logs)
        and all(np.array_equal(getattr(a, n), getattr(b, n)) for n in arrays)
        and all(getattr(a, n).dtype == getattr(b, n).dtype for n in arrays)
        and a.places.keys() == b.places.keys()
        and all(np.array_equal(a.places[n], b.places[n]) for n in a.places)
    )


pytestmark = pytest.mark.usefixtures("quick_disk")

COLUMNS = ["action", "pixels", "state"]


@pytest.fixture
def parsed(monkeypatch):
    """How often the logs were parsed; sets of any size are cached."""
    calls, parse = [], module._parse

    def counted(*arguments):
        calls.append(arguments)
        return parse(*arguments)

    monkeypatch.setattr(module, "_parse", counted)
    monkeypatch.setattr(module, "CACHED_FROM", 1)
    return calls


def test_a_cached_index_equals_the_parsed_one(tmp_path, make_episode, write_set, parsed, matches):
    episodes = [make_episode(i, 2 + i) for i in (5, 3, 9)]
    write_set(tmp_path, episodes[:2], writer="a", shard_bytes=1)
    reader = write_set(tmp_path, episodes[2:], writer="b")
    before = len(parsed)
    again = EpisodeReader(tmp_path)
    assert len(parsed) == before
    assert same_table(again.table, reader.table)
    assert again.fingerprint == reader.fingerprint
    assert [matches(again, k, e) for k, e in enumerate(sorted(episodes, key=lambda e: e.id))] == [True] * 3
    (tmp_path / "index.npz").unlink()
    assert same_table(EpisodeReader(tmp_path).table, again.table)
    assert len(parsed) == before + 1


def test_the_cache_is_not_used_for_other_logs(tmp_path, make_episode, write_set, parsed):
    write_set(tmp_path, [make_episode(0)])
    cache = (tmp_path / "index.npz").read_bytes()
    assert write_set(tmp_path, [make_episode(1)]).ids.tolist() == [0, 1]  # a line more
    (tmp_path / "index.npz").write_bytes(cache)
    assert EpisodeReader(tmp_path).ids.tolist() == [0, 1]
    assert write_set(tmp_path, [make_episode(2)], writer="z").ids.tolist() == [0, 1, 2]  # a log more
    (path,) = tmp_path.glob("episodes-w0000.jsonl")
    data = bytearray(path.read_bytes())
    data[10] ^= 1  # a byte of the same log
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"episodes-w0000\.jsonl line 1\b"):
        EpisodeReader(tmp_path)


def test_damaged_logs_are_not_cached(tmp_path, make_episode, write_set, parsed):
    """A cache says nothing of faults: it would hide them from the next reader."""
    write_set(tmp_path, [make_episode(i) for i in range(3)])
    (tmp_path / "index.npz").unlink()
    (path,) = tmp_path.glob("*.jsonl")
    path.write_bytes(b"x" + path.read_bytes())
    for _ in range(2):
        assert len(EpisodeReader(tmp_path, skip_damaged=True).faults) == 1


def test_no_flipped_byte_of_the_cache_changes_the_index(tmp_path, make_episode, write_set, parsed):
    table = write_set(tmp_path, [make_episode(i) for i in range(3)]).table
    path = tmp_path / "index.npz"
    whole = path.read_bytes()
    text = json.dumps(
        [[p.name, len(c := p.read_bytes()), zlib.crc32(c), c.count(b"\n")] for p in tmp_path.glob("*.jsonl")]
    )
    assert same_table(module._read_cache(path, text, COLUMNS), table)
    for k in range(0, len(whole), 5):
        mask = 1 << k % 8
        data = bytearray(whole)
        data[k] ^= mask
        path.write_bytes(data)
        found = module._read_cache(path, text, COLUMNS)
        assert found is None or same_table(found, table), f"byte {k}"
    for k in range(0, len(whole), 397):
        path.write_bytes(whole[:k])
        assert module._read_cache(path, text, COLUMNS) is None
        assert same_table(read_table(tmp_path, COLUMNS)[0], table)
        assert same_table(module._read_cache(path, text, COLUMNS), table)  # made anew


def test_an_array_of_the_cache_that_became_shorter_is_noticed(tmp_path):
    """The zip file around a large one does not: its own checksum is compared at an array's end only."""
    count, path = 4000, tmp_path / "index.npz"
    place = np.zeros(count, module.PLACE)
    ones = [np.arange(count, dtype=dtype) for dtype in (np.int64, np.int32, np.int32, np.int32, np.int64)]
    ids, steps, shard, number, offset = ones
    module._write_cache(
        path, "key", module.Table(ids, steps, ["w-0"], shard, {"action": place}, ["a"], number, offset)
    )
    assert np.array_equal(module._read_cache(path, "key", ["action"]).ids, ids)
    whole = path.read_bytes()
    shapes = [(m.start(1), ord("4") ^ ord("1")) for m in re.finditer(rb"'shape': \((4)000,", whole)]
    dtypes = [(m.start(1), ord("8") ^ ord("4")) for m in re.finditer(rb"'descr': '<i(8)'", whole)]
    assert (len(shapes), len(dtypes)) == (6, 2)
    for k, mask in shapes + dtypes:
        data = bytearray(whole)
        data[k] ^= mask
        path.write_bytes(data)
        assert module._read_cache(path, "key", ["action"]) is None


@pytest.mark.parametrize("number", [28, 30])  # disk full, read-only file system
def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path, make_episode, write_set, parsed, monkeypatch, number
):
    write_set(tmp_path, [make_episode(0)])
    (tmp_path / "index.npz").unlink()
    opened = Path.open

    def refuse(path, mode="r", *arguments, **options):
        if "w" in mode:
            raise OSError(number, os.strerror(number))
        return opened(path, mode, *arguments, **options)

    def keep(path, missing_ok=False):
        if number == 30:  # even where there is nothing to remove
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "unlink", keep)
    assert EpisodeReader(tmp_path).ids.tolist() == [0]


def test_a_hundred_thousand_lines(tmp_path):
    """Parsed in seconds, by the cache in a fraction, 40 bytes a column and 24 an episode in memory."""
    count, seed = 100_000, np.random.default_rng(0)
    ids = seed.permutation(count).tolist()
    path = tmp_path / "episodes-w0000.jsonl"
    with path.open("w") as file:
        for k, i in enumerate(ids):
            place = (k * 5, k * 40, k * 40 + 40, k, f"{i:016x}")
            file.write(Commit(i, f"w0000-{k // 1000}", 4, {"action": place, "pixels": place}, {"k": k}).line())
    begin = time.perf_counter()
    table, faults = read_table(tmp_path, ["action", "pixels"])
    parsing = time.perf_counter() - begin
    assert (len(table), faults) == (count, [])
    assert np.array_equal(table.ids, np.arange(count))
    assert np.array_equal(table.places["pixels"]["content"], np.arange(count))
    assert np.array_equal(ids, np.argsort(table.places["action"]["crc32"]).tolist())
    begin = time.perf_counter()
    cached, _ = read_table(tmp_path, ["action", "pixels"])
    assert time.perf_counter() - begin < parsing / 3
    assert same_table(cached, table)
    assert table.nbytes <= count * (2 * 36 + 28)
    assert parsing < 20  # 1.5 s where this was written
