"""OGBench npz: rows say trajectory and step, so that a shift by one shows."""

import numpy as np
import pytest

from lewm.data.formats.base import bounds_of
from lewm.data.formats.ogbench import OGBench
from lewm.types import InputError

LENGTHS = (4, 4, 3)  # rows
NUMBER = np.repeat(np.arange(3), LENGTHS)
STEP = np.concatenate([np.arange(n) for n in LENGTHS])


def arrays(visual=True, terminals=bool):
    if visual:
        observations = np.zeros((len(STEP), 6, 6, 3), np.uint8)
        observations[..., 0], observations[..., 1] = NUMBER[:, None, None], STEP[:, None, None]
    else:
        observations = np.stack([NUMBER, STEP], 1).astype(np.float32)
    last = np.append(NUMBER[1:] != NUMBER[:-1], True)
    return {
        "observations": observations,
        "actions": (np.stack([NUMBER, STEP], 1) + 0.5).astype(np.float32),
        "terminals": last.astype(terminals),
        "qpos": np.stack([NUMBER, STEP, STEP], 1).astype(np.float64),
        "button_states": STEP[:, None].astype(np.int64),
    }


def saved(tmp_path, save=np.savez_compressed, **changes):
    path = tmp_path / "visual-cube.npz"
    held = {k: v for k, v in (arrays() | changes).items() if v is not None}
    save(path, **held)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("terminals", [bool, np.float32])
@pytest.mark.parametrize("visual", [True, False])
def test_rows_become_steps(tmp_path, visual, terminals, save):
    path = saved(tmp_path, save, **arrays(visual, terminals))
    source = OGBench.open(path)
    image = "pixels" if visual else "observation"
    assert OGBench.detect(path) and len(source) == 3
    assert set(source.columns) == {image, "action", "qpos", "button_states"}
    assert source.columns[image].compressed == visual and source.columns["action"].transition
    episodes = list(source.episodes())
    for number, episode in enumerate(episodes):
        rows, steps = np.arange(LENGTHS[number]), np.arange(LENGTHS[number] - 1)
        assert (episode.id, episode.steps) == (number, len(steps))
        assert episode.columns["action"].tolist() == [[number + 0.5, t + 0.5] for t in steps]
        seen = episode.columns[image]
        pair = seen[:, 0, 0, :2] if visual else seen
        assert pair.tolist() == [[number, t] for t in rows]
        assert seen.dtype == (np.uint8 if visual else np.float32)
        assert episode.columns["qpos"].tolist() == [[number, t, t] for t in rows]
        assert episode.columns["button_states"].dtype == np.int64
    later = list(source.episodes(1))
    assert [e.id for e in later] == [1, 2]
    assert all(
        np.array_equal(a.columns[k], b.columns[k])
        for a, b in zip(later, episodes[1:], strict=True)
        for k in a.columns
    )
    assert source.action_bounds() is None
    low, high = bounds_of(source.actions())
    assert (low.tolist(), high.tolist()) == ([0.5, 0.5], [2.5, 2.5])  # not 3.5: the last actions are dropped


def test_reads_members_in_order_and_little_at_a_time(tmp_path, monkeypatch):
    """Nothing bigger than a trajectory is ever asked for, and numpy.load is not used."""
    import zipfile

    path = saved(tmp_path)
    asked, real = [], zipfile.ZipExtFile.read
    monkeypatch.setattr(zipfile.ZipExtFile, "read", lambda file, n=-1: asked.append(n) or real(file, n))
    monkeypatch.setattr(np, "load", None)
    source = OGBench.open(path)
    asked.clear()
    assert len(list(source.episodes())) == 3
    assert min(asked) > 0 and max(asked) <= max(4 * 6 * 6 * 3, 65536)
    rows = [n for n in asked if n == 4 * 6 * 6 * 3]
    assert len(rows) == 2


def test_whole_number_actions_become_floats_and_a_missing_end_is_an_end(tmp_path):
    path = saved(tmp_path, actions=STEP.astype(np.int32), terminals=np.zeros(len(STEP)))
    source = OGBench.open(path)
    (episode,) = source.episodes()
    assert episode.columns["action"].dtype == np.float32
    assert episode.columns["action"][:, 0].tolist() == STEP[:-1].tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actions": None}, "no array 'actions'"),
        ({"qpos": np.zeros((5, 2))}, r"'qpos' has 5 rows, 'actions' 11"),
        ({"terminals": np.ones(11)}, "episode 0: 1 row"),
        ({"terminals": np.array([{}] * 11)}, "Python objects"),
        ({"actions": np.asfortranarray(np.zeros((11, 2)))}, "Fortran order"),
        ({key: value[:0] for key, value in arrays().items()}, "holds no rows"),
    ],
)
def test_foreign_contents_are_named(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        list(OGBench.open(saved(tmp_path, **changes)).episodes())


def test_damage_is_named(tmp_path):
    path = saved(tmp_path, np.savez)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert not OGBench.detect(path)
    with pytest.raises(InputError, match="is not a"):
        OGBench.open(path)
    at = whole.index(b"\x93NUMPY") + 128 + 10  # in the first rows of `observations`
    path.write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
    with pytest.raises(InputError, match=r"'observations'.*damaged"):
        list(OGBench.open(path).episodes())
    assert not OGBench.detect(tmp_path) and not OGBench.detect(tmp_path / "absent.npz")
