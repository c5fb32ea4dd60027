"""`lewm data`: what it prints, what it makes, and its exit codes."""

import shutil

import imageio.v3 as iio
import numpy as np
import pytest

from experiments.data_view import save_overview
from lewm.data import Column, DatasetInfo, EpisodeReader, EpisodeWriter
from lewm.types import Episode


@pytest.fixture
def lewm(lewm):
    """The console script; paths may be given as such."""
    return lambda *arguments: lewm(*(str(argument) for argument in arguments))


@pytest.fixture
def store(tiny_run):
    return tiny_run / "data"


def damage(folder):
    """A copy of a set with one flipped bit in the actions of its second episode."""
    path = folder / "shards/w0000-0/action.bin"
    place = EpisodeReader(folder).table.places["action"][1]
    data = bytearray(path.read_bytes())
    data[int(place["begin"])] ^= 1
    path.write_bytes(data)
    return int(EpisodeReader(folder).ids[1])


def test_help_teaches_every_verb(lewm):
    code, out, _ = lewm("data")
    assert code == 0
    for word in ("info", "verify", "convert", "merge", "view", "formats", "--skip-damaged", "--to lerobot"):
        assert word in out
    code, out, _ = lewm("data", "convert", "--help")
    assert code == 0 and "--codec COLUMN=CODEC" in out


def test_info_says_what_there_is(lewm, store):
    code, out, _ = lewm("data", "info", store)
    assert code == 0
    reader = EpisodeReader(store)
    for word in (reader.fingerprint, "24 (ids 0 to 23", "30 to 30 steps", "zstd:3", "two_room", "numpy", "-2 to 2"):
        assert word in out


def test_verify_names_the_bad_episodes(lewm, store, tmp_path):
    assert lewm("data", "verify", store)[0] == 0
    shutil.copytree(store, tmp_path / "hurt")
    bad = damage(tmp_path / "hurt")
    code, out, _ = lewm("data", "verify", store, tmp_path / "hurt")
    assert code == 1
    assert f"bad episodes: [{bad}]" in out and "action.bin" in out and "every checksum matches" in out
    code, out, err = lewm("data", "convert", tmp_path / "hurt", tmp_path / "healed")
    assert code == 2 and f"episode {bad}" in err
    code, out, _ = lewm("data", "convert", tmp_path / "hurt", tmp_path / "saved", "--skip-damaged")
    assert code == 0 and "left out" in out
    assert sorted({*range(24)} - {*EpisodeReader(tmp_path / "saved").ids.tolist()}) == [bad]
    assert lewm("data", "verify", tmp_path / "saved")[0] == 0


def test_verify_tells_leftovers_from_faults(lewm, store, tmp_path):
    shutil.copytree(store, tmp_path / "cut")
    with (tmp_path / "cut/episodes-w0000.jsonl").open("ab") as log:
        log.write(b'{"id":99,')
    with (tmp_path / "cut/shards/w0000-0/state.bin").open("ab") as file:
        file.write(b"12345")
    code, out, _ = lewm("data", "verify", tmp_path / "cut")
    assert code == 0
    assert "ends in a torn line" in out and "5 bytes behind its last committed episode" in out


@pytest.mark.slow
def test_convert_there_and_back_then_train(lewm, store, tiny, tmp_path):
    """The page's promise: a stable-worldmodel file, converted and trained on from the command line."""
    assert lewm("data", "convert", store, tmp_path / "set.h5", "--to", "swm_hdf5")[0] == 0
    code, out, err = lewm("data", "info", tmp_path / "set.h5")
    assert code == 0 and "stable-worldmodel" in out, err
    bounds = ["--low=-2,-2", "--high=2,2"]
    assert lewm("data", "convert", tmp_path / "set.h5", tmp_path / "set", *bounds)[0] == 0
    again, first = EpisodeReader(tmp_path / "set"), EpisodeReader(store)
    assert again.fingerprint == first.fingerprint
    code, _, err = lewm("train", *tiny["train"], f"data={tmp_path}/set", f"out={tmp_path}/run")
    assert code == 0, err
    code, _, err = lewm("evaluate", *tiny["evaluate"], f"run={tmp_path}/run")
    assert code == 2 and "choose env=" in err
    code, _, err = lewm("evaluate", *tiny["evaluate"], f"run={tmp_path}/run", "env=two_room", "env.image_size=64")
    assert code == 0, err


def test_convert_refuses_what_does_not_fit_in_one_line(lewm, store, tmp_path):
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd/readme.txt").write_text("nothing")
    for arguments, words in (
        ([tmp_path / "none", tmp_path / "x"], ["does not exist"]),
        ([tmp_path / "odd", tmp_path / "x"], ["of no format known here", "--from"]),
        ([store, tmp_path / "x", "--to", "lerobt"], ["unknown format", "'lerobot'"]),
        ([store, tmp_path / "x", "--to", "ogbench"], ["can be read only", "minari"]),
        ([store, tmp_path / "x", "--to", "lerobot", "--drop", "state"], ["--drop is for", "convert twice"]),
        ([store, tmp_path / "x", "--to", "lerobot", "--option", "imags=image"], ["did you mean 'images'?"]),
        ([store, tmp_path / "x", "--option", "images=image"], ["--option", "--to"]),
        ([store, tmp_path / "x", "--codec", "pixels"], ["--codec takes COLUMN=VALUE"]),
        ([store, tmp_path / "x", "--low", "1,2"], ["--low and --high go together"]),
        ([store, tmp_path / "x", "--low", "a", "--high", "b"], ["numbers separated by commas"]),
        ([tmp_path / "odd", tmp_path / "x", "--skip-damaged"], ["data sets of ours"]),
    ):
        code, _, err = lewm("data", "convert", *arguments)
        assert code == 2 and err.startswith("error: ") and err.count("\n") == 1, (arguments, err)
        assert all(word in err for word in words), (words, err)
        assert not (tmp_path / "x").exists()


def test_merge(lewm, store, tmp_path):
    assert lewm("data", "convert", store, tmp_path / "other", "--codec", "pixels=zstd:9")[0] == 0
    code, _, err = lewm("data", "merge", store, tmp_path / "other", tmp_path / "both")
    assert code == 2 and "differ in columns" in err
    shutil.copytree(store, tmp_path / "twin")
    code, _, err = lewm("data", "merge", store, tmp_path / "twin", tmp_path / "both")
    assert code == 2 and "more than one" in err
    code, _, err = lewm("data", "merge", store, tmp_path / "twin", tmp_path / "twin")
    assert code == 2 and "is one of the sets to merge" in err
    code, _, err = lewm("data", "merge", store, tmp_path / "both")
    assert code == 2 and "at least two" in err
    assert not (tmp_path / "both").exists()


@pytest.mark.slow
def test_view_draws_a_sheet_and_plays_the_episodes(lewm, store, tmp_path):
    code, _, err = lewm("data", "view", store, "--episodes", "3,0", "--out", tmp_path / "pictures")
    assert code == 0, err
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == ["contact-sheet.png", "episode-0.mp4", "episode-3.mp4"]
    film = iio.imread(tmp_path / "pictures/episode-3.mp4", plugin="pyav")
    frames = EpisodeReader(store).column("pixels", 3)
    assert len(film) == len(frames) == 31
    assert np.abs(film[7, ::2, ::2].astype(int) - frames[7]).mean() < 12  # doubled in size, compressed
    sheet = iio.imread(tmp_path / "pictures/contact-sheet.png")
    assert sheet.shape[0] > 300 and sheet[..., :3].std() > 10
    code, _, err = lewm("data", "view", store, "--episodes", "24", "--out", tmp_path / "x")
    assert code == 2 and "no episode 24; ids go from 0 to 23" in err


def test_the_sheet_takes_foreign_names_and_facts_as_they_are(tmp_path):
    columns = {"pixels": Column("uint8", (8, 8, 3)), "action": Column("float32", (1,))}
    data = {"pixels": np.zeros((2, 8, 8, 3), np.uint8), "action": np.zeros((1, 1), np.float32)}
    with EpisodeWriter(tmp_path / "cost$_^$", DatasetInfo(columns, (-1.0,), (1.0,))) as writer:
        facts = [{"policy": 5}, {"policy": ["a", None]}, {"policy": "$_^$"}, {}]
        writer.commit([Episode(k, data, one) for k, one in enumerate(facts)])
    save_overview(EpisodeReader(tmp_path / "cost$_^$"), tmp_path / "sheet.png")
    assert iio.imread(tmp_path / "sheet.png").shape[0] > 4 * 100  # all four


def test_view_shows_every_camera_and_says_when_there_is_none(lewm, tmp_path):
    columns = {
        "pixels": Column("uint8", (20, 31, 3)),
        "wrist": Column("uint8", (16, 16, 1), stride=2),
        "action": Column("float32", (1,)),
    }
    rng = np.random.default_rng(0)
    data = {
        "pixels": rng.integers(0, 255, (5, 20, 31, 3), np.uint8),
        "wrist": rng.integers(0, 255, (3, 16, 16, 1), np.uint8),
        "action": np.zeros((4, 1), np.float32),
    }
    for name, chosen in (("two", list(columns)), ("none", ["action"])):
        info = DatasetInfo({k: columns[k] for k in chosen}, (-1.0,), (1.0,))
        with EpisodeWriter(tmp_path / name, info) as writer:
            writer.commit([Episode(0, {k: data[k] for k in chosen})])
    code, _, err = lewm("data", "view", tmp_path / "two", "--out", tmp_path / "pictures")
    assert code == 0, err
    assert (tmp_path / "pictures/episode-0.mp4").stat().st_size > 0
    code, _, err = lewm("data", "view", tmp_path / "none", "--out", tmp_path / "x")
    assert code == 2 and "holds no images" in err
