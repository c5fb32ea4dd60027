"""Reading: round trips, fingerprint, checksums, damaged files."""

import shutil
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lewm.data import Column, DatasetInfo, EpisodeReader
from lewm.types import Episode, InputError

DTYPES = ("uint8", "bool", "int16", "int64", "uint32", "float16", "float32", "float64")
columns_strategy = st.dictionaries(
    st.text(string.ascii_lowercase, min_size=1, max_size=8).filter(lambda name: name not in ("action",)),
    st.builds(
        Column,
        st.sampled_from(DTYPES),
        st.lists(st.integers(1, 4), max_size=3).map(tuple),
        st.integers(1, 5),
        st.sampled_from(["raw", "zstd:1", "zstd:9"]),
    ),
    max_size=3,
)
action_strategy = st.builds(Column, st.sampled_from(DTYPES), st.tuples(st.integers(1, 3)))


def random_episode(number, steps, columns, rng):
    def values(column, rows):
        raw = rng.integers(-1000, 1000, (rows, *column.shape))
        return (raw > 0) if column.dtype == "bool" else raw.astype(column.dtype)

    made = {name: values(c, steps if name == "action" else c.rows(steps)) for name, c in columns.items()}
    return Episode(number, made, {"number": number})


@settings(max_examples=25, deadline=None)
@given(
    columns=columns_strategy,
    action=action_strategy,
    lengths=st.dictionaries(st.integers(0, 10**12), st.integers(1, 12), min_size=1, max_size=5),
    shard_bytes=st.sampled_from([0, 200, 1 << 30]),
    seed=st.integers(0, 2**32),
)
def test_round_trip(tmp_path_factory, write_set, matches, columns, action, lengths, shard_bytes, seed):
    columns, folder = {**columns, "action": action}, tmp_path_factory.mktemp("set")
    info = DatasetInfo(columns, (-1.0,) * action.shape[0], (1.0,) * action.shape[0])
    rng = np.random.default_rng(seed)
    episodes = [random_episode(number, steps, columns, rng) for number, steps in lengths.items()]
    reader = write_set(folder, episodes, info, shard_bytes=shard_bytes)
    ordered = sorted(episodes, key=lambda e: e.id)
    assert len(reader) == len(episodes)
    assert all(matches(reader, k, episode) for k, episode in enumerate(ordered))
    assert list(reader.verify()) == []
    for name, column in columns.items():
        for position, episode in enumerate(ordered):
            # T + 1 observations, every stride-th kept
            assert len(reader.column(name, position)) == len(range(0, episode.steps + 1, column.stride))
    shutil.rmtree(folder)


def test_the_last_action_row_is_zero_and_means_nothing(tmp_path, make_episode, write_set):
    reader = write_set(tmp_path, [make_episode(0, steps=4), make_episode(1, steps=1)])
    assert reader.steps.tolist() == [4, 1]
    for position in range(2):
        action = reader.column("action", position)
        assert len(action) == reader.steps[position] + 1
        assert (action[:-1] != 0).all()
        assert (action[-1] == 0).all()


def test_gather_and_frames_pick_single_rows(tmp_path, make_info, make_episode, write_set):
    reader = write_set(tmp_path, [make_episode(i, 8, make_info(2)) for i in range(5)], make_info(2))
    rng = np.random.default_rng(0)
    episodes, rows = rng.integers(0, 5, (3, 4)), rng.integers(0, 9, (3, 4))
    assert np.array_equal(reader.gather("state", episodes, rows), np.stack([episodes, rows], -1))
    frames = reader.gather("pixels", episodes.ravel(), rows.ravel() // 2)
    assert np.array_equal(frames[:, 0, 0, 0], episodes.ravel())
    assert np.array_equal(frames[:, 0, 1, 0], rows.ravel() // 2 * 2)


def test_action_spec_describes_the_actions_of_the_chosen_episodes(tmp_path, make_episode, write_set):
    episodes = [make_episode(i, steps=3 + i) for i in range(4)]
    reader = write_set(tmp_path, episodes)
    spec = reader.action_spec(np.array([1, 3]))
    actions = np.concatenate([episodes[1].columns["action"], episodes[3].columns["action"]]).astype(float)
    assert np.allclose(spec.mean, actions.mean(0), rtol=1e-6)
    assert np.allclose(spec.std, actions.std(0), rtol=1e-6)
    assert np.array_equal(spec.low, [-500, -500])
    assert np.array_equal(spec.high, [500, 500])


def test_fingerprint_ignores_writers_order_shards_and_creator(tmp_path, make_info, make_episode, write_set):
    episodes = [make_episode(i) for i in range(4)]
    first = write_set(tmp_path / "a", episodes)
    info = make_info(creator={"commit": "other"})
    second = write_set(tmp_path / "b", episodes[::-1], info, writer="z", shard_bytes=1)
    assert first.fingerprint == second.fingerprint


def test_fingerprint_changes_with_any_content(tmp_path, make_info, make_episode, write_set, change):
    base = [make_episode(0), make_episode(1)]
    pixels, state, action = (base[1].columns[k].copy() for k in ("pixels", "state", "action"))
    pixels[3, 1, 1, 0] ^= 1
    state[2, 1] = np.nextafter(state[2, 1], 9)
    action[-1, 0] += 1
    sets = {
        "base": base,
        "pixel": [base[0], change(base[1], pixels=pixels)],
        "state": [base[0], change(base[1], state=state)],
        "action": [base[0], change(base[1], action=action)],
        "fewer": base[:1],
        "more": [*base, make_episode(2)],
        "swapped": [Episode(0, base[1].columns), Episode(1, base[0].columns)],
        "renamed": [base[0], Episode(7, base[1].columns)],
    }
    prints = {name: write_set(tmp_path / name, episodes).fingerprint for name, episodes in sets.items()}
    info = make_info(extra=Column("float32", ()))
    extra = [change(e, extra=np.zeros(e.steps + 1, np.float32)) for e in base]
    prints["column"] = write_set(tmp_path / "column", extra, info).fingerprint
    assert len(set(prints.values())) == len(prints)


@pytest.mark.parametrize("file", ["pixels.bin", "pixels.idx", "state.bin", "action.bin"])
def test_verify_finds_every_flipped_byte_and_names_the_episode(tmp_path, make_episode, write_set, file):
    write_set(tmp_path, [make_episode(i) for i in (10, 20, 30)])
    path = tmp_path / "shards" / "w0000-0" / file
    whole = path.read_bytes()
    third = len(whole) // 3
    for offset in (0, third - 1, third + 5, 2 * third - 7, 2 * third + 1, len(whole) - 1):
        flipped = bytearray(whole)
        flipped[offset] ^= 0x10
        path.write_bytes(flipped)
        faults = list(EpisodeReader(tmp_path).verify())
        assert len(faults) >= 1, f"byte {offset} of {file}"
        assert all("pixels" in f or file.split(".")[0] in f for f in faults)
        if file != "pixels.bin":  # rows of one size: the place of each episode is known
            assert f"episode {(offset // third + 1) * 10}" in faults[0]
    path.write_bytes(whole)
    assert list(EpisodeReader(tmp_path).verify()) == []


@pytest.mark.parametrize("file", ["pixels.bin", "pixels.idx", "state.bin", "action.bin"])
@pytest.mark.parametrize("keep", [0, -1])
def test_a_file_cut_short_is_named_with_the_episode(tmp_path, make_episode, write_set, file, keep):
    write_set(tmp_path, [make_episode(4), make_episode(9)])
    path = tmp_path / "shards" / "w0000-0" / file
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=rf"{file} .*episode {4 if keep == 0 else 9}\b"):
        EpisodeReader(tmp_path)


@pytest.mark.parametrize("file", ["pixels.bin", "pixels.idx", "state.bin", "action.bin"])
def test_a_missing_file_is_named(tmp_path, make_episode, write_set, file):
    write_set(tmp_path, [make_episode(4)])
    (tmp_path / "shards" / "w0000-0" / file).unlink()
    with pytest.raises(InputError, match=rf"{file} is missing"):
        EpisodeReader(tmp_path)


def test_a_missing_shard_is_named(tmp_path, make_episode, write_set):
    write_set(tmp_path, [make_episode(i) for i in range(4)], shard_bytes=1)
    shutil.rmtree(tmp_path / "shards" / "w0000-2")
    with pytest.raises(InputError, match="w0000-2"):
        EpisodeReader(tmp_path)


def test_a_damaged_frame_is_named_and_the_others_stay_readable(tmp_path, make_episode, write_set, matches):
    episodes = [make_episode(5), make_episode(6)]
    reader = write_set(tmp_path, episodes)
    path = tmp_path / "shards" / "w0000-0" / "pixels.bin"
    begin = reader.episodes[1].bytes["pixels"][0]
    data = bytearray(path.read_bytes())
    data[begin : begin + 4] = b"\0\0\0\0"  # the magic number of its first frame
    path.write_bytes(data)
    reader = EpisodeReader(tmp_path)
    with pytest.raises(InputError, match=r"pixels\.bin.*frame 0\b.*episode 6\b"):
        reader.gather("pixels", np.array([1]), np.array([0]))
    assert matches(reader, 0, episodes[0])
    rest = reader.gather("pixels", np.full(6, 1), np.arange(1, 7))
    assert np.array_equal(rest, episodes[1].columns["pixels"][1:])


def test_no_flipped_bit_in_a_frame_raises_anything_but_an_input_error(tmp_path, make_episode, write_set):
    reader = write_set(tmp_path, [make_episode(5)])
    path = tmp_path / "shards" / "w0000-0" / "pixels.bin"
    whole = path.read_bytes()
    first = int(np.frombuffer(path.with_suffix(".idx").read_bytes(), "<u8")[0])
    for bit in range(8 * first):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        reader = EpisodeReader(tmp_path)
        try:
            assert reader.gather("pixels", np.array([0]), np.array([0])).shape == (1, 2, 3, 1)
        except InputError as error:
            assert "pixels.bin" in str(error)
            assert "episode 5" in str(error)


def test_an_episode_held_by_two_writers_is_an_error(tmp_path, make_episode, write_set):
    write_set(tmp_path, [make_episode(1), make_episode(2)], writer="a")
    with pytest.raises(InputError, match="episode 2 twice"):
        write_set(tmp_path, [make_episode(2), make_episode(3)], writer="b")
    (tmp_path / "episodes-b.jsonl").unlink()  # what the message advises
    assert EpisodeReader(tmp_path).ids.tolist() == [1, 2]
