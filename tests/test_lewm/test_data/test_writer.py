"""Writing: what is rejected, reopening, shards, kills, several writers."""

import json
import os
import random
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import lewm
from lewm.data import Column, EpisodeReader, EpisodeWriter
from lewm.types import InputError

RECORDER = '''
"""Writes the missing episodes up to `last`, three to a commit; an episode is a function of its number."""
import sys
from pathlib import Path
import numpy as np
from lewm.data import Column, DatasetInfo, EpisodeReader, EpisodeWriter
from lewm.types import Episode, InputError

COLUMNS = {"pixels": Column("uint8", (8, 8, 3), 2, "zstd:1"), "action": Column("float32", (2,))}
INFO = DatasetInfo(COLUMNS, (-9.0, -9.0), (9.0, 9.0))

def episode(number):
    rng = np.random.default_rng(number)
    steps = int(rng.integers(1, 40))
    pixels = rng.integers(0, 9, (steps // 2 + 1, 8, 8, 3), np.uint8)
    return Episode(number, {"pixels": pixels, "action": rng.random((steps, 2), np.float32)})

def record(folder, last):
    with EpisodeWriter(folder, INFO, shard_bytes=20_000) as writer:
        try:
            done = set(EpisodeReader(folder).ids.tolist())
        except InputError:
            done = set()
        missing = [i for i in range(last) if i not in done]
        for first in range(0, len(missing), 3):
            writer.commit([episode(i) for i in missing[first : first + 3]])

if __name__ == "__main__":
    record(Path(sys.argv[1]), 10**6)
'''


def run_and_kill(script, folder, commits):
    """Record in another process and kill -9 it at a random moment after `commits` more episodes."""

    def lines() -> int:
        return sum(log.read_bytes().count(b"\n") for log in folder.glob("*.jsonl"))

    enough, limit = lines() + commits, time.monotonic() + 30
    root = Path(lewm.__file__).parents[1]
    process = subprocess.Popen(
        [sys.executable, script, folder], env={**os.environ, "PYTHONPATH": str(root)}, stderr=subprocess.PIPE
    )
    while lines() < enough and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.002)
    time.sleep(random.uniform(0, 0.02))
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors.decode()


def test_kill_at_random_moments_loses_no_committed_episode(tmp_path):
    script = tmp_path / "recorder.py"
    script.write_text(RECORDER)
    recorder, folder = runpy.run_path(str(script)), tmp_path / "killed"
    for commits in (1, 7, 20):
        run_and_kill(script, folder, commits)
        reader = EpisodeReader(folder)
        assert list(reader.verify()) == []
        assert reader.ids.tolist() == list(range(len(reader)))
        for position in range(len(reader)):
            expected = recorder["episode"](position).columns
            assert np.array_equal(reader.column("pixels", position), expected["pixels"])
            assert np.array_equal(reader.column("action", position)[:-1], expected["action"])
    last = len(reader) + 5
    recorder["record"](folder, last)
    recorder["record"](tmp_path / "uninterrupted", last)
    assert EpisodeReader(folder).fingerprint == EpisodeReader(tmp_path / "uninterrupted").fingerprint
    assert list(EpisodeReader(folder).verify()) == []


def leave_a_killed_writer(folder, line):
    """What a kill in mid-write leaves: bytes without a commit, and a last line that was not finished."""
    for path in folder.glob("shards/*/*"):
        with path.open("ab") as file:
            file.write(b"\x07" * 13)
    (log,) = folder.glob("*.jsonl")
    with log.open("ab") as file:
        file.write(line)


@pytest.mark.parametrize("cut", [0, 1, 30, -1])
@pytest.mark.parametrize("shard_bytes", [1, 1 << 30])
def test_unfinished_bytes_are_ignored_by_readers_and_cut_by_writers(
    tmp_path, make_episode, write_set, matches, snapshot, cut, shard_bytes
):
    episodes = [make_episode(i) for i in range(4)]
    write_set(tmp_path / "whole", episodes, shard_bytes=shard_bytes)
    folder = tmp_path / "set"
    write_set(folder, episodes[:2], shard_bytes=shard_bytes)
    (log,) = (tmp_path / "whole").glob("*.jsonl")
    leave_a_killed_writer(folder, log.read_bytes().splitlines()[2][:cut])
    reader = EpisodeReader(folder)
    assert list(reader.verify()) == []
    assert all(matches(reader, k, episodes[k]) for k in range(2))
    reader = write_set(folder, episodes[2:], shard_bytes=shard_bytes)
    assert all(matches(reader, k, episodes[k]) for k in range(4))
    assert reader.fingerprint == EpisodeReader(tmp_path / "whole").fingerprint
    if shard_bytes > 1:  # otherwise bytes may stay behind in a shard that is full and never opened again
        assert snapshot(folder) == snapshot(tmp_path / "whole")


def test_a_writer_killed_while_creating_the_set_can_start_again(tmp_path, make_info, make_episode, write_set):
    """`dataset.json` appears by rename, so a kill before it leaves a temporary file and nothing else."""
    whole, folder = tmp_path / "whole", tmp_path / "set"
    make_info().write(whole)
    half = (whole / "dataset.json").read_bytes()[:50]
    folder.mkdir()
    (folder / ".dataset.json.tmp").write_bytes(half)
    assert len(write_set(folder, [make_episode(0)])) == 1


def test_reopening_continues(tmp_path, make_episode, write_set, snapshot):
    episodes = [make_episode(i, steps=3 + i) for i in range(5)]
    write_set(tmp_path / "once", episodes)
    for episode in episodes:
        write_set(tmp_path / "often", [episode])
    assert snapshot(tmp_path / "often") == snapshot(tmp_path / "once")


def test_reopening_without_writing_changes_nothing(tmp_path, make_episode, make_info, write_set, snapshot):
    write_set(tmp_path, [make_episode(0)])
    before = snapshot(tmp_path)
    EpisodeWriter(tmp_path, make_info(creator={"version": "newer"})).close()
    assert snapshot(tmp_path) == before


def test_a_group_is_committed_together_and_equals_single_commits(
    tmp_path, make_info, make_episode, write_set, snapshot
):
    episodes = [make_episode(i) for i in range(4)]
    write_set(tmp_path / "single", episodes)
    with EpisodeWriter(tmp_path / "group", make_info()) as writer:
        writer.commit(episodes)
        # safe when commit returns, with the writer still open
        assert EpisodeReader(tmp_path / "group").ids.tolist() == [0, 1, 2, 3]
    assert snapshot(tmp_path / "group") == snapshot(tmp_path / "single")


@pytest.mark.parametrize("grouped", [False, True])
def test_small_shards_rotate_and_read_the_same(tmp_path, make_info, make_episode, write_set, matches, grouped):
    episodes = [make_episode(i) for i in range(9)]
    whole = write_set(tmp_path / "whole", episodes)
    with EpisodeWriter(tmp_path / "small", make_info(), shard_bytes=400) as writer:
        for group in [episodes] if grouped else [[e] for e in episodes]:
            writer.commit(group)
    reader = EpisodeReader(tmp_path / "small")
    assert len(list((tmp_path / "small" / "shards").iterdir())) > 2
    assert len(list((tmp_path / "whole" / "shards").iterdir())) == 1
    assert all(matches(reader, k, episodes[k]) for k in range(9))
    assert (reader.fingerprint, list(reader.verify())) == (whole.fingerprint, [])


def test_two_writers_side_by_side_equal_one(tmp_path, make_info, make_episode, write_set, matches):
    episodes = [make_episode(i) for i in range(6)]
    one = write_set(tmp_path / "one", episodes)
    folder, info = tmp_path / "two", make_info()
    with EpisodeWriter(folder, info, writer="a") as a, EpisodeWriter(folder, info, writer="b") as b:
        for writer, k in ((b, 5), (a, 0), (b, 1), (b, 4), (a, 3), (a, 2)):
            writer.commit([episodes[k]])
    reader = EpisodeReader(folder)
    assert reader.fingerprint == one.fingerprint
    assert all(matches(reader, k, episodes[k]) for k in range(6))


BAD = {
    "NaN state": {"state": np.full((7, 2), np.nan)},
    "infinite state": {"state": np.full((7, 2), np.inf)},
    "NaN action": {"action": np.full((6, 2), np.nan, np.float32)},
    "one row missing": {"state": np.zeros((6, 2))},
    "one row more": {"pixels": np.zeros((8, 2, 3, 1), np.uint8)},
    "wrong row shape": {"action": np.zeros((6, 3), np.float32)},
    "wrong image shape": {"pixels": np.zeros((7, 3, 2, 1), np.uint8)},
    "wrong action dtype": {"action": np.zeros((6, 2))},
    "wrong image dtype": {"pixels": np.zeros((7, 2, 3, 1), np.float32)},
    "no steps": {"action": np.zeros((0, 2), np.float32)},
    "column missing": {"state": None},
    "action missing": {"action": None},
    "unknown column": {"reward": np.zeros(7)},
}


@pytest.mark.parametrize("columns", BAD.values(), ids=BAD.keys())
def test_an_unfit_episode_is_rejected_with_its_group_before_anything_is_written(
    tmp_path, make_info, make_episode, write_set, change, snapshot, columns
):
    write_set(tmp_path, [make_episode(0)])
    before = snapshot(tmp_path)
    with EpisodeWriter(tmp_path, make_info()) as writer, pytest.raises(InputError, match="episode 2"):
        writer.commit([make_episode(1), change(make_episode(2), **columns)])
    assert snapshot(tmp_path) == before
    assert write_set(tmp_path, [make_episode(1)]).ids.tolist() == [0, 1]


def test_facts_that_json_cannot_hold_are_rejected_before_anything_is_written(
    tmp_path, make_info, make_episode, write_set, snapshot
):
    write_set(tmp_path, [make_episode(0)])
    before = snapshot(tmp_path)
    with EpisodeWriter(tmp_path, make_info()) as writer, pytest.raises(InputError, match="episode 1"):
        writer.commit([make_episode(1, facts={"seed": object()})])
    assert snapshot(tmp_path) == before


def test_an_episode_that_is_already_there_is_rejected(tmp_path, make_info, make_episode, write_set):
    """Accepting it would make the whole set unreadable."""
    write_set(tmp_path, [make_episode(0), make_episode(1)])
    with EpisodeWriter(tmp_path, make_info()) as writer, pytest.raises(InputError, match="episode 1"):
        writer.commit([make_episode(2), make_episode(1)])
    assert EpisodeReader(tmp_path).ids.tolist() == [0, 1]


OTHER = {
    "columns": {"extra": Column("float32", (1,))},
    "dtype": {"state": Column("float32", (2,))},
    "stride": {"stride": 3},
    "codec": {"codec": "raw"},
    "source": {"source": {"env": "stub", "seed": 1}},
}


@pytest.mark.parametrize("settings", OTHER.values(), ids=OTHER.keys())
def test_another_description_is_refused_and_nothing_changes(
    tmp_path, make_info, make_episode, write_set, snapshot, settings
):
    write_set(tmp_path, [make_episode(0)])
    leave_a_killed_writer(tmp_path, b'{"id"')  # not even the tail of a killed writer is touched
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match="holds another data set"):
        EpisodeWriter(tmp_path, make_info(**settings))
    assert snapshot(tmp_path) == before


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path, make_info, snapshot):
    (tmp_path / "thesis.txt").write_text("years of work")
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match="not a data set"):
        EpisodeWriter(tmp_path, make_info())
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("file", ["pixels.bin", "pixels.idx", "state.bin", "action.bin"])
def test_a_set_that_lost_committed_bytes_is_not_continued(tmp_path, make_info, make_episode, write_set, file):
    write_set(tmp_path, [make_episode(0), make_episode(1)])
    path = tmp_path / "shards" / "w0000-0" / file
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(InputError, match=f"{file} has {len(whole) - 3} bytes"):
        EpisodeWriter(tmp_path, make_info())
    assert path.read_bytes() == whole[:-3]


def test_log_lines_are_json_and_hold_the_facts(tmp_path, make_episode, write_set):
    facts = {"seed": [1, 2], "policy": "ou", "note": "line\nbreak ü"}
    write_set(tmp_path, [make_episode(0, facts=facts)])
    (log,) = tmp_path.glob("*.jsonl")
    assert json.loads(log.read_text())["facts"] == facts
    assert EpisodeReader(tmp_path).episodes[0].facts == facts
