"""Episodes recorded row by row: the same bytes as at once, checked as they come."""

import gc
import shutil
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lewm.data import Column, DatasetInfo, EpisodeReader, EpisodeWriter, Recording
from lewm.data.schema import RESERVED
from lewm.types import Episode, InputError

pytestmark = pytest.mark.usefixtures("quick_disk")

DTYPES = [np.dtype(code).name for code in np.typecodes["AllInteger"] + "?efd"]


@st.composite
def column(draw):
    transition = draw(st.booleans())
    return Column(
        draw(st.sampled_from(DTYPES)),
        draw(st.lists(st.integers(1, 4), max_size=3).map(tuple)),
        1 if transition else draw(st.integers(1, 5)),
        draw(st.sampled_from(["raw", "zstd:1", "zstd:9"])),
        transition,
    )


others = st.dictionaries(
    st.text(string.ascii_lowercase, min_size=1, max_size=8).filter(lambda name: name not in {"action", *RESERVED}),
    column(),
    max_size=3,
)
actions = st.builds(
    Column,
    st.sampled_from(["float16", "float32", "float64"]),
    st.tuples(st.integers(1, 3)),
    codec=st.sampled_from(["raw", "zstd:1"]),
)


def random_rows(column, count, rng):
    """Any bit pattern the column can hold: all integers, all finite floats."""
    dtype, shape = np.dtype(column.dtype), (count, *column.shape)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    if dtype.kind == "f":
        return (rng.standard_normal(shape) * 10.0 ** rng.integers(-4, 4, shape)).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype, endpoint=True)


def random_episode(number, steps, columns, rng):
    counts = {name: steps if c.transition else steps // c.stride + 1 for name, c in columns.items()}
    made = {name: random_rows(c, counts[name], rng) for name, c in columns.items()}
    return Episode(number, made, {"number": number, "note": ['é "\n', None, 0.1]})


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    columns=others,
    action=actions,
    lengths=st.dictionaries(st.integers(0, 2**63 - 1), st.integers(1, 12), min_size=1, max_size=5),
    shard_bytes=st.sampled_from([0, 200, 1 << 30]),
    writers=st.integers(1, 3),
    group=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
def test_round_trip(
    tmp_path_factory, matches, equal, snapshot, columns, action, lengths, shard_bytes, writers, group, seed
):
    """Whatever is written comes back bit for bit, by any number of writers, at once or row by row."""
    info = DatasetInfo({**columns, "action": action}, (-1.0,) * action.shape[0], (1.0,) * action.shape[0])
    rng, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("set")
    episodes = [random_episode(number, steps, info.columns, rng) for number, steps in lengths.items()]
    for name in ("at once", "by row"):
        for w in range(writers):
            share = episodes[w::writers]
            with EpisodeWriter(folder / name, info, writer=f"w{w}", shard_bytes=shard_bytes) as writer:
                made = share if name == "at once" else [record(writer, episode) for episode in share]
                for first in range(0, len(made), group):
                    writer.commit(made[first : first + group])
    reader = EpisodeReader(folder / "at once")
    assert reader.ids.tolist() == sorted(lengths)
    for position, number in enumerate(reader.ids.tolist()):
        assert matches(reader, position, next(e for e in episodes if e.id == number))
    assert list(reader.verify()) == []
    for cache in ("compressed", "ram"):
        again = EpisodeReader(folder / "at once", cache=cache)
        assert all(equal(again.episode(k), reader.episode(k)) for k in range(len(reader)))
    assert EpisodeReader(folder / "by row").fingerprint == reader.fingerprint
    assert snapshot(folder / "by row") == snapshot(folder / "at once")
    shutil.rmtree(folder)


def record(writer, episode):
    """As a simulator would: the observations of a step, then its transition, a row at a time."""
    recording, columns = writer.begin(episode.id, episode.facts), writer.info.columns
    for step in range(episode.steps + 1):
        seen = {n: c for n, c in columns.items() if not c.transition and step % c.stride == 0}
        recording.add(**{name: episode.columns[name][step // c.stride] for name, c in seen.items()})
        if step < episode.steps:
            recording.add(**{n: episode.columns[n][step] for n, c in columns.items() if c.transition})
    return recording


def test_jpeg_frames_have_stable_bytes_and_come_back_nearly(tmp_path, make_info, make_episode, change, snapshot):
    info = make_info(codec="jpeg:95", camera=Column("uint8", (16, 16, 3), codec="jpeg:90"))
    smooth = np.add.outer(np.add.outer(np.arange(7), np.arange(16)), np.arange(16))[..., None] * np.array([3, 2, 1])
    episode = change(make_episode(3), camera=smooth.astype(np.uint8), pixels=np.full((7, 2, 3, 1), 90, np.uint8))
    for name in ("a", "b"):
        with EpisodeWriter(tmp_path / name, info) as writer:
            writer.commit([episode])
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")
    reader = EpisodeReader(tmp_path / "a")
    assert np.abs(reader.column("camera", 0).astype(int) - smooth).mean() < 4
    assert np.abs(reader.column("pixels", 0).astype(int) - 90).max() <= 2
    assert np.array_equal(reader.column("state", 0), episode.columns["state"])


def test_a_transition_column_has_one_row_a_step_and_a_zero_row_on_disk(tmp_path, make_info, make_episode, change):
    info = make_info(reward=Column("float64", (), codec="zstd:1", transition=True))
    with EpisodeWriter(tmp_path, info) as writer:
        writer.commit([change(make_episode(i, 4), reward=np.full(4, i + 1.0)) for i in range(2)])
    reader = EpisodeReader(tmp_path)
    assert reader.column("reward", 1).tolist() == [2.0] * 4
    assert reader.gather("reward", np.array([0, 1]), np.array([4, 4])).tolist() == [0, 0]
    with EpisodeWriter(tmp_path, info) as writer, pytest.raises(InputError, match=r"episode 2.*'reward'.*4 rows"):
        writer.commit([change(make_episode(2, 4), reward=np.zeros(5))])


@pytest.mark.parametrize("id", [-1, 1.0, "7", None, True, 2**63, 2**70])
def test_an_id_that_an_index_cannot_hold_is_rejected(tmp_path, make_info, id):
    with (
        EpisodeWriter(tmp_path, make_info()) as writer,
        pytest.raises(InputError, match="id must be a whole number"),
    ):
        writer.begin(id)


def test_the_largest_id_and_numpy_ids(tmp_path, make_episode, write_set):
    reader = write_set(tmp_path, [make_episode(i) for i in (2**63 - 1, 0)])
    assert reader.ids.tolist() == [0, 2**63 - 1]
    assert Recording(np.uint8(200), {}).id == 200


ROWS = {
    "a wrong shape": ({"state": np.zeros(3)}, r"'state', row 1: expected .*float64 \(2,\), got float64 \(3,\)"),
    "a scalar": ({"state": np.float64(1)}, r"'state', row 1: expected .*float64 \(2,\), got float64 \(\)"),
    "a wrong dtype": ({"state": np.zeros(2, "f4")}, r"'state', row 1: expected .*float64 .* got float32"),
    "a list of integers": ({"state": [0, 0]}, r"'state', row 1: expected .*float64 .* got int64"),
    "another byte order": ({"state": np.zeros(2, ">f8")}, r"'state', row 1"),
    "NaN": ({"state": np.array([0, np.nan])}, r"'state', row 1 .*NaN"),
    "infinity": ({"state": np.array([0, -np.inf])}, r"'state', row 1 .*NaN or infinity"),
    "NaN actions": ({"action": np.full(2, np.nan, "f4")}, r"'action', row 0 .*NaN"),
    "an unknown column": ({"reward": np.zeros(2)}, r"'reward'.*\['action', 'pixels', 'state'\]"),
}


@pytest.mark.parametrize(("rows", "message"), ROWS.values(), ids=ROWS.keys())
def test_a_row_that_does_not_fit_is_named_when_it_comes(tmp_path, make_info, rows, message):
    with EpisodeWriter(tmp_path, make_info()) as writer:
        recording = writer.begin(12)
        recording.add(state=np.zeros(2))
        with pytest.raises(InputError, match="episode 12.*" + message):
            recording.add(**rows)


def test_a_row_is_copied_when_it_is_added(tmp_path, make_info):
    """Simulators and cameras fill the same array again and again."""
    info = DatasetInfo({"action": Column("float32", (2,))}, (-9.0, -9.0), (9.0, 9.0))
    row = np.zeros(2, np.float32)
    with EpisodeWriter(tmp_path, info) as writer:
        recording = writer.begin(0)
        for k in range(3):
            row[:] = k
            recording.add(action=row)
        writer.commit([recording])
    assert EpisodeReader(tmp_path).column("action", 0)[:, 0].tolist() == [0, 1, 2]


def test_rows_need_not_be_contiguous(tmp_path, make_info, make_episode, change, write_set):
    episode = make_episode(1)
    flipped = np.asfortranarray(episode.columns["pixels"])[:, ::-1]
    reader = write_set(tmp_path, [change(episode, pixels=flipped)])
    assert np.array_equal(reader.column("pixels", 0), episode.columns["pixels"][:, ::-1])


def test_at_most_256_in_flight_and_a_dropped_one_frees_its_place(tmp_path, make_info, make_episode):
    with EpisodeWriter(tmp_path, make_info()) as writer:
        flying = [writer.begin(i) for i in range(256)]
        with pytest.raises(InputError, match="256 episodes are being recorded"):
            writer.begin(256)
        del flying[3]
        gc.collect()
        flying.append(writer.begin(256))
        with pytest.raises(InputError, match="256"):
            writer.begin(257)
        for name, rows in make_episode(256).columns.items():
            flying[-1].extend(name, rows)
        writer.commit(flying[-1:])  # and so does a committed one, held or not
        writer.begin(257)
    assert EpisodeReader(tmp_path).ids.tolist() == [256]


def test_a_recording_cannot_be_committed_twice(tmp_path, make_info, make_episode):
    with EpisodeWriter(tmp_path, make_info()) as writer:
        recording = record(writer, make_episode(0))
        writer.commit([recording])
        with pytest.raises(InputError, match="episode 0 is already"):
            writer.commit([recording])
        with pytest.raises(InputError, match="episode 1"):
            writer.commit([again := record(writer, make_episode(1)), again])
    assert EpisodeReader(tmp_path).ids.tolist() == [0]


def test_a_recording_for_other_columns_is_rejected(tmp_path, make_info, make_episode, snapshot):
    """Its rows would be stored with the wrong size under the right name."""
    narrow = make_info(state=Column("uint8", (2,)))
    with EpisodeWriter(tmp_path / "a", make_info()) as a, EpisodeWriter(tmp_path / "b", narrow) as b:
        before = snapshot(tmp_path / "b")
        recording = record(a, make_episode(0))
        with pytest.raises(InputError, match="episode 0"):
            b.commit([recording])
        assert snapshot(tmp_path / "b") == before
        a.commit([recording])


def test_a_row_that_is_refused_takes_none_of_the_others_with_it(tmp_path, make_info, make_episode, matches):
    whole = make_episode(0, steps=1)
    frames, states = whole.columns["pixels"], whole.columns["state"]
    with EpisodeWriter(tmp_path, make_info()) as writer:
        recording = writer.begin(0)
        with pytest.raises(InputError, match="'state'"):
            recording.add(pixels=frames[0], state=states[0].astype(np.float32))
        with pytest.raises(InputError, match="has a column 'stat'"):
            recording.add(pixels=frames[0], stat=states[0])
        for frame, state in zip(frames, states, strict=True):
            recording.add(pixels=frame, state=state)
        recording.add(action=whole.columns["action"][0])
        writer.commit([recording])
    assert matches(EpisodeReader(tmp_path), 0, whole)
