"""stable-worldmodel's HDF5: golden files by their writer, round trips, damage."""

import json
import shutil
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest

from lewm.data import Column
from lewm.data.formats import hdf5
from lewm.data.formats.swm_hdf5 import SwmHdf5
from lewm.types import InputError

GOLDEN = Path(__file__).parent / "golden"
STEPS = [3, 5]  # golden/make.py, EPISODES


def times(episode):
    return np.arange(STEPS[episode] + 1)


def silent(count):
    pass


@pytest.fixture
def golden(tmp_path):
    """A copy of the golden file to do harm to."""
    return Path(shutil.copy(GOLDEN / "swm.h5", tmp_path / "swm.h5"))


@pytest.fixture
def store(tmp_path, make_info, make_episode, change, write_set):
    """Two episodes with every kind of column."""
    info = make_info(
        reward=Column("float32", (), transition=True),
        terminated=Column("bool", (), transition=True),
        discount=Column("float64", (1,), transition=True),
        wrist=Column("uint8", (4, 4, 3), codec="zstd:1"),
        count=Column("int64", ()),
    )
    episodes = [
        change(
            make_episode(number, steps, info),
            reward=(100 * number + np.arange(steps)).astype(np.float32),
            terminated=np.arange(steps) == steps - 1,
            discount=np.arange(steps)[:, None] / 8,
            wrist=np.full((steps + 1, 4, 4, 3), 7 * number, np.uint8)
            + np.arange(steps + 1, dtype=np.uint8)[:, None, None, None],
            count=1000 * number + np.arange(steps + 1),
        )
        for number, steps in enumerate((3, 6))
    ]
    return write_set(tmp_path / "store", episodes, info), episodes


def test_their_writer_with_the_layout_of_published_sets():
    source = SwmHdf5.open(GOLDEN / "swm.h5")
    assert SwmHdf5.detect(GOLDEN / "swm.h5")
    assert len(source) == 2 and source.about["left_out"] == ["id (bookkeeping)", "step_idx (bookkeeping)"]
    assert {name: (c.dtype, c.shape, c.codec, c.transition) for name, c in source.columns.items()} == {
        "action": ("float32", (2,), "raw", True),
        "count": ("int64", (), "raw", False),
        "pixels": ("uint8", (16, 16, 3), "zstd:3", False),
        "pixels.wrist": ("uint8", (8, 8, 3), "zstd:3", False),
        "reward": ("float64", (), "raw", True),
        "state": ("float64", (3,), "raw", False),
        "terminated": ("bool", (), "raw", True),
        "truncated": ("bool", (), "raw", True),
    }
    for e, episode in enumerate(source.episodes()):
        t, c = times(e), episode.columns
        assert episode.id == e and episode.steps == STEPS[e]
        np.testing.assert_array_equal(c["pixels"][:, 3, 5, 1], 60 * e + 8 * t)
        np.testing.assert_array_equal(c["pixels.wrist"][:, 0, 0, 0], 255 - 60 * e - 8 * t)
        np.testing.assert_array_equal(c["state"], np.stack([0 * t + e, t, -t], 1))
        np.testing.assert_array_equal(c["count"], 100 * e + t)
        np.testing.assert_array_equal(c["action"] * 8, np.stack([0 * t + e, t], 1)[:-1])
        np.testing.assert_array_equal(c["reward"], 10 * e + t[:-1])
        np.testing.assert_array_equal(c["terminated"], t[1:] == STEPS[e])
        assert not c["truncated"].any()


def test_their_collector_which_leaves_out_the_reset():
    """In 0.1.1 row 0 is the observation after the first step and the last action is that of the first step."""
    with h5py.File(GOLDEN / "swm_collected.h5") as file:
        assert file["ep_len"][:].tolist() == STEPS and np.isfinite(file["action"][:]).all()
    for e, episode in enumerate(SwmHdf5.open(GOLDEN / "swm_collected.h5").episodes()):
        t, c = times(e)[1:], episode.columns
        np.testing.assert_array_equal(c["pixels"][:, 0, 0, 0], 60 * e + 8 * t)
        np.testing.assert_array_equal(c["state"][:, 1], t)
        np.testing.assert_array_equal(c["action"] * 8, np.stack([0 * t + e, t], 1)[:-1])
        np.testing.assert_array_equal(c["reward"], 10 * e + t[:-1])


def test_reads_from_the_episode_asked_for(monkeypatch):
    read = []
    rows = hdf5.read_rows
    source = SwmHdf5.open(GOLDEN / "swm.h5")
    monkeypatch.setattr(hdf5, "read_rows", lambda data, a, b, where: read.append((a, b)) or rows(data, a, b, where))
    assert [episode.id for episode in source.episodes(1)] == [1]
    assert min(a for a, _ in read) >= STEPS[0] + 1
    actions = list(source.actions())
    assert [len(a) for a in actions] == STEPS and actions[1][3, 1] == 3 / 8


def test_round_trip(store, tmp_path, matches, write_set):
    reader, episodes = store
    ticks = []
    SwmHdf5.write(reader, tmp_path / "out.h5", fps=10, tick=ticks.append)
    assert ticks == [1, 1] and sorted(p.name for p in tmp_path.iterdir()) == ["out.h5", "store"]
    source = SwmHdf5.open(tmp_path / "out.h5")
    assert {k: (c.dtype, c.shape, c.transition) for k, c in source.columns.items()} == {
        k: (c.dtype, c.shape, c.transition) for k, c in reader.info.columns.items()
    }
    for given, back in zip(episodes, source.episodes(), strict=True):
        assert set(given.columns) == set(back.columns)
        for name, rows in given.columns.items():
            assert rows.dtype == back.columns[name].dtype
            np.testing.assert_array_equal(rows, back.columns[name])


def test_export_has_their_layout(store, tmp_path):
    SwmHdf5.write(store[0], tmp_path / "out.h5", fps=10, tick=silent)
    with h5py.File(tmp_path / "out.h5") as file, h5py.File(GOLDEN / "swm.h5") as theirs:
        for name in ("ep_len", "ep_offset"):
            assert file[name].dtype == theirs[name].dtype and file[name].maxshape == theirs[name].maxshape
        assert file["ep_len"][:].tolist() == [4, 7] and file["ep_offset"][:].tolist() == [0, 4]
        assert file["pixels"].chunks == (1, 2, 3, 1) and file["pixels"].maxshape == (None, 2, 3, 1)
        np.testing.assert_array_equal(np.isnan(file["action"][:, 0]), np.isin(np.arange(11), [3, 10]))
        np.testing.assert_array_equal(np.isnan(file["reward"][:]), np.isin(np.arange(11), [0, 4]))
        assert file["reward"][1:4].tolist() == [0, 1, 2]
        assert np.flatnonzero(file["terminated"][:]).tolist() == [3, 10]


def test_interrupted_export_leaves_nothing_and_starts_again(store, tmp_path):
    out = tmp_path / "out.h5"

    def stop(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SwmHdf5.write(store[0], out, fps=10, tick=stop)
    assert not out.exists()
    SwmHdf5.write(store[0], out, fps=10, tick=silent)
    before = out.read_bytes()
    ticks = []
    SwmHdf5.write(store[0], out, fps=10, tick=ticks.append)
    assert sum(ticks) == 2 and out.read_bytes() == before
    shutil.copy(GOLDEN / "swm.h5", out)
    with pytest.raises(InputError, match="not an export of this data set"):
        SwmHdf5.write(store[0], out, fps=10, tick=silent)


def test_export_refuses_what_has_no_place(tmp_path, make_info, make_episode, write_set, store):
    info = make_info(stride=2)
    reader = write_set(tmp_path / "strided", [make_episode(0, 4, info)], info)
    with pytest.raises(InputError, match="'pixels' has one row in 2 steps"):
        SwmHdf5.write(reader, tmp_path / "out.h5", fps=10, tick=silent)
    with pytest.raises(InputError, match=r"name it \*\.h5"):
        SwmHdf5.write(store[0], tmp_path / "out", fps=10, tick=silent)


@pytest.mark.parametrize("name", ["ep_idx", "episode_idx"])
def test_older_files_with_an_episode_column(golden, name):
    with h5py.File(golden, "a") as file:
        file[name] = np.repeat([4, 2], file["ep_len"][:])
        del file["ep_len"], file["ep_offset"]
    assert SwmHdf5.detect(golden)
    source = SwmHdf5.open(golden)
    assert f"{name} (bookkeeping)" in source.about["left_out"]
    assert [e.columns["state"][:, :2].tolist() for e in source.episodes()] == [
        [[e, t] for t in times(e)] for e in range(2)
    ]
    with h5py.File(golden, "a") as file:
        file[name][2] = 2
    with pytest.raises(InputError, match="not together"):
        SwmHdf5.open(golden)


def test_text_and_seed_become_facts_where_constant(golden):
    with h5py.File(golden, "a") as file:
        rows = file["ep_len"][:]
        file["task"] = np.repeat(["push", "pull"], rows).astype(object)
        file["note"] = [str(n) for n in range(sum(rows))]
        file["seed"] = np.repeat([5, 6], rows)
    source = SwmHdf5.open(golden)
    assert [e.facts for e in source.episodes()] == [{"task": "push", "seed": 5}, {"task": "pull", "seed": 6}]
    assert any(text.startswith("note (text") for text in source.about["left_out"])
    json.dumps(source.about)


def test_odd_columns(golden):
    with h5py.File(golden, "a") as file:
        total = len(file["action"])
        file["frame"] = np.arange(total, dtype=">i4")
        file["complex"] = np.zeros(total, complex)
        file["short"] = np.zeros(2)
        file[".odd name"] = np.zeros(total)
        file.create_group("group/inner")
        file["discrete"] = np.arange(total)
        del file["action"]
        file["action"] = file["discrete"]
    source = SwmHdf5.open(golden)
    assert source.columns["action"] == Column("float32", (1,), transition=True)
    assert source.columns["frame"].dtype == "int32"
    assert source.about["renamed"] == {"_.odd_name": ".odd name"} and "_.odd_name" in source.columns
    assert [text.split()[0] for text in source.about["left_out"]] == ["complex", "group", "id", "short", "step_idx"]
    assert next(source.episodes(1)).columns["action"].tolist() == [[4.0], [5], [6], [7], [8]]


def test_one_row_episodes_of_their_collector_are_skipped_and_counted(golden):
    with h5py.File(golden, "a") as file:
        file["ep_len"][...], file["ep_offset"][...] = [1, 6], [3, 4]
    source = SwmHdf5.open(golden)
    assert source.about["skipped_one_row_episodes"] == 1
    (episode,) = source.episodes()
    assert episode.id == 0 and episode.columns["state"][0].tolist() == [1, 0, 0]
    with h5py.File(golden, "a") as file:
        file["ep_len"][...] = 1
    with pytest.raises(InputError, match="no episode has two rows"):
        SwmHdf5.open(golden)


def test_folder_with_one_file(golden):
    assert SwmHdf5.detect(golden.parent) and len(SwmHdf5.open(golden.parent)) == 2
    shutil.copy(golden, golden.with_name("b.hdf5"))
    assert not SwmHdf5.detect(golden.parent)
    with pytest.raises(InputError, match="it has 2"):
        SwmHdf5.open(golden.parent)


def test_damaged_and_foreign_files(golden, tmp_path):
    data = golden.read_bytes()
    for broken in (data[: len(data) // 2], b"", b"not HDF5 at all"):
        golden.write_bytes(broken)
        assert not SwmHdf5.detect(golden)
        with pytest.raises(InputError, match=r"swm\.h5 is damaged, cut short or not HDF5"):
            SwmHdf5.open(golden)
    with pytest.raises(InputError, match="does not exist"):
        SwmHdf5.open(tmp_path / "none.h5")
    with h5py.File(golden, "w") as file:
        file["x"] = 1
    assert not SwmHdf5.detect(golden)
    with pytest.raises(InputError, match="no array 'action'"):
        SwmHdf5.open(golden)


def test_index_beyond_the_rows(golden):
    with h5py.File(golden, "a") as file:
        file["ep_len"][1] = 7
    with pytest.raises(InputError, match=r"swm\.h5: episode 1 should be rows 4 to 11, the file has 10"):
        SwmHdf5.open(golden)


def test_missing_filter_names_pip(golden, monkeypatch):
    with h5py.File(golden, "a") as file:
        rows = file["count"][:]
        del file["count"]
        file.create_dataset("count", data=rows, compression="gzip")
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: False)
    source = SwmHdf5.open(golden)
    assert len(list(source.episodes())) == 2  # a filter that works is not asked after
    with h5py.File(golden, "a") as file:  # harm the compressed chunk
        offset, size = (info := file["count"].id.get_chunk_info(0)).byte_offset, info.size
    data = bytearray(golden.read_bytes())
    data[offset : offset + size] = bytes(size)
    golden.write_bytes(data)
    with pytest.raises(InputError, match=r"episode 0: column '/count'.*pip install h5py hdf5plugin"):
        list(source.episodes())
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"episode 0: column '/count' cannot be read"):
        list(source.episodes())


def test_published_compression_is_read(golden):
    with h5py.File(golden, "a") as file:
        frames = file["pixels"][:]
        del file["pixels"]
        file.create_dataset("pixels", data=frames, chunks=(1, 16, 16, 3), **hdf5plugin.Blosc(cname="lz4"))
    assert list(SwmHdf5.open(golden).episodes())[1].columns["pixels"][2, 0, 0, 0] == 76


def test_without_h5py(monkeypatch):
    def gone(module, extra):
        raise InputError(f'pip install "lewm[{extra}]"')

    monkeypatch.setattr(hdf5, "need", gone)
    assert not SwmHdf5.detect(GOLDEN / "swm.h5")
    with pytest.raises(InputError, match=r"lewm\[hdf5\]"):
        SwmHdf5.open(GOLDEN / "swm.h5")
