"""Writing: what is rejected, reopening, shards, groups, several writers."""

import multiprocessing
import os
import shutil
import threading

import numpy as np
import pytest

from lewm.data import Column, DatasetInfo, EpisodeReader, EpisodeWriter, writer
from lewm.types import Episode, InputError


def leave_a_killed_writer(folder, line):
    """What a kill in mid-write leaves: bytes without a commit, and a last line that was not finished."""
    last = max((folder / "shards").iterdir(), key=lambda shard: int(shard.name.rpartition("-")[2]))
    for path in last.iterdir():
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
    assert snapshot(folder) == snapshot(tmp_path / "whole")


def test_a_writer_killed_while_creating_the_set_can_start_again(tmp_path, make_info, make_episode, write_set):
    """`dataset.json` appears whole, so a kill before it leaves a temporary file and nothing else."""
    whole, folder = tmp_path / "whole", tmp_path / "set"
    make_info().write(whole)
    half = (whole / "dataset.json").read_bytes()[:50]
    folder.mkdir()
    (folder / ".dataset.json.tmp.123").write_bytes(half)
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
        writer.commit([])
        writer.commit(episodes)
        # safe when commit returns, with the writer still open
        assert EpisodeReader(tmp_path / "group").ids.tolist() == [0, 1, 2, 3]
    assert snapshot(tmp_path / "group") == snapshot(tmp_path / "single")


def test_a_group_costs_two_syncs_of_the_disk_for_each_file_not_for_each_episode(
    tmp_path, make_info, make_episode, monkeypatch
):
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(handle), fsync(handle)))
    with EpisodeWriter(tmp_path, make_info()) as writer:
        synced.clear()
        writer.commit([make_episode(i) for i in range(50)])
    assert len(synced) == 5  # pixels.bin, pixels.idx, state.bin, action.bin; and the log, last
    assert synced[-1] not in synced[:-1]


@pytest.mark.parametrize("group", [1, 2])
def test_small_shards_rotate_and_read_the_same(tmp_path, make_info, make_episode, write_set, matches, group):
    """Between groups, so that what a kill leaves lies in one shard."""
    episodes = [make_episode(i) for i in range(9)]
    whole = write_set(tmp_path / "whole", episodes)
    with EpisodeWriter(tmp_path / "small", make_info(), shard_bytes=800) as writer:
        for first in range(0, 9, group):
            writer.commit(episodes[first : first + group])
    reader = EpisodeReader(tmp_path / "small")
    sizes = [sum(p.stat().st_size for p in s.glob("*.bin")) for s in (tmp_path / "small" / "shards").iterdir()]
    one = max(p.stat().st_size for p in (tmp_path / "whole").glob("shards/*/*"))
    assert len(sizes) > 2
    assert sorted(sizes)[1] > 800  # all but the last are filled
    assert max(sizes) < 800 + group * one  # and no more than that
    assert len(list((tmp_path / "whole" / "shards").iterdir())) == 1
    assert all(matches(reader, k, episodes[k]) for k in range(9))
    assert (reader.fingerprint, list(reader.verify())) == (whole.fingerprint, [])


def test_two_writers_side_by_side_equal_one(tmp_path, make_info, make_episode, write_set, matches):
    episodes = [make_episode(i) for i in range(6)]
    one = write_set(tmp_path / "one", episodes)
    folder, info = tmp_path / "two", make_info()
    with EpisodeWriter(folder, info, writer="a") as a, EpisodeWriter(folder, info, writer="b") as b:
        for each, k in ((b, 5), (a, 0), (b, 1), (b, 4), (a, 3), (a, 2)):
            each.commit([episodes[k]])
    reader = EpisodeReader(folder)
    assert reader.fingerprint == one.fingerprint
    assert all(matches(reader, k, episodes[k]) for k in range(6))


def test_merging_is_putting_folders_side_by_side(tmp_path, make_episode, write_set, matches):
    episodes = [make_episode(i) for i in range(4)]
    write_set(tmp_path / "a", episodes[::2], writer="a")
    write_set(tmp_path / "b", episodes[1::2], writer="b")
    shutil.copytree(tmp_path / "b", tmp_path / "a", dirs_exist_ok=True)
    reader = EpisodeReader(tmp_path / "a")
    assert all(matches(reader, k, episodes[k]) for k in range(4))


BAD = {
    "NaN state": {"state": np.full((7, 2), np.nan)},
    "infinite state": {"state": np.full((7, 2), np.inf)},
    "NaN action": {"action": np.full((6, 2), np.nan, np.float32)},
    "one row missing": {"state": np.zeros((6, 2))},
    "one row more": {"pixels": np.zeros((8, 2, 3, 1), np.uint8)},
    "wrong row shape": {"action": np.zeros((6, 3), np.float32)},
    "wrong image shape": {"pixels": np.zeros((7, 3, 2, 1), np.uint8)},
    "no row axis": {"state": np.float64(0)},
    "wrong action dtype": {"action": np.zeros((6, 2))},
    "wrong image dtype": {"pixels": np.zeros((7, 2, 3, 1), np.float32)},
    "no steps": {"action": np.zeros((0, 2), np.float32)},
    "nothing": {k: np.zeros((0, *s), d) for k, s, d in (("action", (2,), "f4"), ("state", (2,), "f8"))},
    "column missing": {"state": None},
    "action missing": {"action": None},
    "unknown column": {"reward": np.zeros(7)},
    "facts": {},
}


@pytest.mark.parametrize("columns", BAD.values(), ids=BAD.keys())
def test_an_unfit_episode_is_rejected_with_its_group_before_anything_is_written(
    tmp_path, make_info, make_episode, write_set, change, snapshot, columns
):
    write_set(tmp_path, [make_episode(0)])
    before = snapshot(tmp_path)
    bad = change(make_episode(2, facts={} if columns else {"seed": object()}), **columns)
    with EpisodeWriter(tmp_path, make_info()) as writer:
        with pytest.raises(InputError, match="episode 2"):
            writer.commit([make_episode(1), bad])
        assert snapshot(tmp_path) == before
        with pytest.raises(InputError, match="episode 2"):
            writer.commit([make_episode(i, 1) for i in range(3, 303)] + [bad])  # more than one group
        assert snapshot(tmp_path) == before
        writer.commit([make_episode(1)])
    assert EpisodeReader(tmp_path).ids.tolist() == [0, 1]


@pytest.mark.parametrize(
    "value", [np.int64(3), np.float32(1), {1, 2}, b"x", float("nan"), float("inf"), np.zeros(2)]
)
def test_facts_that_json_cannot_hold_are_rejected(tmp_path, make_info, make_episode, snapshot, value):
    with EpisodeWriter(tmp_path, make_info()) as writer:
        before = snapshot(tmp_path)
        with pytest.raises(InputError, match="episode 1: facts must be plain JSON"):
            writer.commit([make_episode(1, facts={"deep": [{"value": value}]})])
        assert snapshot(tmp_path) == before


def test_an_episode_that_is_already_there_is_rejected(tmp_path, make_info, make_episode, write_set):
    """Accepting it would make the whole set unreadable."""
    write_set(tmp_path, [make_episode(0), make_episode(1)])
    with EpisodeWriter(tmp_path, make_info()) as writer:
        with pytest.raises(InputError, match="episode 1"):
            writer.commit([make_episode(2), make_episode(1)])
        with pytest.raises(InputError, match="episode 5"):
            writer.commit([make_episode(5), make_episode(5)])
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


def test_other_bounds_are_refused(tmp_path, make_info, snapshot):
    info = make_info()
    EpisodeWriter(tmp_path, info).close()
    before = snapshot(tmp_path)
    for low, high in (((-499.0, -500.0), (500.0, 500.0)), ((-500.0, -500.0), (500.0, 501.0))):
        with pytest.raises(InputError, match=r"another data set .action_"):
            EpisodeWriter(tmp_path, DatasetInfo(info.columns, low, high, info.source))
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    "entry", ["thesis.txt", ".git/config", "shards/w0000-0/pixels.bin", "episodes-w0000.jsonl"]
)
def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path, make_info, snapshot, entry):
    (tmp_path / entry).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / entry).write_text("years of work")
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match="not a data set"):
        EpisodeWriter(tmp_path, make_info())
    assert snapshot(tmp_path) == before
    assert not list(tmp_path.rglob("*.lock"))


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".hidden", "a b", "a\n"])
def test_a_writer_name_that_is_no_plain_file_name_is_refused(tmp_path, make_info, name):
    with pytest.raises(InputError, match="writer's name"):
        EpisodeWriter(tmp_path / "set", make_info(), writer=name)
    assert not (tmp_path / "set").exists()


FILES = ["pixels.bin", "pixels.idx", "state.bin", "action.bin"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", ["short", "missing"])
def test_a_set_that_lost_committed_bytes_is_not_continued(
    tmp_path, make_info, make_episode, write_set, snapshot, file, damage
):
    """And stays as it is: not even what a killed writer left is cut off, it may be of use to mend the set."""
    write_set(tmp_path, [make_episode(0), make_episode(1)])
    leave_a_killed_writer(tmp_path, b'{"id"')
    path = tmp_path / "shards" / "w0000-0" / file
    size = 0
    if damage == "short":
        path.write_bytes(path.read_bytes()[: (size := path.stat().st_size - 16)])
    else:
        path.unlink()
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match=f"{file} has {size} bytes"):
        EpisodeWriter(tmp_path, make_info())
    assert snapshot(tmp_path) == before
    path.parent.joinpath("other").touch()
    EpisodeWriter(tmp_path, make_info(), writer="b").close()  # its lock is free, others may go on


def test_a_set_that_lost_a_shard_is_not_continued(tmp_path, make_info, make_episode, write_set, snapshot):
    write_set(tmp_path, [make_episode(0), make_episode(1)])
    shutil.rmtree(tmp_path / "shards" / "w0000-0")
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match="w0000-0"):
        EpisodeWriter(tmp_path, make_info())
    assert snapshot(tmp_path) == before
    assert not list((tmp_path / "shards").iterdir())


def test_shards_whose_log_is_gone_are_not_erased(tmp_path, make_info, make_episode, write_set, snapshot, matches):
    """They may still be mended; a writer that takes them for what a kill left would cut them off."""
    write_set(tmp_path, [make_episode(0)])
    log = tmp_path / "episodes-w0000.jsonl"
    saved = log.read_bytes()
    log.unlink()
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match=r"episodes-w0000\.jsonl is missing"):
        EpisodeWriter(tmp_path, make_info())
    assert snapshot(tmp_path) == before
    log.write_bytes(saved)
    assert matches(EpisodeReader(tmp_path), 0, make_episode(0))


def test_a_failed_first_commit_after_a_torn_line_leaves_a_sound_log(
    tmp_path, make_info, make_episode, write_set, matches, monkeypatch
):
    episodes = [make_episode(i) for i in range(2)]
    write_set(tmp_path, episodes[:1])
    leave_a_killed_writer(tmp_path, b'{"id":1,"shard":"w0000-0","ste')
    with EpisodeWriter(tmp_path, make_info()) as w:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            with pytest.raises(OSError, match="episodes 1 to 1"):
                w.commit(episodes[1:])
        w.commit(episodes[1:])
    reader = EpisodeReader(tmp_path)
    assert all(matches(reader, k, episodes[k]) for k in range(2))


def test_an_interrupt_in_mid_commit_takes_the_group_back(tmp_path, make_info, make_episode, monkeypatch, snapshot):
    with EpisodeWriter(tmp_path, make_info()) as w:
        w.commit([make_episode(0)])
        before = snapshot(tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(writer, "write_all", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                w.commit([make_episode(1)])
        assert snapshot(tmp_path) == before
        w.commit([make_episode(1)])
    assert EpisodeReader(tmp_path).ids.tolist() == [0, 1]


def test_a_name_in_use_is_refused_and_free_after_close(tmp_path, make_info, make_episode, write_set):
    with EpisodeWriter(tmp_path, make_info()) as writer:
        with pytest.raises(InputError, match="as w0000"):
            EpisodeWriter(tmp_path, make_info())
        writer.commit([make_episode(0)])
        EpisodeWriter(tmp_path, make_info(), writer="other").close()
    assert len(write_set(tmp_path, [make_episode(1)])) == 2


def test_a_writer_may_be_closed_by_another_thread(tmp_path, make_info):
    writer = EpisodeWriter(tmp_path, make_info())
    thread = threading.Thread(target=writer.close)
    thread.start()
    thread.join()
    EpisodeWriter(tmp_path, make_info()).close()


def attempt(folder, info, name, barrier, results):
    """In another process: open, say how it went, hold it until all have tried, write one episode."""
    barrier.wait()
    try:
        with EpisodeWriter(folder, info, writer=name) as writer:
            results.put((name, "opened"))
            barrier.wait()
            number = int(name[1:]) if name[1:] else 0
            writer.commit([Episode(number, {"action": np.full((2, 1), number, np.float32)})])
    except InputError as error:
        results.put((name, str(error)))
        barrier.wait()


def race(folder, names, infos):
    """Open one folder from several processes at the same moment -> [(name, 'opened' or the error)]."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lewm.data"])
    barrier, results = context.Barrier(len(names)), context.Queue()
    workers = [
        context.Process(target=attempt, args=(folder, info, name, barrier, results))
        for name, info in zip(names, infos, strict=True)
    ]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=60) for _ in names]
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * len(names)
    return sorted(found)


def slim(seed=0):
    return DatasetInfo({"action": Column("float32", (1,))}, (-9.0,), (9.0,), {"seed": seed})


def test_writers_that_create_a_set_at_the_same_time_share_it(tmp_path):
    for k in range(4):
        found = race(tmp_path / f"{k}", ["w0", "w1", "w2"], [slim()] * 3)
        assert [text for _, text in found] == ["opened"] * 3
        assert EpisodeReader(tmp_path / f"{k}").ids.tolist() == [0, 1, 2]
        assert not list((tmp_path / f"{k}").glob(".dataset*"))


def test_of_two_processes_with_one_name_one_is_refused(tmp_path):
    texts = [text for _, text in race(tmp_path, ["w", "w"], [slim()] * 2)]
    assert sorted(texts)[1] == "opened"
    assert "another process writes" in sorted(texts)[0]


def test_of_two_sets_created_in_one_folder_at_the_same_time_one_is_refused(tmp_path):
    for k in range(4):
        found = race(tmp_path / f"{k}", ["w0", "w1"], [slim(0), slim(1)])
        texts = [text for _, text in found]
        assert sorted(text == "opened" for text in texts) == [False, True]
        assert any("holds another data set" in text for text in texts)
        winner = texts.index("opened")
        reader = EpisodeReader(tmp_path / f"{k}")
        assert (reader.info.source["seed"], reader.ids.tolist()) == (winner, [winner])


def test_the_loser_of_a_race_finds_the_set_of_the_winner(tmp_path, make_info, monkeypatch):
    """The narrowest moment: another writer's `dataset.json` appears between our look and our write."""
    write = DatasetInfo.write

    def late(info, folder):
        monkeypatch.undo()
        write(make_info(source={"env": "other"}), folder)
        write(info, folder)

    monkeypatch.setattr(DatasetInfo, "write", late)
    with pytest.raises(InputError, match="another data set"):
        EpisodeWriter(tmp_path / "set", make_info())
    assert DatasetInfo.read(tmp_path / "set").source == {"env": "other"}
