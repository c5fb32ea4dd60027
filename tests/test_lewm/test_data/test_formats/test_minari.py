"""Minari: golden sets by the real package in all three layouts, our export, damage. Their reader: test_judges."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pytest

from lewm.data import Column
from lewm.data.formats import hdf5, minari, minari_files
from lewm.data.formats.d4rl import D4rl
from lewm.data.formats.minari import Minari
from lewm.data.formats.robomimic import Robomimic
from lewm.data.formats.swm_hdf5 import SwmHdf5
from lewm.data.formats.swm_lance import SwmLance
from lewm.types import InputError

GOLDEN = Path(__file__).parent / "golden" / "minari"
STEPS = [3, 5]  # golden/make.py, EPISODES
SEEDS = [{"seed": 40 + e, "options": {"start": {"x": 0.5 * e}}} for e in range(2)]


def silent(count):
    pass


@pytest.fixture
def copy(tmp_path):
    """A copy of a golden set to do harm to; `edit` changes its metadata."""

    def copied(name, **metadata):
        folder = Path(shutil.copytree(GOLDEN / name, tmp_path / name))
        path = folder / "data" / "metadata.json"
        record = json.loads(path.read_text()) | metadata
        path.write_text(json.dumps({key: value for key, value in record.items() if value is not None}))
        return folder

    return copied


@pytest.fixture
def store(tmp_path, make_info, make_episode, change, write_set):
    """Two episodes with every kind of column."""
    info = make_info(
        reward=Column("float32", (), transition=True),
        terminated=Column("bool", (), transition=True),
        effort=Column("float64", (2,), transition=True),
        wrist=Column("uint8", (32, 32, 3), codec="zstd:1"),
        contact=Column("bool", (2,)),
        count=Column("int64", ()),
    )
    episodes = [
        change(
            make_episode(number, steps, info, {"seed": 70 + number, "success": bool(number), "tags": ["a", 1.5]}),
            reward=(100 * number + np.arange(steps)).astype(np.float32),
            terminated=np.arange(steps) == steps - 1,
            effort=np.arange(2 * steps).reshape(steps, 2) / 8,
            wrist=np.random.default_rng(number).integers(0, 256, (steps + 1, 32, 32, 3), np.uint8),
            contact=np.arange(2 * steps + 2).reshape(-1, 2) % 3 == 0,
            count=1000 * number + np.arange(steps + 1),
        )
        for number, steps in enumerate((3, 6))
    ]
    return write_set(tmp_path / "store", episodes, info), episodes


@pytest.mark.parametrize("layout", ["hdf5", "arrow", "parquet"])
def test_vectors_in_every_layout(layout):
    path = GOLDEN / f"{layout}-v0"
    source = Minari.open(path)
    assert Minari.detect(path) and Minari.detect(path / "data") and len(source) == 2
    assert dict(source.columns) == {
        "observation": Column("float64", (3,)),
        "action": Column("float32", (2,), transition=True),
        "reward": Column("float64", (), transition=True),
        "terminated": Column("bool", (), transition=True),
        "truncated": Column("bool", (), transition=True),
        "infos.distance": Column("float64", (1,)),
    }
    assert [bound.tolist() for bound in source.action_bounds()] == [[-1, -1], [1, 1]]
    assert source.about["dataset_id"] == f"{layout}-v0" and source.about["left_out"] == []
    json.dumps(source.about)
    for e, episode in enumerate(source.episodes()):
        t, c = np.arange(STEPS[e] + 1), episode.columns
        assert episode.id == e and episode.steps == STEPS[e] and episode.facts == SEEDS[e]
        np.testing.assert_array_equal(c["observation"], np.stack([0 * t + e, t, -t], 1))
        np.testing.assert_array_equal(c["action"] * 8, np.stack([0 * t + e, t], 1)[:-1])
        np.testing.assert_array_equal(c["reward"], 10 * e + t[:-1])
        np.testing.assert_array_equal(c["terminated"], t[1:] == STEPS[e])
        np.testing.assert_array_equal(c["infos.distance"][:, 0], t + 0.5)
        assert not c["truncated"].any()


@pytest.mark.parametrize(("layout", "channels"), [("hdf5", 3), ("arrow", 1)])
def test_nested_spaces_jpeg_images_and_discrete_actions(layout, channels):
    source = Minari.open(GOLDEN / f"{layout}-images-v0")
    assert source.columns["pixels"] == Column("uint8", (32, 32, channels), codec="zstd:3")
    assert source.columns["action"] == Column("float32", (1,), transition=True)
    assert source.about["renamed"] == {"pixels": "observations/camera"}
    assert [bound.tolist() for bound in source.action_bounds()] == [[0], [2]]
    for e, episode in enumerate(source.episodes()):
        t, c = np.arange(STEPS[e] + 1), episode.columns
        left, right = c["pixels"][:, :, :16].astype(int), c["pixels"][:, :, 16:].astype(int)
        assert np.abs(left - (60 * e + 8 * t)[:, None, None, None]).max() <= 2
        assert np.abs(right - (60 * e + 8 * t + 100 * (t % 2))[:, None, None, None]).max() <= 2
        np.testing.assert_array_equal(c["body.state"], np.stack([0 * t + e, t, -t], 1))
        np.testing.assert_array_equal(c["body.count"], 100 * e + t)
        np.testing.assert_array_equal(c["pair.0"], np.full((STEPS[e] + 1, 1), e, np.float32))
        np.testing.assert_array_equal(c["pair.1"], np.stack([t, -t], 1).astype(np.float32))
        np.testing.assert_array_equal(c["action"][:, 0], t[:-1] % 3)


def test_raw_images_of_sets_that_do_not_say(copy):
    folder = copy("hdf5-images-v0", jpeg_encoding=None)
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        for e in range(2):
            del file[f"episode_{e}/observations/camera"]
            frames = np.zeros((STEPS[e] + 1, 32, 32, 3), np.uint8)
            frames[:, 1, 2, 0] = 10 * e + np.arange(STEPS[e] + 1)
            file[f"episode_{e}/observations/camera"] = frames
    episodes = list(Minari.open(folder).episodes())
    assert [e.columns["pixels"][:, 1, 2, 0].tolist() for e in episodes] == [[0, 1, 2, 3], [10, 11, 12, 13, 14, 15]]


def test_golden_files_are_told_apart():
    formats = (D4rl, Minari, Robomimic, SwmHdf5, SwmLance)
    paths = [*GOLDEN.iterdir(), *(p for p in GOLDEN.parent.iterdir() if p.suffix in (".h5", ".lance"))]
    found = {path.name: [one.name for one in formats if one.detect(path)] for path in paths}
    assert found == {
        **{f"{name}-v0": ["minari"] for name in ("hdf5", "hdf5-images", "arrow", "arrow-images", "parquet")},
        "swm.h5": ["swm_hdf5"],
        "swm_collected.h5": ["swm_hdf5"],
        "swm.lance": ["swm_lance"],
    }


@pytest.mark.parametrize("name", ["hdf5-v0", "arrow-v0", "parquet-v0"])
def test_reads_from_the_episode_asked_for(copy, name):
    folder = copy(name)
    source = Minari.open(folder)
    assert [a.shape for a in source.actions()] == [(3, 2), (5, 2)]
    if name == "hdf5-v0":
        with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
            del file["episode_0"]
    else:
        shutil.rmtree(folder / "data" / "0")
    assert [episode.id for episode in source.episodes(1)] == [1]
    with pytest.raises(InputError, match=r"episode_0 is missing|holds no"):
        next(source.episodes())


def test_round_trip(store, tmp_path):
    reader, episodes = store
    ticks = []
    Minari.write(reader, tmp_path / "push-v0", fps=10, tick=ticks.append)
    assert ticks == [1, 1] and sorted(p.name for p in tmp_path.iterdir()) == ["push-v0", "store"]
    source = Minari.open(tmp_path / "push-v0")
    low, high = source.action_bounds()
    assert (low == reader.info.action_low).all() and (high == reader.info.action_high).all()
    for given, back in zip(episodes, source.episodes(), strict=True):
        assert back.facts == given.facts
        assert set(back.columns) == {*given.columns, "truncated"} and not back.columns["truncated"].any()
        for name, rows in given.columns.items():
            assert rows.dtype == back.columns[name].dtype
            np.testing.assert_array_equal(rows, back.columns[name])


def test_export_without_reward_and_flags(tmp_path, make_episode, write_set):
    reader = write_set(tmp_path / "store", [make_episode(0, 4)])
    Minari.write(reader, tmp_path / "push-v3", fps=10, tick=silent)
    with h5py.File(tmp_path / "push-v3" / "data" / "main_data.hdf5") as file:
        group = file["episode_0"]
        assert group["rewards"][:].tolist() == [0] * 4 and group["terminations"][:].tolist() == [False] * 4
        assert group["truncations"][:].tolist() == [False, False, False, True]
        assert group.attrs["total_steps"] == 4 and group["observations/state"].shape == (5, 2)


def test_interrupted_export_leaves_nothing_and_starts_again(store, tmp_path):
    out = tmp_path / "push-v0"

    def stop(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Minari.write(store[0], out, fps=10, tick=stop)
    assert not out.exists() and not Minari.detect(tmp_path / ".push-v0.part")
    Minari.write(store[0], out, fps=10, tick=silent)
    assert not (tmp_path / ".push-v0.part").exists()
    before = (out / "data" / "main_data.hdf5").read_bytes()
    ticks = []
    Minari.write(store[0], out, fps=10, tick=ticks.append)
    assert sum(ticks) == 2 and (out / "data" / "main_data.hdf5").read_bytes() == before
    shutil.rmtree(out)
    shutil.copytree(GOLDEN / "hdf5-v0", out)
    with pytest.raises(InputError, match="not an export of this data set"):
        Minari.write(store[0], out, fps=10, tick=silent)


def test_export_refuses_what_has_no_place(tmp_path, make_info, make_episode, write_set, store):
    info = make_info(stride=2)
    reader = write_set(tmp_path / "strided", [make_episode(0, 4, info)], info)
    with pytest.raises(InputError, match="'pixels' has one row in 2 steps"):
        Minari.write(reader, tmp_path / "out-v0", fps=10, tick=silent)
    with pytest.raises(InputError, match="names like 'push-v0'"):
        Minari.write(store[0], tmp_path / "push", fps=10, tick=silent)


@pytest.mark.parametrize(
    ("space", "bounds"),
    [
        ({"type": "Box", "dtype": "float32", "shape": [2], "low": [-1, -2], "high": [1, 3]}, ([-1, -2], [1, 3])),
        ({"type": "Box", "dtype": "float32", "shape": [1], "low": [-np.inf], "high": [1]}, None),
        ({"type": "Box", "dtype": "float32", "shape": [1], "low": [1], "high": [1]}, None),
        ({"type": "Discrete", "n": 1, "start": -1}, ([-1], [0])),
        ({"type": "MultiDiscrete", "nvec": [2, 5], "start": [0, 1]}, ([0, 1], [1, 5])),
        ({"type": "MultiBinary", "n": 3}, ([0, 0, 0], [1, 1, 1])),
    ],
)
def test_action_bounds(copy, space, bounds):
    found = Minari.open(copy("hdf5-v0", action_space=json.dumps(space))).action_bounds()
    assert (found and tuple(bound.tolist() for bound in found)) == bounds


def test_infos_that_are_not_alike_are_left_out(copy):
    folder = copy("hdf5-v0")
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        for e in range(2):
            infos = file[f"episode_{e}/infos"]
            rows = STEPS[e] + 1
            infos["deep/ok"] = np.arange(rows)
            infos["text"] = ["x"] * rows
            infos["other"] = np.zeros(rows, np.float32 if e else np.float64)
        file["episode_0/infos/once"] = np.zeros(STEPS[0] + 1)
    source = Minari.open(folder)
    assert [text.split()[0] for text in source.about["left_out"]] == ["infos/once", "infos/other", "infos/text"]
    assert [e.columns["infos.deep.ok"].tolist() for e in source.episodes()] == [[0, 1, 2, 3], [0, 1, 2, 3, 4, 5]]


def test_one_dimensional_infos_of_arrow(copy):
    """Minari 0.5.4 writes them with an empty shape, which it cannot read itself."""
    folder = copy("arrow-v0")
    for e in range(2):
        path = folder / "data" / str(e) / "part-0.arrow"
        with pa.ipc.open_file(path) as file:
            table = file.read_all()
        field = pa.field("flat", pa.list_(pa.float64(), 1), metadata={"shape": ""})
        values = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(STEPS[e] + 1) * 1.5), 1)
        infos = pa.StructArray.from_arrays([values], fields=[field])
        number = table.schema.get_field_index("infos")
        table = table.set_column(number, pa.field("infos", infos.type), infos)
        with pa.ipc.new_file(path, table.schema) as file:
            file.write_table(table, max_chunksize=2)  # several batches, which Minari's reader mistakes for episodes
    source = Minari.open(folder)
    assert source.columns["infos.flat"] == Column("float64", ())
    assert [e.columns["infos.flat"].tolist() for e in source.episodes()] == [
        [1.5 * t for t in range(n + 1)] for n in STEPS
    ]


def test_text_observations_are_left_out(copy):
    space = {
        "type": "Dict",
        "subspaces": {"words": {"type": "Text", "max_length": 9, "min_length": 0, "charset": "a"}},
    }
    folder = copy("hdf5-v0", observation_space=json.dumps(space))
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        for e in range(2):
            del file[f"episode_{e}/observations"]
            file[f"episode_{e}/observations/words"] = ["a"] * (STEPS[e] + 1)
    source = Minari.open(folder)
    assert source.about["left_out"] == ["words (not of numbers)"] and "observation" not in source.columns


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"data_format": "zarr"}, "data_format 'zarr'; known: hdf5, arrow, parquet"),
        ({"total_episodes": 0}, "total_episodes 0; expected at least one"),
        ({"observation_space": None}, "has no observation_space"),
        ({"observation_space": "{"}, "observation_space cannot be read"),
        (
            {"observation_space": json.dumps({"type": "Dict", "subspaces": {"q": {"type": "Discrete"}}})},
            "'observations/q' is missing",
        ),
        ({"action_space": json.dumps({"type": "Dict", "subspaces": {}})}, "actions of type Dict are not supported"),
        ({"data_format": "arrow"}, r"holds no \.arrow file"),
    ],
)
def test_metadata_that_cannot_be_used(copy, metadata, message):
    with pytest.raises(InputError, match=message):
        Minari.open(copy("hdf5-v0", **metadata))


def test_damaged_sets(copy, tmp_path):
    folder = copy("hdf5-v0", total_episodes=3)
    with pytest.raises(InputError, match="episode_2 is missing although"):
        list(Minari.open(folder).episodes())
    main = folder / "data" / "main_data.hdf5"
    with h5py.File(main, "a") as file:
        rows = file["episode_1/observations"][:-2]
        del file["episode_1/observations"]
        file["episode_1/observations"] = rows
    (folder / "data" / "metadata.json").write_text((GOLDEN / "hdf5-v0" / "data" / "metadata.json").read_text())
    with pytest.raises(InputError, match="episode 1: 'observations' has 4 rows, expected 6 for 5 steps"):
        list(Minari.open(folder).episodes())
    main.write_bytes(main.read_bytes()[:9000])
    with pytest.raises(InputError, match=r"main_data\.hdf5 is damaged"):
        Minari.open(folder)
    (folder / "data" / "metadata.json").write_text('{"total')
    assert not Minari.detect(folder)
    with pytest.raises(InputError, match=r"metadata\.json cannot be read"):
        Minari.open(folder)
    with pytest.raises(InputError, match="this is not a Minari data set"):
        Minari.open(tmp_path)


@pytest.mark.parametrize("layout", ["arrow", "parquet"])
def test_damaged_parts(copy, layout):
    folder = copy(f"{layout}-v0")
    part = folder / "data" / "1" / f"part-0.{layout}"
    part.write_bytes(part.read_bytes()[:700])
    with pytest.raises(InputError, match=rf"{layout}-v0/data, episode 1 cannot be read"):
        list(Minari.open(folder).episodes())


def test_damaged_image(copy):
    folder = copy("hdf5-images-v0")
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        file["episode_1/observations/camera"][2] = np.arange(30, dtype=np.uint8)
    with pytest.raises(InputError, match="episode 1: observations/camera: image 2 is damaged"):
        list(Minari.open(folder).episodes())


def test_without_the_packages(monkeypatch):
    def gone(module, extra):
        raise InputError(f'pip install "lewm[{extra}]"')

    monkeypatch.setattr(hdf5, "need", gone)
    monkeypatch.setattr(minari_files, "need", gone)
    assert minari.Minari.detect(GOLDEN / "hdf5-v0")
    for name in ("hdf5-v0", "arrow-v0"):
        with pytest.raises(InputError, match=r"lewm\[minari\]"):
            Minari.open(GOLDEN / name)
