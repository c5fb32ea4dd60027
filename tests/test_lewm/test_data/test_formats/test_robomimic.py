"""robomimic's HDF5, with and without next_obs; frames and actions encode demo and step."""

import json

import h5py
import numpy as np
import pytest

from lewm.data import Column
from lewm.data.formats.d4rl import D4rl
from lewm.data.formats.robomimic import Robomimic
from lewm.data.formats.swm_hdf5 import SwmHdf5
from lewm.types import InputError

LENGTHS = {"demo_0": 3, "demo_2": 5, "demo_10": 4}  # in the order of the numbers, not of the text


def pairs(number, times):
    return np.stack([np.full(len(times), number), times], 1).astype(np.float64)


def frames(number, times, size=4):
    rows = np.zeros((len(times), size, size, 3), np.uint8)
    rows[:, 0, 0, 0], rows[:, 0, 0, 1] = number, times
    return rows


@pytest.fixture(params=[True, False], ids=["next_obs", "no next_obs"])
def final(request):
    return request.param


@pytest.fixture
def path(tmp_path, final):
    with h5py.File(tmp_path / "demos.hdf5", "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 20}})
        for name, length in LENGTHS.items():
            number, t = int(name[5:]), np.arange(length)
            demo = data.create_group(name)
            demo.attrs["num_samples"], demo.attrs["model_file"] = length, "<xml/>"
            demo["actions"] = pairs(number, t)
            demo["rewards"], demo["dones"] = t / 8, (t == length - 1).astype(np.int64)
            demo["states"] = pairs(number, 100 + t)
            for key, rows in (("obs", t), ("next_obs", t + 1)):
                if key == "obs" or final:
                    demo[f"{key}/agentview_image"] = frames(number, rows)
                    demo[f"{key}/robot0_eye_in_hand_image"] = frames(number, rows + 50, 2)
                    demo[f"{key}/robot0_eef_pos"] = pairs(number, rows)
        file["mask/train"] = ["demo_0", "demo_10"]
        file["mask/valid"] = ["demo_2"]
    return tmp_path / "demos.hdf5"


def test_columns_and_alignment(path, final):
    source = Robomimic.open(path)
    assert Robomimic.detect(path) and not SwmHdf5.detect(path) and not D4rl.detect(path)
    assert dict(source.columns) == {
        "pixels": Column("uint8", (4, 4, 3), codec="zstd:3"),
        "robot0_eef_pos": Column("float64", (2,)),
        "robot0_eye_in_hand_image": Column("uint8", (2, 2, 3), codec="zstd:3"),
        "action": Column("float64", (2,), transition=True),
        "reward": Column("float64", (), transition=True),
        "terminated": Column("bool", (), transition=True),
        "states": Column("float64", (2,), transition=final),
    }
    assert source.about["environment"]["env_name"] == "Lift" and source.about["renamed"] == {
        "pixels": "obs/agentview_image"
    }
    assert source.about["left_out"] == ["model_file (attribute, the scene's XML)"]
    for position, (episode, (name, length)) in enumerate(zip(source.episodes(), LENGTHS.items(), strict=True)):
        number, steps, c = int(name[5:]), length if final else length - 1, episode.columns
        t = np.arange(steps + 1)
        assert episode.id == position and episode.steps == steps
        assert episode.facts == {"demo": name, "filters": ["valid" if number == 2 else "train"]}
        np.testing.assert_array_equal(c["pixels"], frames(number, t))
        np.testing.assert_array_equal(c["robot0_eye_in_hand_image"], frames(number, t + 50, 2))
        np.testing.assert_array_equal(c["robot0_eef_pos"], pairs(number, t))
        np.testing.assert_array_equal(c["action"], pairs(number, t[:-1]))
        np.testing.assert_array_equal(c["reward"], t[:-1] / 8)
        np.testing.assert_array_equal(c["terminated"], t[:-1] == length - 1)
        np.testing.assert_array_equal(c["states"], pairs(number, 100 + t[: steps if final else steps + 1]))


def test_reads_from_the_episode_asked_for(path, final):
    source = Robomimic.open(path)
    assert [len(rows) for rows in source.actions()] == [length - (not final) for length in LENGTHS.values()]
    with h5py.File(path, "a") as file:
        del file["data/demo_0/obs"]
    assert [e.id for e in source.episodes(1)] == [1, 2]
    with pytest.raises(InputError, match=r"demos\.hdf5, demo_0 cannot be read"):
        next(source.episodes())


def test_one_demo_without_next_obs_makes_all_of_them_so(path, final):
    if final:
        with h5py.File(path, "a") as file:
            del file["data/demo_2/next_obs"]
    assert [e.steps for e in Robomimic.open(path).episodes()] == [2, 4, 3]


def test_demos_that_differ(path):
    with h5py.File(path, "a") as file:
        del file["data/demo_2/rewards"]
        file["data/demo_2/rewards"] = np.zeros(2)
    source = Robomimic.open(path)
    with pytest.raises(InputError, match="demo_2: 'rewards' has 2 rows and 'actions' 5"):
        list(source.episodes())
    with h5py.File(path, "a") as file:
        del file["data/demo_2/rewards"], file["data/demo_2/obs/robot0_eef_pos"]
        file["data/demo_2/rewards"], file["data/demo_2/obs/robot0_eef_pos"] = np.zeros(5), np.zeros((5, 3))
    with pytest.raises(InputError, match=r"demo_2.*make them alike|demo_2 cannot be read"):
        list(source.episodes())


def test_single_row(path, final):
    with h5py.File(path, "a") as file:
        for name, rows in (("actions", 2), ("rewards", 0), ("dones", 0), ("states", 2)):
            del file[f"data/demo_2/{name}"]
            file[f"data/demo_2/{name}"] = np.zeros((1, rows) if rows else 1)
        for group in ("obs", "next_obs")[: 1 + final]:
            for key in list(file[f"data/demo_2/{group}"]):
                rows = file[f"data/demo_2/{group}/{key}"][:1]
                del file[f"data/demo_2/{group}/{key}"]
                file[f"data/demo_2/{group}/{key}"] = rows
    if final:
        assert [e.steps for e in Robomimic.open(path).episodes()] == [3, 1, 4]
    else:
        with pytest.raises(InputError, match="demo_2 has 1 row"):
            list(Robomimic.open(path).episodes())


def test_foreign_and_damaged(path, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.zeros(3)
    assert not Robomimic.detect(tmp_path / "other.h5") and not Robomimic.detect(tmp_path / "none.h5")
    with pytest.raises(InputError, match="no data/demo_"):
        Robomimic.open(tmp_path / "other.h5")
    path.write_bytes(path.read_bytes()[:3000])
    assert not Robomimic.detect(path)
    with pytest.raises(InputError, match=r"demos\.hdf5 is damaged"):
        Robomimic.open(path)
