"""DINO-WM folders: Push-T with videos and pickles, point maze and wall with tensors. Rows say episode and step."""

import os
import pickle
import shutil

import numpy as np
import pytest
import torch

from lewm.data.formats.dino_wm import DinoWM
from lewm.data.formats.video import VideoWriter
from lewm.types import InputError

LENGTHS = (4, 6, 3)
WIDTH = 6


def table(*tail, scale=1.0):
    """(E, WIDTH, *tail): (episode, step, 0, ...) where real, 777 where padding."""
    rows = np.full((len(LENGTHS), WIDTH, *tail), 777.0, np.float32)
    for number, length in enumerate(LENGTHS):
        rows[number, :length] = 0
        rows[number, :length, 0] = number
        rows[number, :length, 1] = np.arange(length)
    return torch.from_numpy(rows * scale)


def level(episode, step):
    return 8 * (7 * episode + step) + 4


def said(frame):
    return divmod(round((float(np.mean(frame)) - 4) / 8), 7)


def frames(number, extra=0):
    levels = np.array([level(number, step) for step in range(LENGTHS[number] + extra)], np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (len(levels), 16, 16, 3)).copy()


def push_t(root, dump=pickle.dumps):
    (root / "obses").mkdir(parents=True)
    for name, tail in (("states", (5,)), ("velocities", (2,)), ("abs_actions", (2,))):
        torch.save(table(*tail), root / f"{name}.pth")
    torch.save(table(2, scale=100.0), root / "rel_actions.pth")
    (root / "seq_lengths.pkl").write_bytes(dump(list(LENGTHS)))
    (root / "shapes.pkl").write_bytes(dump(["T", "L", "T"]))
    for number in range(len(LENGTHS)):
        with VideoWriter(root / f"obses/episode_{number:03d}.mp4", (16, 16), 10) as video:
            video.add(frames(number, extra=1))
    return root


def maze(root, channels_first=False, dtype=torch.uint8, legacy=False):
    (root / "obses").mkdir(parents=True)
    torch.save(table(4), root / "states.pth", _use_new_zipfile_serialization=not legacy)
    torch.save(table(2), root / "actions.pth", _use_new_zipfile_serialization=not legacy)
    torch.save(torch.tensor(LENGTHS), root / "seq_lengths.pth")
    for number in range(len(LENGTHS)):
        seen = torch.from_numpy(frames(number))
        seen = seen.permute(0, 3, 1, 2) if channels_first else seen
        torch.save(seen.to(dtype).clone(), root / f"obses/episode_{number:03d}.pth")
    return root


def check(episode, position, number, scale=1.0):
    steps = LENGTHS[number] - 1
    assert (episode.id, episode.steps) == (position, steps)
    assert [said(frame) for frame in episode.columns["pixels"]] == [(number, t) for t in range(steps + 1)]
    assert episode.columns["state"][:, :2].tolist() == [[number, t] for t in range(steps + 1)]
    assert episode.columns["action"].tolist() == [[scale * number, scale * t] for t in range(steps)]


@pytest.mark.parametrize(
    "dump",
    [
        pickle.dumps,
        lambda value: pickle.dumps(np.array(value), protocol=2),
        lambda value: pickle.dumps(np.array(value), protocol=2).replace(b"numpy._core.", b"numpy.core."),
        lambda value: pickle.dumps(np.array(value), protocol=5),
        lambda value: pickle.dumps([np.int64(v) if isinstance(v, int) else v for v in value]),
        lambda value: pickle.dumps(torch.tensor(value) if isinstance(value[0], int) else value),
    ],
)
def test_push_t(tmp_path, dump):
    source = DinoWM.open(push_t(tmp_path / "train", dump))
    assert len(source) == 3 and source.about["action"] == "rel_actions"
    assert {name: (c.shape, c.transition) for name, c in source.columns.items()} == {
        "state": ((5,), False),
        "velocity": ((2,), False),
        "action": ((2,), True),
        "abs_action": ((2,), True),
        "pixels": ((16, 16, 3), False),
    }
    for number, episode in enumerate(source.episodes()):
        check(episode, number, number, scale=100.0)
        assert episode.columns["abs_action"].tolist() == [[number, t] for t in range(LENGTHS[number] - 1)]
        assert episode.columns["velocity"].tolist() == [[number, t] for t in range(LENGTHS[number])]
        assert episode.facts == {"shape": ("T", "L", "T")[number]}
    assert [len(rows) for rows in source.actions()] == [3, 5, 2]


def test_a_root_of_train_and_val_is_read_whole(tmp_path):
    maze(tmp_path / "train")
    maze(tmp_path / "val")
    assert (
        DinoWM.detect(tmp_path) and DinoWM.detect(tmp_path / "val") and not DinoWM.detect(tmp_path / "train/obses")
    )
    source = DinoWM.open(tmp_path)
    assert len(source) == 6 and source.about["splits"] == {"train": 3, "val": 3}
    for position, episode in enumerate(source.episodes()):
        check(episode, position, position % 3)
        assert episode.facts == {"split": "train" if position < 3 else "val"}
    shutil.rmtree(tmp_path / "train/obses")  # what comes before `first` is not touched
    (tmp_path / "train/obses").mkdir()
    torch.save(torch.from_numpy(frames(0)), tmp_path / "train/obses/episode_000.pth")
    assert [e.id for e in DinoWM.open(tmp_path).episodes(4)] == [4, 5]


@pytest.mark.parametrize(
    "layout", [{}, {"channels_first": True}, {"dtype": torch.float32, "channels_first": True}, {"legacy": True}]
)
def test_point_maze_and_wall_tensors(tmp_path, layout):
    source = DinoWM.open(maze(tmp_path / "maze", **layout))
    for number, episode in enumerate(source.episodes()):
        check(episode, number, number)
        assert episode.columns["pixels"].dtype == np.uint8 and episode.facts == {}
    assert source.action_bounds() is None


def test_wall_has_places_and_no_lengths(tmp_path):
    root = maze(tmp_path / "wall", channels_first=True)
    (root / "seq_lengths.pth").unlink()
    torch.save(torch.arange(3 * WIDTH * 2).reshape(3, WIDTH, 2), root / "door_locations.pth")
    torch.save(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), root / "wall_locations.pth")
    picture = torch.arange(3 * 12 * 6).reshape(3, 12, 6).to(torch.uint8)  # neither square nor flat
    for number in range(3):
        torch.save((picture + number).expand(WIDTH, -1, -1, -1).clone(), root / f"obses/episode_00{number}.pth")
    source = DinoWM.open(root)
    episode = next(source.episodes(1))
    assert episode.steps == WIDTH - 1 and episode.facts == {"wall_location": [3.0, 4.0]}
    assert episode.columns["door_location"].tolist() == np.arange(12, 24).reshape(6, 2).tolist()
    assert source.columns["pixels"].shape == (12, 6, 3)
    assert np.array_equal(episode.columns["pixels"][3], (picture + 1).numpy().transpose(1, 2, 0))


class Bomb:
    """Its pickle makes a folder when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_files_run_nothing(tmp_path):
    root = push_t(tmp_path / "set")
    (root / "seq_lengths.pkl").write_bytes(pickle.dumps([Bomb(tmp_path / "ran")]))
    with pytest.raises(InputError, match=r"seq_lengths.pkl: the file wants to run posix.mkdir"):
        DinoWM.open(root)
    (root / "seq_lengths.pkl").write_bytes(pickle.dumps(list(LENGTHS)))
    torch.save({"states": Bomb(tmp_path / "ran")}, root / "states.pth")
    with pytest.raises(InputError, match=r"states.pth cannot be loaded safely"):
        DinoWM.open(root)
    assert not (tmp_path / "ran").exists()


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda r: halve(r / "states.pth"), r"states.pth cannot be loaded"),
        (lambda r: halve(r / "seq_lengths.pth"), r"seq_lengths.pth cannot be loaded"),
        (lambda r: halve(r / "obses/episode_001.pth"), r"episode_001.pth cannot be loaded"),
        (lambda r: (r / "obses/episode_001.pth").unlink(), r"episode_001.mp4 or .pth is missing"),
        (lambda r: (r / "actions.pth").unlink(), r"has no rel_actions.pth, actions.pth"),
        (lambda r: shutil.rmtree(r / "obses"), r"not DINO-WM data"),
        (lambda r: torch.save(torch.tensor([4, 6]), r / "seq_lengths.pth"), r"expected 3 lengths of 1 to 6"),
        (lambda r: torch.save(torch.tensor([4, 1, 3]), r / "seq_lengths.pth"), r"episode 1: 1 row"),
        (lambda r: torch.save(torch.zeros(2, WIDTH, 2), r / "actions.pth"), r"actions.pth has 2 episodes"),
        (lambda r: torch.save({"a": 1}, r / "actions.pth"), r"actions.pth: expected a tensor .*got dict"),
        (lambda r: torch.save(torch.zeros(2, 16, 16, 3), r / "obses/episode_001.pth"), r"6 or more frames"),
        (lambda r: torch.save(torch.full((6, 16, 16, 3), 0.5), r / "obses/episode_001.pth"), r"not whole numbers"),
        (lambda r: torch.save(frames_of(8), r / "obses/episode_001.pth"), r"episode 1, 'pixels': got uint8"),
    ],
)
def test_damage_is_named(tmp_path, harm, message):
    harm(maze(tmp_path / "set"))
    with pytest.raises(InputError, match=message):
        list(DinoWM.open(tmp_path / "set").episodes())


def frames_of(size):
    return torch.zeros(6, size, size, 3, dtype=torch.uint8)


def test_a_video_that_is_too_short(tmp_path):
    root = push_t(tmp_path / "set")
    with VideoWriter(root / "obses/episode_001.mp4", (16, 16), 10) as video:
        video.add(frames(1)[:-2])
    with pytest.raises(InputError, match=r"episode_001.mp4 ends after 4 of 6 frames"):
        list(DinoWM.open(root).episodes())
    halve(root / "obses/episode_000.mp4")
    with pytest.raises(InputError, match=r"episode_000.mp4"):
        list(DinoWM.open(root).episodes())
