"""A folder of MP4 files: each frame says its episode and step, and an interrupted export is completed."""

import json
import sys

import av
import numpy as np
import pytest

from lewm.data import Column, DatasetInfo, EpisodeReader, EpisodeWriter
from lewm.data.formats import mp4
from lewm.data.formats.mp4 import Mp4Folder
from lewm.types import Episode, InputError

STEPS = {3: 5, 7: 4, 12: 2}  # id -> steps
COLUMNS = {
    "pixels": Column("uint8", (17, 15, 3), codec="zstd:1"),  # odd both ways
    "wrist": Column("uint8", (16, 16, 1), stride=2, codec="zstd:1"),
    "state": Column("float64", (2,)),
    "action": Column("float32", (1,), transition=True),
}


def episode_of(number, steps):
    at = np.arange(steps + 1)
    flat = (10 * number + 15 * at).astype(np.uint8)[:, None, None, None]
    columns = {
        "pixels": np.broadcast_to(flat, (steps + 1, 17, 15, 3)).copy(),
        "wrist": np.broadcast_to(flat, (steps + 1, 16, 16, 1))[::2].copy(),
        "state": np.stack([np.full(steps + 1, number), at / 3], 1),
        "action": at[:-1, None].astype(np.float32),
    }
    return Episode(number, columns, {"seed": number})


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mp4") / "set"
    with EpisodeWriter(folder, DatasetInfo(COLUMNS, (-1.0,), (9.0,))) as writer:
        writer.commit([episode_of(number, steps) for number, steps in STEPS.items()])
    return EpisodeReader(folder)


def decoded(path):
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in file.decode(stream)]


def test_every_frame_is_its_own_step_at_its_own_time(reader, tmp_path):
    out, ticks = tmp_path / "out", []
    Mp4Folder.write(reader, out, fps=12.5, tick=ticks.append)
    assert ticks == [1, 1, 1]
    for number, steps in STEPS.items():
        name, given = f"episode_{number:06d}", episode_of(number, steps)
        for camera, stride, size in (("pixels", 1, (18, 16, 3)), ("wrist", 2, (16, 16, 3))):
            frames = decoded(out / camera / f"{name}.mp4")
            assert len(frames) == steps // stride + 1
            for k, (time, frame) in enumerate(frames):
                assert frame.shape == size and abs(time - k * stride / 12.5) < 1e-3
                assert abs(float(frame.mean()) - given.columns[camera][k].mean()) < 3
        with np.load(out / "rows" / f"{name}.npz", allow_pickle=False) as rows:
            assert set(rows) == {"state", "action"}
            assert all(np.array_equal(rows[key], given.columns[key]) for key in rows)
        record = json.loads((out / "rows" / f"{name}.json").read_text())
        assert record == {"id": number, "steps": steps, "fps": 12.5, "facts": {"seed": number}}


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("calls", [1, 2, 3, 4, 6, 9])
def test_killed_export_is_completed(calls, reader, tmp_path, monkeypatch):
    Mp4Folder.write(reader, tmp_path / "whole", fps=10, tick=lambda n: None)
    left, real = [calls], mp4.replace_file

    def stop(part):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        real(part)

    monkeypatch.setattr(mp4, "replace_file", stop)
    with pytest.raises(KeyboardInterrupt):
        Mp4Folder.write(reader, tmp_path / "out", fps=10, tick=lambda n: None)
    monkeypatch.setattr(mp4, "replace_file", real)
    done = sorted((tmp_path / "out" / "rows").glob("*.json"))
    before = [path.stat().st_mtime_ns for path in done]
    Mp4Folder.write(reader, tmp_path / "out", fps=10, tick=lambda n: None)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert before == [path.stat().st_mtime_ns for path in done]  # finished episodes were left alone


def test_refuses_what_is_no_video(reader, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(InputError, match="pip install av"):
        patch.setitem(sys.modules, "av", None)
        Mp4Folder.write(reader, tmp_path / "out", fps=10, tick=lambda n: None)
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="not an export begun here"):
        Mp4Folder.write(reader, tmp_path / "else", fps=10, tick=lambda n: None)
    for fps in (0, -10, float("nan"), float("inf"), 1e-9):
        with pytest.raises(InputError, match="fps must be positive"):
            Mp4Folder.write(reader, tmp_path / "out", fps=fps, tick=lambda n: None)
    with EpisodeWriter(tmp_path / "blind", DatasetInfo({"action": COLUMNS["action"]}, (-1.0,), (9.0,))) as writer:
        writer.commit([Episode(0, {"action": np.zeros((2, 1), np.float32)})])
    with pytest.raises(InputError, match="no column of images"):
        Mp4Folder.write(EpisodeReader(tmp_path / "blind"), tmp_path / "out", fps=10, tick=lambda n: None)
    Mp4Folder.write(reader, tmp_path / "out", fps=10, tick=lambda n: None)
    with pytest.raises(InputError, match="other episodes or options"):
        Mp4Folder.write(reader, tmp_path / "out", fps=20, tick=lambda n: None)
    assert not Mp4Folder.detect(tmp_path / "out")
