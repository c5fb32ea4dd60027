"""Pictures of folders and stores: which there are, what is known of them."""

import numpy as np
import pytest
from PIL import Image

from lewm.data import Column, DatasetInfo, EpisodeReader, EpisodeWriter
from lewm.data.pictures import Frames, ImageFolder, Subset
from lewm.types import Episode, InputError

pytestmark = pytest.mark.usefixtures("quick_disk")


def write(path, value, mode="RGB", size=(4, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).convert(mode).save(path)


@pytest.fixture
def folder(tmp_path):
    for name, value in (("cat/b.png", 2), ("dog/a.png", 3), ("cat/a.PNG", 1), ("more/dog/a.png", 4)):
        write(tmp_path / name, value)
    write(tmp_path / ".thumbnails/x.png", 9)
    (tmp_path / "cat/notes.txt").write_text("no picture")
    return tmp_path


def test_files_are_numbered_by_path_and_their_folder_is_their_class(folder):
    pictures = ImageFolder(folder)
    assert [picture[0, 0, 0] for picture in pictures.read(np.arange(4))] == [1, 2, 3, 4]
    assert pictures.classes == ["cat", "dog"] and pictures.labels.tolist() == [0, 0, 1, 1]
    assert pictures.truth(np.array([2, 0])).tolist() == [[0, 1], [1, 0]]
    subset = Subset(pictures, np.array([3, 1]))
    assert len(subset) == 2 and subset.read(np.array([0]))[0][0, 0, 0] == 4
    assert subset.truth(np.array([1])).tolist() == [[1, 0]]


def test_pictures_of_one_folder_have_no_class(tmp_path):
    write(tmp_path / "a/1.png", 1)
    assert ImageFolder(tmp_path).truth(np.array([0])) is None
    write(tmp_path / "2.png", 1)  # in no folder
    assert ImageFolder(tmp_path).classes == []


@pytest.mark.parametrize(("mode", "ending"), [("L", "png"), ("RGBA", "png"), ("P", "png"), ("RGB", "bmp")])
def test_every_kind_becomes_rgb(tmp_path, mode, ending):
    write(tmp_path / f"1.{ending}", 255, mode)
    (picture,) = ImageFolder(tmp_path).read(np.array([0]))
    assert picture.shape == (3, 4, 3) and picture.dtype == np.uint8 and (picture == 255).all()


def test_ram_keeps_what_was_read(folder):
    kept, fresh = ImageFolder(folder, cache="ram"), ImageFolder(folder)
    first = kept.read(np.array([1]))[0]
    write(folder / "cat/b.png", 77)
    assert np.array_equal(kept.read(np.array([1]))[0], first) and fresh.read(np.array([1]))[0][0, 0, 0] == 77


def test_who_is_held_out_depends_on_the_path_alone(folder):
    for k in range(60):
        write(folder / f"cat/{k}.png", k)
    pictures = ImageFolder(folder)
    (training, held), fingerprint = pictures.split(0.3), pictures.fingerprint
    assert sorted([*training, *held]) == list(range(64)) and 8 <= len(held) <= 32
    before = {pictures.paths[k] for k in held}
    write(folder / "aardvark/0.png", 0)
    more = ImageFolder(folder)
    assert {more.paths[k] for k in more.split(0.3)[1]} - {"aardvark/0.png"} == before
    assert more.fingerprint != fingerprint == pictures.fingerprint


def test_what_cannot_be_used_is_named(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        ImageFolder(tmp_path / "missing")
    with pytest.raises(InputError, match=r"holds no picture \(.jpg"):
        ImageFolder(tmp_path)
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(InputError, match=r"bad.png cannot be decoded"):
        ImageFolder(tmp_path).read(np.array([0]))
    with pytest.raises(InputError, match="no cache 'compressed'"):
        ImageFolder(tmp_path, cache="compressed")


@pytest.mark.parametrize("stride", [1, 3])
def test_frames_of_a_store_come_with_their_state(tmp_path, stride):
    """Pixels say (episode, step), so does the state."""
    columns = {"pixels": Column("uint8", (1, 2, 3), stride, "zstd:1"), "state": Column("float64", (2,))}
    columns["action"] = Column("float32", (1,), transition=True)
    steps = 6
    with EpisodeWriter(tmp_path / "set", DatasetInfo(columns, (-1.0,), (1.0,), {})) as writer:
        for number in range(3):
            state = np.stack([np.full(steps + 1, number), np.arange(steps + 1)], 1).astype(float)
            pixels = np.repeat(state[::stride, None, :, None], 3, axis=-1).astype(np.uint8)
            rows = {"pixels": pixels, "state": state, "action": np.zeros((steps, 1), np.float32)}
            writer.commit([Episode(number, rows, {})])
    pictures = Frames(EpisodeReader(tmp_path / "set"), np.array([0, 2]))
    assert len(pictures) == 2 * (steps // stride + 1)
    numbers = np.arange(len(pictures))
    assert np.array_equal(pictures.read(numbers)[:, 0, :, 0], pictures.truth(numbers))
    assert pictures.truth(numbers)[:, 0].tolist() == [0] * (len(pictures) // 2) + [2] * (len(pictures) // 2)
