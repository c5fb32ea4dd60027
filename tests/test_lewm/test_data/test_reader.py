"""Reading: rows, fingerprint, cache modes, workers."""

import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from lewm.data import Column, DatasetInfo, EpisodeReader, EpisodeWriter, shard_reader
from lewm.types import Episode, InputError

pytestmark = pytest.mark.usefixtures("quick_disk")


def test_a_transition_column_has_t_rows_the_others_t_plus_one(tmp_path, make_episode, write_set):
    reader = write_set(tmp_path, [make_episode(0, steps=4), make_episode(1, steps=1)])
    assert reader.steps.tolist() == [4, 1]
    for position, steps in enumerate((4, 1)):
        assert [len(reader.column(n, position)) for n in ("action", "state", "pixels")] == [
            steps,
            steps + 1,
            steps + 1,
        ]
        assert (reader.column("action", position) != 0).all()
        filler = reader.gather("action", np.array([position]), np.array([steps]))
        assert (filler == 0).all()


@pytest.mark.parametrize("cache", ["none", "compressed", "ram"])
@pytest.mark.parametrize("shard_bytes", [1, 1 << 30])
def test_gather_picks_single_rows(tmp_path, make_info, make_episode, write_set, cache, shard_bytes):
    write_set(tmp_path, [make_episode(i, 8, make_info(2)) for i in range(5)], make_info(2), shard_bytes=shard_bytes)
    reader = EpisodeReader(tmp_path, cache=cache)
    rng = np.random.default_rng(0)
    episodes, rows = rng.integers(0, 5, (3, 4)), rng.integers(0, 9, (3, 4))
    assert np.array_equal(reader.gather("state", episodes, rows), np.stack([episodes, rows], -1))
    frames = reader.gather("pixels", episodes, rows // 2)
    assert frames.shape == (3, 4, 2, 3, 1)
    assert np.array_equal(frames[..., 0, 0, 0], episodes)
    assert np.array_equal(frames[..., 0, 1, 0], rows // 2 * 2)
    out = np.full((12, 6), 99, np.uint8)
    filled = reader.gather("pixels", episodes.ravel(), rows.ravel() // 2, out)
    assert np.shares_memory(filled, out)
    assert np.array_equal(filled.reshape(frames.shape), frames)
    assert reader.gather("pixels", np.zeros(0, int), np.zeros(0, int)).shape == (0, 2, 3, 1)


@pytest.mark.parametrize("row", [-1, 7, 10**6])
def test_a_row_outside_of_its_episode_is_an_index_error(tmp_path, make_episode, write_set, row):
    """It would be a row of the neighbour."""
    reader = write_set(tmp_path, [make_episode(i, 6) for i in range(3)])
    for name in ("state", "pixels", "action"):
        with pytest.raises(IndexError, match=name):
            reader.gather(name, np.array([1]), np.array([row]))


def test_unknown_column_and_cache(tmp_path, make_episode, write_set):
    reader = write_set(tmp_path, [make_episode(0)])
    with pytest.raises(InputError, match="no column 'pixel': did you mean 'pixels'"):
        reader.column("pixel", 0)
    with pytest.raises(InputError, match="unknown cache 'rum': did you mean 'ram'"):
        EpisodeReader(tmp_path, cache="rum")


def test_ram_that_is_not_there_is_refused_when_opening(tmp_path, make_episode, write_set, monkeypatch):
    write_set(tmp_path, [make_episode(i, 9) for i in range(3)])
    needed = 3 * 10 * (6 + 16 + 8)
    for free, refused in ((needed - 1, True), (needed, False), (None, False)):
        monkeypatch.setattr("lewm.data.reader.available_memory", lambda free=free: free)
        if refused:
            with pytest.raises(InputError, match="use cache=compressed or cache=none"):
                EpisodeReader(tmp_path, cache="ram")
        else:
            assert len(EpisodeReader(tmp_path, cache="ram")) == 3
    assert shard_reader.available_memory() is None or shard_reader.available_memory() > 10**6


@pytest.mark.parametrize("cache", ["compressed", "ram"])
def test_a_cache_reads_each_file_once(tmp_path, make_episode, write_set, cache):
    write_set(tmp_path, [make_episode(i) for i in range(3)])
    reader = EpisodeReader(tmp_path, cache=cache)
    episodes = [reader.episode(k) for k in range(3)]
    facts = [reader.facts(k) for k in range(3)]
    for path in tmp_path.glob("shards/*/*"):
        path.write_bytes(b"\xff" * path.stat().st_size)  # nobody looks there any more
    again = [reader.column("pixels", k) for k in range(3)]
    assert all(np.array_equal(a, e.columns["pixels"]) for a, e in zip(again, episodes, strict=True))
    assert facts == [{}] * 3


@pytest.mark.parametrize("cache", ["none", "compressed", "ram"])
def test_a_pickled_reader_reads_the_same_and_carries_no_rows(tmp_path, make_episode, write_set, matches, cache):
    big = [make_episode(i, 200) for i in range(3)]
    write_set(tmp_path, big)
    reader = EpisodeReader(tmp_path, cache=cache)
    reader.episode(0)
    sent = pickle.dumps(reader)
    assert len(sent) < 4000  # 3 * 200 rows of 30 bytes are 18 kB
    again = pickle.loads(sent)
    assert all(matches(again, k, episode) for k, episode in enumerate(big))
    assert again.fingerprint == reader.fingerprint


def test_readers_of_a_growing_set_see_what_was_committed_when_they_opened(
    tmp_path, make_info, make_episode, matches
):
    episodes = [make_episode(i) for i in range(4)]
    with EpisodeWriter(tmp_path, make_info()) as writer:
        for count in range(1, 5):
            writer.commit([episodes[count - 1]])
            reader = EpisodeReader(tmp_path)
            assert len(reader) == count
            if count == 2:
                early = reader
    assert len(early) == 2
    assert all(matches(early, k, episodes[k]) for k in range(2))


def test_action_spec_describes_the_actions_of_the_chosen_episodes(tmp_path, make_episode, write_set):
    episodes = [make_episode(i, steps=3 + i) for i in range(4)]
    reader = write_set(tmp_path, episodes)
    spec = reader.action_spec(np.array([1, 3]))
    actions = np.concatenate([episodes[1].columns["action"], episodes[3].columns["action"]]).astype(float)
    assert np.allclose(spec.mean, actions.mean(0), rtol=1e-6)
    assert np.allclose(spec.std, actions.std(0), rtol=1e-6)
    assert np.array_equal(spec.low, [-500, -500])
    assert np.array_equal(spec.high, [500, 500])


def test_fingerprint_ignores_writers_order_shards_groups_level_and_creator(
    tmp_path, make_info, make_episode, write_set
):
    episodes = [make_episode(i, 2 + i) for i in range(6)]
    first = write_set(tmp_path / "a", episodes).fingerprint
    info = make_info(creator={"commit": "other"})
    assert write_set(tmp_path / "b", episodes[::-1], info, writer="z", shard_bytes=1).fingerprint == first
    assert write_set(tmp_path / "c", episodes, make_info(codec="zstd:19")).fingerprint == first
    write_set(tmp_path / "d", episodes[::2], writer="x")
    assert write_set(tmp_path / "d", episodes[1::2], writer="y").fingerprint == first
    with EpisodeWriter(tmp_path / "e", make_info()) as writer:
        writer.commit(episodes)
    assert EpisodeReader(tmp_path / "e").fingerprint == first
    assert len(first) == 16


def test_fingerprint_changes_with_any_content(tmp_path, make_info, make_episode, write_set, change):
    base = [make_episode(0), make_episode(1)]
    pixels, state, action = (base[1].columns[k].copy() for k in ("pixels", "state", "action"))
    pixels[3, 1, 1, 0] ^= 1
    state[2, 1] = np.nextafter(state[2, 1], 9)
    action[-1, 0] += 1
    longer = change(base[1], **{n: np.concatenate([rows, rows[-1:]]) for n, rows in base[1].columns.items()})
    sets = {
        "base": base,
        "pixel": [base[0], change(base[1], pixels=pixels)],
        "frames swapped": [base[0], change(base[1], pixels=base[1].columns["pixels"][[1, 0, 2, 3, 4, 5, 6]])],
        "state": [base[0], change(base[1], state=state)],
        "minus zero": [change(base[0], state=base[0].columns["state"] * [-1.0, 1.0]), base[1]],
        "action": [base[0], change(base[1], action=action)],
        "fewer": base[:1],
        "longer": [base[0], longer],
        "more": [*base, make_episode(2)],
        "swapped": [Episode(0, base[1].columns), Episode(1, base[0].columns)],
        "renamed": [base[0], Episode(7, base[1].columns)],
    }
    prints = {name: write_set(tmp_path / name, episodes).fingerprint for name, episodes in sets.items()}
    info = make_info()
    for name, other in {
        "a column more": make_info(extra=Column("float32", ())),
        "lossy": make_info(codec="jpeg:90"),
        "a transition": replace(info, columns={**info.columns, "reward": Column("float32", (), transition=True)}),
        "low": DatasetInfo(info.columns, (-500.0, -501.0), info.action_high, info.source),
        "high": DatasetInfo(info.columns, info.action_low, (500.5, 500.0), info.source),
    }.items():
        added = {n: np.zeros(6 + (not c.transition), np.float32) for n, c in other.columns.items()}
        more = [change(e, **{n: rows for n, rows in added.items() if n not in e.columns}) for e in base]
        prints[name] = write_set(tmp_path / name, more, other).fingerprint
    assert len(set(prints.values())) == len(prints)


def test_two_columns_of_one_kind_are_not_interchangeable(tmp_path, make_info, make_episode, change, write_set):
    info, prints = make_info(other=Column("float64", (2,))), []
    for a, b in ((0.0, 1.0), (1.0, 0.0)):
        episode = change(make_episode(0), state=np.full((7, 2), a), other=np.full((7, 2), b))
        prints.append(write_set(tmp_path / str(a), [episode], info).fingerprint)
    assert prints[0] != prints[1]


def test_the_index_holds_no_object_for_an_episode(tmp_path, make_episode, write_set):
    few = write_set(tmp_path / "few", [make_episode(i, 1) for i in range(10)])
    many = write_set(tmp_path / "many", [make_episode(i, 1) for i in range(60)])
    assert many.table.nbytes == 6 * few.table.nbytes
    assert many.table.nbytes <= 60 * (28 + 3 * 36)
    assert all(isinstance(value, np.ndarray | list | dict) for value in vars(many.table).values())
    assert max(len(value) for value in vars(many.table).values() if not isinstance(value, np.ndarray)) <= 3


def test_importing_the_store_imports_no_torch_and_no_image_library():
    """Workers and robots start in a fraction of a second."""
    code = (
        "import sys, lewm.data; print([m for m in ('torch', 'PIL', 'h5py', 'pyarrow', 'av') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


MANY_SHARDS = """
import resource, sys
import numpy as np
from lewm.data import EpisodeReader, Windows
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
reader = EpisodeReader(sys.argv[1])
assert len(reader.table.shards) == 120
assert not list(reader.verify())
windows = Windows(reader, np.arange(120), frames=2, block=1)
for step in range(10):
    batch = windows.draw(step, 60, 0)
    assert (batch.pixels[:, 0, 0, 0, 0] == reader.ids[batch.episodes] % 256).all()
"""


def test_a_set_may_have_more_shards_than_a_process_may_hold_files(tmp_path, quick_disk, make_episode, write_set):
    write_set(tmp_path, [make_episode(i) for i in range(120)], shard_bytes=1)
    done = subprocess.run([sys.executable, "-c", MANY_SHARDS, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_with_everything_in_memory_a_damaged_row_costs_its_episode_only(tmp_path, make_episode, write_set):
    reader = write_set(tmp_path, [make_episode(i) for i in range(3)])
    path = tmp_path / "shards/w0000-0/pixels.bin"
    data = bytearray(path.read_bytes())
    data[int(reader.table.places["pixels"]["begin"][1]) + 9] ^= 255
    path.write_bytes(data)
    reader = EpisodeReader(tmp_path, cache="ram")
    for k in (0, 2):
        assert np.array_equal(reader.column("pixels", k), make_episode(k).columns["pixels"])
    with pytest.raises(InputError, match="row 0 of episode 1 is damaged"):
        reader.column("pixels", 1)
