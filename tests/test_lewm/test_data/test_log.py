"""The commit log and its cache."""

import json
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lewm.data import EpisodeReader, EpisodeWriter, log
from lewm.data.log import Commit, committed_ids, read_log, read_table
from lewm.types import InputError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
places = st.tuples(*[st.integers(0, 2**62)] * 3, st.integers(0, 2**32 - 1), st.just("00ff00ff00ff00ff"))
commits = st.builds(
    Commit,
    st.integers(0, 2**63 - 1),
    st.just("w-0"),
    st.integers(1, 2**31 - 1),
    st.dictionaries(st.sampled_from(["action", "pixels"]), places),
    st.dictionaries(st.text() | st.just("line"), json_values, max_size=3),
)


@given(commit=commits)
def test_a_line_gives_back_its_commit(commit):
    line = commit.line()
    assert line.count("\n") == 1
    assert line.isascii()
    found = Commit.parse(line.encode())
    columns = {name: tuple(place) for name, place in found.columns.items()}
    assert (found.id, found.shard, found.steps, columns, found.facts) == (
        (commit.id, commit.shard, commit.steps, commit.columns, commit.facts)
    )


@given(commit=commits, data=st.data())
def test_a_line_with_any_byte_changed_or_lost_is_no_commit(commit, data):
    line = bytearray(commit.line().encode())
    at = data.draw(st.integers(0, len(line) - 2))
    changed = data.draw(st.integers(1, 255)) ^ line[at]
    with pytest.raises(ValueError, match="not a commit line"):
        Commit.parse(bytes(line[:at] + bytes([changed]) + line[at + 1 :]))
    with pytest.raises(ValueError, match="not a commit line"):
        Commit.parse(bytes(line[:at] + line[at + 1 :]))
    with pytest.raises(ValueError, match="not a commit line"):
        Commit.parse(bytes(line[:at]))


def test_lines_are_json_and_hold_the_facts(tmp_path, make_episode, write_set):
    facts = {"seed": [1, 2], "policy": "ou", "note": "line\nbreak ü \u2028 \r", "a": 1, "line": 5}
    reader = write_set(tmp_path, [make_episode(0, facts=facts)])
    (path,) = tmp_path.glob("*.jsonl")
    assert json.loads(path.read_text())["facts"] == facts
    assert reader.facts(0) == reader.episode(0).facts == facts


GARBAGE = [b"garbage", b"{}", b"[1]", b"7", b"", b"\xff\xfe", b'{"id": 1', b'{"id":1,"shard":"w","line":5}', b"\r"]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_in_the_middle_of_a_log_names_the_line(
    tmp_path, make_info, make_episode, write_set, matches, snapshot, garbage
):
    episodes = [make_episode(i) for i in range(3)]
    write_set(tmp_path, episodes)
    (path,) = tmp_path.glob("*.jsonl")
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], garbage, *lines[2:]]) + b"\n")
    before = snapshot(tmp_path)
    for use in (EpisodeReader, lambda folder: EpisodeWriter(folder, make_info()), committed_ids):
        with pytest.raises(InputError, match=rf"{path.name} line 2\b"):
            use(tmp_path)
    assert snapshot(tmp_path) == before
    reader = EpisodeReader(tmp_path, skip_damaged=True)
    assert [reader.ids.tolist(), len(reader.faults)] == [[0, 2], 1]
    assert matches(reader, 1, episodes[2])


def test_a_commit_line_of_another_set_is_foreign(tmp_path, make_info, make_episode, write_set):
    write_set(tmp_path / "a", [make_episode(0)])
    info = make_info()
    columns = {name: column for name, column in info.columns.items() if name != "state"}
    slim = type(info)(columns, info.action_low, info.action_high)
    episode = make_episode(1)
    kept = {name: rows for name, rows in episode.columns.items() if name != "state"}
    write_set(tmp_path / "b", [type(episode)(1, kept)], slim, writer="other")
    (tmp_path / "b" / "episodes-other.jsonl").rename(tmp_path / "a" / "episodes-other.jsonl")
    with pytest.raises(InputError, match=r"episodes-other\.jsonl line 1 .*columns \['action', 'pixels'\]"):
        EpisodeReader(tmp_path / "a")


def test_every_torn_last_line_is_ignored_and_cut(tmp_path, make_info, make_episode, write_set, matches, snapshot):
    """A kill may leave any beginning of a line, of facts that look like a line's end as well."""
    episodes = [make_episode(i, facts={"a": 1, "line": 5}) for i in range(2)]
    write_set(tmp_path, episodes)
    whole = snapshot(tmp_path)
    (path,) = tmp_path.glob("*.jsonl")
    first, last = path.read_bytes().splitlines(keepends=True)
    for cut in range(len(last)):
        path.write_bytes(first + last[:cut])
        assert committed_ids(tmp_path) == {0}
        assert read_log(path)[1] == len(first)
        reader = EpisodeReader(tmp_path)
        assert reader.ids.tolist() == [0]
    assert matches(reader, 0, episodes[0])
    with EpisodeWriter(tmp_path, make_info()) as writer:
        assert path.read_bytes() == first
        writer.commit(episodes[1:])
    assert snapshot(tmp_path) == whole


@pytest.mark.parametrize("last", [b"}", b"\r", b" ", b"\x00", b"{"])
def test_a_damaged_last_newline_is_not_a_torn_line(tmp_path, make_info, make_episode, write_set, snapshot, last):
    """Else the last episode would vanish without a word, and the next writer would cut its bytes off."""
    write_set(tmp_path, [make_episode(i) for i in range(2)])
    (path,) = tmp_path.glob("*.jsonl")
    path.write_bytes(path.read_bytes()[:-1] + last)
    before = snapshot(tmp_path)
    for use in (EpisodeReader, lambda folder: EpisodeWriter(folder, make_info()), committed_ids):
        with pytest.raises(InputError, match=rf"{path.name} line 2\b"):
            use(tmp_path)
    assert snapshot(tmp_path) == before
    assert EpisodeReader(tmp_path, skip_damaged=True).ids.tolist() == [0]


def test_an_episode_held_by_two_writers_is_an_error(tmp_path, make_episode, write_set, matches):
    write_set(tmp_path, [make_episode(1), make_episode(2)], writer="a")
    with pytest.raises(InputError, match=r"episode 2 twice \(episodes-a\.jsonl and episodes-b\.jsonl\)"):
        write_set(tmp_path, [make_episode(2), make_episode(3)], writer="b")
    reader = EpisodeReader(tmp_path, skip_damaged=True)
    assert reader.ids.tolist() == [1, 2, 3]
    assert all(matches(reader, k, make_episode(k + 1)) for k in range(3))
    (tmp_path / "episodes-b.jsonl").unlink()  # what the message advises
    assert EpisodeReader(tmp_path).ids.tolist() == [1, 2]


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
    calls, parse = [], log._parse

    def counted(*arguments):
        calls.append(arguments)
        return parse(*arguments)

    monkeypatch.setattr(log, "_parse", counted)
    monkeypatch.setattr(log, "CACHED_FROM", 1)
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
    text = json.dumps([[p.name, len(c := p.read_bytes()), log.zlib.crc32(c)] for p in tmp_path.glob("*.jsonl")])
    assert same_table(log._read_cache(path, text, COLUMNS), table)
    for k in range(0, len(whole), 5):
        mask = 1 << k % 8
        data = bytearray(whole)
        data[k] ^= mask
        path.write_bytes(data)
        found = log._read_cache(path, text, COLUMNS)
        assert found is None or same_table(found, table), f"byte {k}"
    for k in range(0, len(whole), 397):
        path.write_bytes(whole[:k])
        assert log._read_cache(path, text, COLUMNS) is None
        assert same_table(read_table(tmp_path, COLUMNS)[0], table)
        assert same_table(log._read_cache(path, text, COLUMNS), table)  # made anew


def test_an_array_of_the_cache_that_became_shorter_is_noticed(tmp_path):
    """The zip file around a large one does not: its own checksum is compared at an array's end only."""
    count, path = 4000, tmp_path / "index.npz"
    place = np.zeros(count, log.PLACE)
    ones = [np.arange(count, dtype=dtype) for dtype in (np.int64, np.int32, np.int32, np.int32, np.int64)]
    ids, steps, shard, number, offset = ones
    log._write_cache(path, "key", log.Table(ids, steps, ["w-0"], shard, {"action": place}, ["a"], number, offset))
    assert np.array_equal(log._read_cache(path, "key", ["action"]).ids, ids)
    whole = path.read_bytes()
    shapes = [(m.start(1), ord("4") ^ ord("1")) for m in re.finditer(rb"'shape': \((4)000,", whole)]
    dtypes = [(m.start(1), ord("8") ^ ord("4")) for m in re.finditer(rb"'descr': '<i(8)'", whole)]
    assert (len(shapes), len(dtypes)) == (6, 2)
    for k, mask in shapes + dtypes:
        data = bytearray(whole)
        data[k] ^= mask
        path.write_bytes(data)
        assert log._read_cache(path, "key", ["action"]) is None


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
