"""The layout on disk: columns, dataset.json."""

import json
import os
import zlib

import numpy as np
import pytest
import zstandard

from lewm.data import Column, DatasetInfo, EpisodeReader, EpisodeWriter
from lewm.types import InputError


def test_description_survives_a_round_trip(tmp_path, make_info):
    info = make_info(stride=5, source={"env": {"name": "x", "sizes": [1, 2]}, "seed": 3}, creator={"commit": "abc"})
    info.write(tmp_path / "a" / "set")
    assert DatasetInfo.read(tmp_path / "a" / "set") == info


def test_tuples_in_the_source_compare_equal_after_a_round_trip(tmp_path, make_info, make_episode, write_set):
    info = make_info(source={"sizes": (1, 2)})
    write_set(tmp_path / "set", [make_episode(0)], info)
    assert len(write_set(tmp_path / "set", [make_episode(1)], info)) == 2


@pytest.mark.parametrize(
    ("column", "steps", "rows", "row_bytes"),
    [
        (Column("uint8", (4, 4, 3)), 7, 8, 48),
        (Column("float64", (2,), stride=5), 4, 1, 16),
        (Column("float64", (2,), stride=5), 5, 2, 16),
        (Column("float32", ()), 1, 2, 4),
    ],
)
def test_rows_and_sizes(column, steps, rows, row_bytes):
    assert (column.rows(steps), column.row_bytes) == (rows, row_bytes)


@pytest.mark.parametrize(
    "codec",
    ["gzip", "zstd", "zstd:", "zstd:fast", "zstd:0", "zstd:23", "zstd:-1", "jpeg:0", "jpeg:101", "raw:1", ""],
)
def test_unusable_codec_is_rejected(codec):
    with pytest.raises(InputError, match="codec"):
        Column("uint8", (4, 4, 3), codec=codec)


@pytest.mark.parametrize(
    "settings",
    [
        {"dtype": "flot32", "shape": (2,)},
        {"dtype": "complex64", "shape": (2,)},
        {"dtype": "<U8", "shape": ()},
        {"dtype": "object", "shape": ()},
        {"dtype": "datetime64[s]", "shape": ()},
        {"dtype": "float32", "shape": (2,), "stride": 0},
        {"dtype": "float32", "shape": (2, 0)},
        {"dtype": "float32", "shape": (2,), "stride": 2, "transition": True},
        {"dtype": "float32", "shape": (4, 4, 3), "codec": "jpeg:90"},
        {"dtype": "uint8", "shape": (4, 4, 4), "codec": "jpeg:90"},
        {"dtype": "uint8", "shape": (12,), "codec": "jpeg:90"},
    ],
)
def test_unusable_column_is_rejected(settings):
    with pytest.raises(InputError):
        Column(**settings)


def test_a_dtype_is_kept_by_its_name_whatever_its_byte_order():
    assert Column(">f4", (2,)).dtype == Column("<f4", (2,)).dtype == Column("f", (2,)).dtype == "float32"


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".hidden", "a b", "naïve"])
def test_a_column_name_that_is_no_plain_file_name_is_rejected(make_info, name):
    with pytest.raises(InputError, match="name"):
        make_info(**{name: Column("float32", ())})


@pytest.mark.parametrize(
    "action",
    [None, Column("int64", (2,)), Column("float32", ()), Column("float32", (3,)), Column("float32", (2, 2))],
)
def test_a_set_needs_float_actions_with_a_bound_for_each(action):
    columns = {} if action is None else {"action": action}
    with pytest.raises(InputError, match="action"):
        DatasetInfo(columns, (-1.0, -1.0), (1.0, 1.0))


def test_an_action_is_a_transition_whatever_was_said(make_info):
    assert make_info().columns["action"].transition
    assert not make_info().columns["state"].transition


def test_missing_description(tmp_path):
    with pytest.raises(InputError, match="not a data set"):
        EpisodeReader(tmp_path)
    with pytest.raises(InputError, match="not a data set"):
        EpisodeReader(tmp_path / "nowhere")


def test_a_file_in_place_of_the_folder(tmp_path, make_info):
    path = tmp_path / "file"
    path.write_text("hello")
    with pytest.raises(InputError, match="not a data set"):
        EpisodeReader(path)
    with pytest.raises(InputError, match="not a data set"):
        EpisodeWriter(path, make_info())
    assert path.read_text() == "hello"


@pytest.mark.parametrize("content", ['{"format": "other"}', "[1, 2]", '"lewm-episodes"', "{}", "7", "null"])
def test_foreign_description(tmp_path, make_info, snapshot, content):
    (tmp_path / "dataset.json").write_text(content)
    before = snapshot(tmp_path)
    for use in (EpisodeReader, lambda folder: EpisodeWriter(folder, make_info())):
        with pytest.raises(InputError, match=r"dataset\.json is not of format lewm-episodes"):
            use(tmp_path)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("version", [1, 3, "2", None])
def test_another_version(tmp_path, make_info, make_episode, write_set, snapshot, version):
    write_set(tmp_path, [make_episode(0)])
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": version}))
    before = snapshot(tmp_path)
    for use in (EpisodeReader, lambda folder: EpisodeWriter(folder, make_info())):
        with pytest.raises(InputError, match=rf"dataset\.json has version {version}.* reads version 2"):
            use(tmp_path)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": "lewm-ep', b"\xff\xfe\x00\x80", b"[" * 10**5])
def test_damaged_description(tmp_path, content):
    (tmp_path / "dataset.json").write_bytes(content)
    with pytest.raises(InputError, match=r"dataset\.json"):
        EpisodeReader(tmp_path)


def rewrite(path, record):
    """As somebody would who edits the file and its checksum with it."""
    from lewm.data.schema import _checksum

    record.pop("crc32", None)
    path.write_text(json.dumps({**record, "crc32": _checksum(record)}))


@pytest.mark.parametrize("key", ["columns", "action_low", "action_high", "source", "creator"])
def test_description_without_a_key_is_damaged(tmp_path, make_episode, write_set, key):
    write_set(tmp_path, [make_episode(0)])
    path = tmp_path / "dataset.json"
    record = json.loads(path.read_text())
    rewrite(path, dict(record))
    assert len(EpisodeReader(tmp_path)) == 1
    rewrite(path, {k: v for k, v in record.items() if k != key})
    with pytest.raises(InputError, match=r"dataset\.json is damaged"):
        EpisodeReader(tmp_path)
    path.write_text(json.dumps({k: v for k, v in record.items() if k != key}))
    with pytest.raises(InputError, match=r"dataset\.json is damaged.*checksum"):
        EpisodeReader(tmp_path)


def test_an_edited_description_is_damaged(tmp_path, make_episode, write_set):
    """A bound that somebody changed by hand would change what every number means."""
    write_set(tmp_path, [make_episode(0)])
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"action_low": [-1.0, -1.0]}))
    with pytest.raises(InputError, match="checksum"):
        EpisodeReader(tmp_path)


def test_a_description_that_cannot_be_written_leaves_no_half_of_it(tmp_path, make_info, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space"):
            EpisodeWriter(tmp_path / "set", make_info())
    assert not (tmp_path / "set" / "dataset.json").exists()
    EpisodeWriter(tmp_path / "set", make_info()).close()  # and the folder is not taken for something else
    assert DatasetInfo.read(tmp_path / "set") == make_info()


def test_columns_are_little_endian_rows_on_disk(tmp_path, make_info, make_episode, write_set):
    """The documented layout, read without our reader."""
    episode = make_episode(3, steps=4)
    write_set(tmp_path, [episode])
    shard = tmp_path / "shards" / "w0000-0"
    state = np.frombuffer((shard / "state.bin").read_bytes(), "<f8").reshape(-1, 2)
    action = np.frombuffer((shard / "action.bin").read_bytes(), "<f4").reshape(-1, 2)
    assert np.array_equal(state, episode.columns["state"])
    assert np.array_equal(action, np.concatenate([episode.columns["action"], np.zeros((1, 2))]))
    index = np.frombuffer((shard / "pixels.idx").read_bytes(), "<u8").reshape(-1, 2)
    stored = (shard / "pixels.bin").read_bytes()
    assert len(index) == 5 and index[-1, 0] == len(stored)
    begins = [0, *index[:-1, 0].tolist()]
    for begin, (end, check), frame in zip(begins, index.tolist(), episode.columns["pixels"], strict=True):
        assert zlib.crc32(stored[begin:end]) == check
        assert zstandard.ZstdDecompressor().decompress(stored[begin:end]) == frame.tobytes()


BOUNDS = [((np.nan,), (1.0,)), ((-np.inf,), (np.inf,)), ((1.0,), (1.0,)), ((2.0,), (1.0,))]


@pytest.mark.parametrize(("low", "high"), BOUNDS)
def test_bounds_that_no_planner_can_use_are_rejected_before_a_month_is_recorded_with_them(low, high):
    with pytest.raises(InputError, match="finite with low < high"):
        DatasetInfo({"action": Column("float32", (1,))}, low, high)


def test_bounds_may_be_numpy_numbers(tmp_path):
    low, high = np.array([-1, -2], np.float32), np.array([1, 2], np.float32)
    info = DatasetInfo({"action": Column("float32", (2,))}, tuple(low), tuple(high))
    info.write(tmp_path)
    assert DatasetInfo.read(tmp_path) == info


@pytest.mark.parametrize("value", [np.int64(3), {1, 2}, float("nan"), object(), b"x"])
@pytest.mark.parametrize("key", ["source", "creator"])
def test_a_source_that_json_cannot_hold_is_rejected(make_info, key, value):
    with pytest.raises(InputError, match="plain JSON"):
        make_info(**{key: {"deep": [value]}})


@pytest.mark.parametrize("name", ["Action", "aux", "NUL.x", "a/b", "..", ".hidden", ""])
def test_names_that_some_system_cannot_keep_apart_are_refused(make_info, name):
    with pytest.raises(InputError, match=r"differ in more than case|a column's name"):
        make_info(**{name: Column("float32", ())})
