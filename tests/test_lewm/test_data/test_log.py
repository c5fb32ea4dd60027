"""The commit log and its cache."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lewm.data import EpisodeReader, EpisodeWriter
from lewm.data.log import Commit, committed_ids, parse_log
from lewm.types import InputError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
spans = st.tuples(*[st.integers(0, 2**62)] * 3).map(lambda span: (span[0], *sorted(span[1:])))
places = st.tuples(spans, st.integers(0, 2**32 - 1)).map(lambda p: (*p[0], p[1], "00ff00ff00ff00ff"))
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


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"shard": "../../other/shards/w-0"},
        {"shard": "/tmp/w-0"},
        {"shard": 7},
        {"columns": {"action": (-1, 0, 8, 0, "00")}},
        {"columns": {"action": (0, 8, 4, 0, "00")}},
        {"columns": {"action": (0, 8)}},
        {"columns": [1]},
    ],
)
def test_a_line_that_points_elsewhere_is_no_commit(wrong):
    """With a checksum that is right: files from others are data, not commands."""
    line = Commit(**{**vars(Commit(0, "w-0", 1, {"action": (0, 0, 8, 0, "00")}, {})), **wrong}).line()
    with pytest.raises(ValueError, match=r"commit|unpack|object"):
        Commit.parse(line.encode())


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
        assert sum(length for _, length in parse_log(path)) == len(first)
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


def test_two_different_episodes_of_one_id_are_an_error(tmp_path, make_episode, write_set, matches):
    write_set(tmp_path, [make_episode(1), make_episode(2)], writer="a")
    with pytest.raises(InputError, match=r"two different episodes 2 \(episodes-a\.jsonl and episodes-b\.jsonl\)"):
        write_set(tmp_path, [make_episode(2, steps=4), make_episode(3)], writer="b")
    reader = EpisodeReader(tmp_path, skip_damaged=True)
    assert reader.ids.tolist() == [1, 2, 3]
    assert all(matches(reader, k, make_episode(k + 1)) for k in range(3))


def test_a_work_item_that_was_done_twice_counts_once(tmp_path, make_episode, write_set, matches):
    """A worker that outlived its collection, and the collection that was started again."""
    once = write_set(tmp_path / "once", [make_episode(n) for n in (1, 2, 3)])
    write_set(tmp_path / "twice", [make_episode(1), make_episode(2)], writer="a")
    reader = write_set(tmp_path / "twice", [make_episode(2), make_episode(3)], writer="b")
    assert all(matches(reader, k, make_episode(k + 1)) for k in range(3))
    assert reader.fingerprint == once.fingerprint and not list(reader.verify())
