"""stable-worldmodel's Lance tables: a golden table by their writer, odd and damaged ones."""

import io
import shutil
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from lewm.data import Column
from lewm.data.formats import columns, swm_lance
from lewm.data.formats.swm_lance import SwmLance
from lewm.types import InputError

GOLDEN = Path(__file__).parent / "golden" / "swm.lance"
STEPS = [3, 5]  # golden/make.py, EPISODES


def jpeg(value, size=8, mode="RGB"):
    buffer = io.BytesIO()
    Image.new(mode, (size, size), value if mode == "L" else (value,) * 3).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def table(path, lengths=(3, 4), rows_of=None, **columns):
    """A table whose `action` and `state` say episode and row."""
    where = [(e, t) for e, length in enumerate(lengths) for t in range(length)]
    pairs = pa.FixedSizeListArray.from_arrays(pa.array(np.array(where, np.float32).reshape(-1)), 2)
    base = {"episode_idx": pa.array([e for e, _ in where], pa.int32()), "action": pairs, "state": pairs}
    merged = {name: column for name, column in (base | columns).items() if column is not None}
    lance.write_dataset(pa.table(merged), str(path), max_rows_per_file=rows_of or 1 << 20)
    return path


def test_their_writer():
    source = SwmLance.open(GOLDEN)
    assert SwmLance.detect(GOLDEN) and len(source) == 2
    assert source.about["left_out"] == ["step_idx (bookkeeping)", "id (bookkeeping)"]
    assert dict(source.columns) == {
        "pixels": Column("uint8", (16, 16, 3), codec="zstd:3"),
        "pixels_wrist": Column("uint8", (8, 8, 3), codec="zstd:3"),
        "state": Column("float32", (3,)),
        "count": Column("float32", (1,)),
        "action": Column("float32", (2,), transition=True),
        "reward": Column("float32", (), transition=True),
        "terminated": Column("bool", (), transition=True),
        "truncated": Column("bool", (), transition=True),
    }
    for e, episode in enumerate(source.episodes()):
        t, c = np.arange(STEPS[e] + 1), episode.columns
        assert episode.id == e and episode.steps == STEPS[e] and episode.facts == {}
        # grey JPEGs come back within a step of 2, where neighbouring frames differ by 8
        assert np.abs(c["pixels"].astype(int) - (60 * e + 8 * t)[:, None, None, None]).max() <= 2
        assert np.abs(c["pixels_wrist"].astype(int) - (255 - 60 * e - 8 * t)[:, None, None, None]).max() <= 2
        np.testing.assert_array_equal(c["state"], np.stack([0 * t + e, t, -t], 1))
        np.testing.assert_array_equal(c["action"] * 8, np.stack([0 * t + e, t], 1)[:-1])
        np.testing.assert_array_equal(c["reward"], 10 * e + t[:-1])
        np.testing.assert_array_equal(c["terminated"], t[1:] == STEPS[e])


def test_reads_from_the_episode_asked_for(monkeypatch):
    decoded = []
    decode = columns.decode_image
    source = SwmLance.open(GOLDEN)
    monkeypatch.setattr(columns, "decode_image", lambda *given: decoded.append(1) or decode(*given))
    assert len(list(source.actions())[1]) == 5 and not decoded
    (episode,) = source.episodes(1)
    assert episode.id == 1 and len(decoded) == 12


def test_long_episodes_in_several_fragments(tmp_path, monkeypatch):
    monkeypatch.setattr(swm_lance, "TAKE_ROWS", 7)
    path = table(tmp_path / "t.lance", lengths=(30, 2, 41), rows_of=11)
    episodes = list(SwmLance.open(path).episodes())
    assert [e.columns["state"].tolist() for e in episodes] == [
        [[k, t] for t in range(n)] for k, n in enumerate((30, 2, 41))
    ]
    assert [e.columns["action"][-1].tolist() for e in episodes] == [[0, 28], [1, 0], [2, 39]]


def test_facts_of_the_table_of_episodes(tmp_path):
    frames = table(tmp_path / "t.lance", lengths=(3, 1, 4))
    facts = {"episode_idx": [2, 0, 1], "task": ["push", None, "x"], "seed": [9, 7, 8], "gain": [[0.5, 1.0]] * 3}
    lance.write_dataset(pa.table(facts), str(tmp_path / "t_episodes.lance"))
    source = SwmLance.open(tmp_path)
    assert source.about["skipped_one_row_episodes"] == 1
    assert [(e.id, e.facts) for e in source.episodes()] == [
        (0, {"seed": 7, "gain": [0.5, 1.0]}),
        (1, {"task": "push", "seed": 9, "gain": [0.5, 1.0]}),
    ]
    assert len(SwmLance.open(frames)) == 2


def test_other_cameras_grey_images_and_left_out_fields(tmp_path):
    rows = range(7)
    path = table(
        tmp_path / "t.lance",
        side=pa.array([jpeg(30 * n) for n in rows]),
        grey=pa.array([jpeg(30 * n, mode="L") for n in rows]),
        text=pa.array(["a"] * 7),
        blob=pa.array([b"no image"] * 7),
        ragged=pa.array([[1.0] * n for n in rows]),
        nested=pa.array([{"x": n} for n in rows]),
        ticks=pa.array(list(rows), pa.int64()),
    )
    source = SwmLance.open(path)
    assert [text.split()[0] for text in source.about["left_out"]] == ["text", "blob", "ragged", "nested"]
    assert source.about["renamed"] == {"pixels": "side"}
    assert source.columns["pixels"].shape == (8, 8, 3) and source.columns["grey"].shape == (8, 8, 1)
    episode = next(source.episodes(1))
    assert np.abs(episode.columns["pixels"][:, 0, 0, 0].astype(int) - [90, 120, 150, 180]).max() <= 2
    assert np.abs(episode.columns["grey"][:, 0, 0, 0].astype(int) - [90, 120, 150, 180]).max() <= 2
    assert episode.columns["ticks"].tolist() == [3, 4, 5, 6] and episode.columns["ticks"].dtype == np.int64


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"episode_idx": None}, "has no column 'episode_idx'"),
        ({"action": None}, "has no column 'action'"),
        ({"episode_idx": pa.array([1, 1, 1, 0, 0, 0, 0])}, "episode_idx falls at row 3"),
        ({"pixels": pa.array([b"no image"] * 7)}, "column 'pixels' row 0 is not an image"),
        ({"episode_idx": pa.array(range(7))}, "no episode has two rows"),
    ],
)
def test_tables_of_another_kind(tmp_path, columns, message):
    with pytest.raises(InputError, match=rf"t\.lance.*{message}"):
        SwmLance.open(table(tmp_path / "t.lance", **columns))


def test_bad_frames_name_the_episode(tmp_path):
    frames = [jpeg(0)] * 7
    torn = table(tmp_path / "torn.lance", pixels=pa.array([*frames[:5], jpeg(0)[:40], frames[0]]))
    with pytest.raises(InputError, match=r"torn\.lance, episode 1, column 'pixels': image 2 is damaged"):
        list(SwmLance.open(torn).episodes())
    sizes = table(tmp_path / "sizes.lance", pixels=pa.array([*frames[:5], jpeg(0, 16), frames[0]]))
    with pytest.raises(InputError, match=r"episode 1, column 'pixels': image 2 is damaged or unlike the others"):
        list(SwmLance.open(sizes).episodes())
    holes = table(tmp_path / "holes.lance", speed=pa.array([0.0, None, 1, 2, 3, 4, 5]))
    with pytest.raises(InputError, match=r"episode 0, column 'speed' has 1 empty rows"):
        list(SwmLance.open(holes).episodes())


def test_damaged_tables(tmp_path):
    path = Path(shutil.copytree(GOLDEN, tmp_path / "swm.lance"))
    (data,) = (path / "data").iterdir()
    data.write_bytes(data.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"swm\.lance.*cannot be read"):
        list(SwmLance.open(path).episodes())
    data.unlink()
    with pytest.raises(InputError, match=r"swm\.lance.*cannot be read"):
        list(SwmLance.open(path).episodes())
    shutil.rmtree(path / "_versions")
    with pytest.raises(InputError, match=r"swm\.lance cannot be read"):
        SwmLance.open(path)
    assert not SwmLance.detect(tmp_path / "none") and not SwmLance.detect(tmp_path / "data")


def test_several_tables_and_videos(tmp_path):
    table(tmp_path / "a.lance")
    table(tmp_path / "b.lance")
    with pytest.raises(InputError, match=r"found a\.lance, b\.lance; name one"):
        SwmLance.open(tmp_path)
    (tmp_path / "a_videos.lance").mkdir()
    with pytest.raises(InputError, match="keeps its images as videos"):
        SwmLance.open(tmp_path / "a.lance")


def test_without_pylance(monkeypatch):
    def gone(module, extra):
        raise InputError(f'pip install "lewm[{extra}]"')

    monkeypatch.setattr(swm_lance, "need", gone)
    assert SwmLance.detect(GOLDEN)
    with pytest.raises(InputError, match=r"lewm\[lance\]"):
        SwmLance.open(GOLDEN)
