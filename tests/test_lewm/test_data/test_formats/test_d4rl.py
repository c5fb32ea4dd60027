"""D4RL's flat HDF5; observations and actions encode episode and step."""

import h5py
import numpy as np
import pytest

from lewm.data import Column
from lewm.data.formats.d4rl import D4rl
from lewm.data.formats.robomimic import Robomimic
from lewm.data.formats.swm_hdf5 import SwmHdf5
from lewm.types import InputError

LENGTHS = [4, 1, 6, 3]  # a terminal, a terminal at once, a timeout, the end of the file
WHERE = [(e, t) for e, length in enumerate(LENGTHS) for t in range(length)]
LAST = np.cumsum(LENGTHS) - 1


@pytest.fixture
def path(tmp_path):
    rows = np.array(WHERE, np.float32)
    terminals, timeouts = np.zeros((2, len(rows)), bool)
    terminals[LAST[:2]], timeouts[LAST[2]] = True, True
    with h5py.File(tmp_path / "hopper.hdf5", "w") as file:
        file["observations"], file["actions"], file["next_observations"] = rows, rows + 0.5, rows
        file["rewards"] = 10 * rows[:, 0] + rows[:, 1]
        file["terminals"], file["timeouts"] = terminals, timeouts
        file["infos/qpos"], file["infos/goal"] = rows.astype(np.float64), np.zeros((2, 2))
        file["metadata/algorithm"], file["metadata/policy/fc0/weight"] = "SAC", np.zeros((9, 9))
    return tmp_path / "hopper.hdf5"


def test_columns_and_alignment(path):
    source = D4rl.open(path)
    assert D4rl.detect(path) and not SwmHdf5.detect(path) and not Robomimic.detect(path)
    assert dict(source.columns) == {
        "action": Column("float32", (2,), transition=True),
        "observation": Column("float32", (2,)),
        "reward": Column("float32", (), transition=True),
        "terminated": Column("bool", (), transition=True),
        "truncated": Column("bool", (), transition=True),
        "infos.qpos": Column("float64", (2,)),
    }
    assert source.about["skipped_one_row_episodes"] == 1 and source.about["metadata"] == {"algorithm": "SAC"}
    assert [text.split()[0] for text in source.about["left_out"]] == ["next_observations", "infos/goal"]
    ends = [(True, False), (False, True), (False, False)]
    for position, (episode, number) in enumerate(zip(source.episodes(), (0, 2, 3), strict=True)):
        steps = LENGTHS[number] - 1
        rows = np.array([(number, t) for t in range(steps + 1)], np.float32)
        assert episode.id == position and episode.steps == steps
        assert (episode.facts["terminal"], episode.facts["timeout"]) == ends[position]
        np.testing.assert_array_equal(episode.columns["observation"], rows)
        np.testing.assert_array_equal(episode.columns["infos.qpos"], rows)
        np.testing.assert_array_equal(episode.columns["action"], rows[:-1] + 0.5)
        np.testing.assert_array_equal(episode.columns["reward"], 10 * number + rows[:-1, 1])
        assert not episode.columns["terminated"].any() and not episode.columns["truncated"].any()


def test_reads_from_the_episode_asked_for(path, monkeypatch):
    source = D4rl.open(path)
    assert [len(rows) for rows in source.actions()] == [3, 5, 2]
    assert [(e.id, e.columns["observation"][0].tolist()) for e in source.episodes(1)] == [(1, [2, 0]), (2, [3, 0])]


def test_pixels_and_flags_as_numbers(path):
    frames = np.zeros((len(WHERE), 4, 4, 3), np.uint8)
    frames[:, 0, 0, 0] = [16 * e + t for e, t in WHERE]
    with h5py.File(path, "a") as file:
        flags = file["terminals"][:]
        del file["observations"], file["terminals"], file["timeouts"]
        file["observations"], file["terminals"] = frames, flags.astype(np.float32)[:, None]
    source = D4rl.open(path)
    assert source.columns["pixels"] == Column("uint8", (4, 4, 3), codec="zstd:3")
    assert source.about["renamed"] == {"pixels": "observations"}
    first, second = source.episodes()  # without timeouts the last two run on
    assert first.columns["pixels"][:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert second.steps == 8 and second.columns["pixels"][6, 0, 0, 0] == 48


def test_foreign_short_and_damaged(path, tmp_path):
    with h5py.File(path, "a") as file:
        flags = file["timeouts"][:-2]
        del file["timeouts"]
        file["timeouts"] = flags
    with pytest.raises(InputError, match=r"hopper\.hdf5.*shorter than 'actions' \(14 rows\)"):
        D4rl.open(path)
    with h5py.File(path, "a") as file:
        del file["timeouts"], file["terminals"]
    assert not D4rl.detect(path)
    with pytest.raises(InputError, match="'terminals' or 'timeouts' at its root"):
        D4rl.open(path)
    path.write_bytes(path.read_bytes()[:2500])
    assert not D4rl.detect(path)
    with pytest.raises(InputError, match=r"hopper\.hdf5 is damaged"):
        D4rl.open(path)


def test_no_episode_with_a_step(path):
    with h5py.File(path, "a") as file:
        file["terminals"][:] = True
    with pytest.raises(InputError, match="no episode has two rows"):
        D4rl.open(path)
