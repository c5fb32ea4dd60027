"""The layout on disk: columns, dataset.json, log lines."""

import json

import numpy as np
import pytest

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


@pytest.mark.parametrize("codec", ["gzip", "zstd", "zstd:", "zstd:fast", "zstd:1000", ""])
def test_unusable_codec_is_rejected(codec):
    with pytest.raises(InputError, match="codec"):
        Column("uint8", (2,), codec=codec)


@pytest.mark.parametrize("settings", [{"dtype": "flot32"}, {"dtype": "float32", "stride": 0}])
def test_unusable_column_is_rejected(settings):
    with pytest.raises(InputError):
        Column(shape=(2,), **settings)


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


@pytest.mark.parametrize("content", ['{"format": "other"}', "[1, 2]", '"lewm-episodes"', "{}"])
def test_foreign_description(tmp_path, content):
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(InputError, match="not of format lewm-episodes"):
        EpisodeReader(tmp_path)


def test_newer_version(tmp_path, make_info, make_episode, write_set, snapshot):
    write_set(tmp_path, [make_episode(0)])
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 2}))
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match="version 2"):
        EpisodeReader(tmp_path)
    with pytest.raises(InputError, match="version 2"):
        EpisodeWriter(tmp_path, make_info())
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": "lewm-ep', b"\xff\xfe\x00\x80"])
def test_damaged_description(tmp_path, content):
    (tmp_path / "dataset.json").write_bytes(content)
    with pytest.raises(InputError, match=r"dataset\.json"):
        EpisodeReader(tmp_path)


@pytest.mark.parametrize("key", ["version", "columns", "action_low", "action_high", "source"])
def test_description_without_a_key_is_damaged(tmp_path, make_episode, write_set, key):
    write_set(tmp_path, [make_episode(0)])
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != key}))
    with pytest.raises(InputError, match=r"dataset\.json"):
        EpisodeReader(tmp_path)


def test_empty_set(tmp_path, make_info):
    EpisodeWriter(tmp_path / "set", make_info()).close()
    with pytest.raises(InputError, match="no committed episode"):
        EpisodeReader(tmp_path / "set")


@pytest.mark.parametrize("garbage", [b"garbage", b"{}", b"[1]", b"7", b"", b"\xff\xfe", b'{"id": 1'])
def test_garbage_in_the_middle_of_a_log_names_the_line(tmp_path, make_info, make_episode, write_set, garbage):
    write_set(tmp_path, [make_episode(i) for i in range(3)])
    (log,) = tmp_path.glob("*.jsonl")
    lines = log.read_bytes().splitlines()
    log.write_bytes(b"\n".join([lines[0], garbage, *lines[2:]]) + b"\n")
    before = log.read_bytes()
    with pytest.raises(InputError, match=rf"{log.name}.*line 2\b"):
        EpisodeReader(tmp_path)
    with pytest.raises(InputError, match=rf"{log.name}.*line 2\b"):
        EpisodeWriter(tmp_path, make_info())
    assert log.read_bytes() == before


def test_columns_are_little_endian_rows_on_disk(tmp_path, make_info, make_episode, write_set):
    """The documented layout, read without our reader."""
    episode = make_episode(3, steps=4)
    write_set(tmp_path, [episode])
    shard = tmp_path / "shards" / "w0000-0"
    state = np.frombuffer((shard / "state.bin").read_bytes(), "<f8").reshape(-1, 2)
    action = np.frombuffer((shard / "action.bin").read_bytes(), "<f4").reshape(-1, 2)
    assert np.array_equal(state, episode.columns["state"])
    assert np.array_equal(action, np.concatenate([episode.columns["action"], np.zeros((1, 2))]))
    ends = np.frombuffer((shard / "pixels.idx").read_bytes(), "<u8")
    assert len(ends) == 5
    assert ends[-1] == (shard / "pixels.bin").stat().st_size
