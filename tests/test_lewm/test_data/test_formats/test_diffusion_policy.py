"""Diffusion-policy replay buffers: rows say episode and step, chunks do not end where episodes do."""

import json
import shutil
import sys

import numcodecs
import numpy as np
import pytest
import zarr

from lewm.data.formats.base import bounds_of
from lewm.data.formats.diffusion_policy import DiffusionPolicy
from lewm.types import InputError

LENGTHS = (4, 6, 3)
NUMBER = np.repeat(np.arange(3), LENGTHS)
STEP = np.concatenate([np.arange(n) for n in LENGTHS])


def arrays():
    pair = np.stack([NUMBER, STEP], 1)
    img = np.zeros((13, 8, 9, 3), np.float32)
    img[:, 0, 0, :2], img[:, 1:] = pair, 200
    return {
        "img": img,
        "hand": (img[:, :2, :3] + 1).astype(np.uint8),
        "state": pair.astype(np.float32),
        "action": pair.astype(np.float32) + 0.5,
        "keypoint": np.repeat(pair[:, None].astype(np.float64), 4, axis=1),
        "n_contacts": STEP.astype(np.int64),
    }


def buffer(path, chunk=5, zarr_format=2, ends=None, zipped=False, **changes):
    store = zarr.storage.ZipStore(path, mode="w") if zipped else path
    group = zarr.open_group(store, mode="w", zarr_format=zarr_format)
    data, meta = group.create_group("data"), group.create_group("meta")
    compressor = numcodecs.Blosc("zstd", 5, 2) if zarr_format == 2 else "auto"
    for name, values in (arrays() | changes).items():
        if values is not None:
            chunks = (chunk, *values.shape[1:])
            data.create_array(name, data=values, chunks=chunks, compressors=compressor)
    meta.create_array("episode_ends", data=np.cumsum(LENGTHS) if ends is None else np.array(ends))
    if zipped:
        store.close()
    return path


@pytest.mark.parametrize("layout", [{}, {"chunk": 1}, {"zarr_format": 3}, {"zipped": True}])
def test_rows_become_steps(tmp_path, layout):
    path = buffer(tmp_path / ("a.zarr.zip" if "zipped" in layout else "a.zarr"), **layout)
    source = DiffusionPolicy.open(path)
    assert DiffusionPolicy.detect(path) and len(source) == 3
    assert {name: (c.dtype, c.shape) for name, c in source.columns.items()} == {
        "pixels": ("uint8", (8, 9, 3)),
        "hand": ("uint8", (2, 3, 3)),
        "state": ("float32", (2,)),
        "action": ("float32", (2,)),
        "keypoint": ("float64", (4, 2)),
        "n_contacts": ("int64", ()),
    }
    assert source.about["cameras"] == {"pixels": "img", "hand": "hand"}
    for number, episode in enumerate(source.episodes()):
        rows, steps = np.arange(LENGTHS[number]), np.arange(LENGTHS[number] - 1)
        assert (episode.id, episode.steps) == (number, len(steps))
        assert episode.columns["pixels"][:, 0, 0, :2].tolist() == [[number, t] for t in rows]
        assert episode.columns["hand"][:, 0, 0, :2].tolist() == [[number + 1, t + 1] for t in rows]
        assert episode.columns["keypoint"][:, 3].tolist() == [[number, t] for t in rows]
        assert episode.columns["n_contacts"].tolist() == rows.tolist()
        assert episode.columns["action"].tolist() == [[number + 0.5, t + 0.5] for t in steps]
    low, high = bounds_of(source.actions())
    assert (low.tolist(), high.tolist()) == ([0.5, 0.5], [2.5, 4.5]) and source.action_bounds() is None


def test_starting_later_reads_nothing_before(tmp_path):
    path = buffer(tmp_path / "a.zarr", chunk=1)
    for step in range(1, LENGTHS[0]):  # chunk 0 is all zeros, and zarr does not write it
        chunk = path / f"data/state/{step}.0"
        chunk.write_bytes(chunk.read_bytes()[:4] + b"\xff" * 8 + chunk.read_bytes()[12:])
    source = DiffusionPolicy.open(path)
    assert [episode.id for episode in source.episodes(1)] == [1, 2]
    with pytest.raises(InputError, match=r"episode 0, /data/state: a chunk is damaged"):
        next(source.episodes())


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda p: shutil.rmtree(p / "meta"), "not a replay buffer"),
        (lambda p: shutil.rmtree(p / "data"), "not a replay buffer"),
        (lambda p: halve(p / "meta/episode_ends/.zarray"), "not a replay buffer"),
        (lambda p: halve(p / "data/state/.zarray"), "not a replay buffer"),
        (lambda p: halve(p / "data/action/1.0"), "action/1.0 is damaged: its length"),
        (lambda p: (p / "data/img/1.0.0.0").unlink(), "1 of 3 chunks of /data/img are missing"),
        (lambda p: buffer(p, action=None), "has no data/action"),
        (lambda p: buffer(p, state=np.zeros((12, 2))), r"data/state has shape \(12, 2\)"),
        (lambda p: buffer(p, ends=[4, 10, 12]), "must ascend to the 13 rows"),
        (lambda p: buffer(p, ends=[4, 4, 13]), "must ascend"),
        (lambda p: buffer(p, ends=[]), "float64 .* expected whole numbers"),
        (lambda p: buffer(p, ends=[4, 5, 13]), "episode 1: 1 row"),
        (
            lambda p: buffer(p, img=arrays()["img"] / 255),
            "episode 0, /data/img: frames are float32 .* not whole numbers",
        ),
    ],
)
def test_damage_is_named(tmp_path, harm, message):
    path = buffer(tmp_path / "a.zarr")
    harm(path)
    with pytest.raises(InputError, match=message):
        list(DiffusionPolicy.open(path).episodes())


def test_an_unknown_codec_is_named(tmp_path):
    path = buffer(tmp_path / "a.zarr")
    meta = path / "data/img/.zarray"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"compressor": {"id": "imagecodecs_jpegxl"}}))
    with pytest.raises(InputError, match="imagecodecs_jpegxl"):
        list(DiffusionPolicy.open(path).episodes())


def test_a_missing_package_names_the_command(tmp_path, monkeypatch):
    path = buffer(tmp_path / "a.zarr")
    monkeypatch.setitem(sys.modules, "zarr", None)
    assert DiffusionPolicy.detect(path)
    with pytest.raises(InputError, match="pip install zarr"):
        DiffusionPolicy.open(path)


def test_detect_never_raises(tmp_path):
    (tmp_path / "a.zarr.zip").write_bytes(b"no zip")
    assert DiffusionPolicy.detect(tmp_path / "a.zarr.zip")
    with pytest.raises(InputError, match="not a replay buffer"):
        DiffusionPolicy.open(tmp_path / "a.zarr.zip")
    assert not DiffusionPolicy.detect(tmp_path) and not DiffusionPolicy.detect(tmp_path / "absent.zarr")
