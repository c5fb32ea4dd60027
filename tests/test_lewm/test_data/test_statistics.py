"""Mean, spread and range against numpy on all rows at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lewm.data import Column, EpisodeReader, split_episodes, statistics
from lewm.types import InputError

pytestmark = pytest.mark.usefixtures("quick_disk")

LENGTHS = (4, 9, 1, 30, 12, 7)


@pytest.fixture(scope="module")
def made(tmp_path_factory, make_info, make_episode, write_set, change):
    """(reader, episodes): values far from zero, where sums of squares lose everything."""
    info = make_info(
        2,
        flag=Column("bool", ()),
        count=Column("uint16", (3,), 3, "zstd:1"),
        reward=Column("float64", (), transition=True),
    )
    rng, episodes = np.random.default_rng(0), []
    for k, steps in enumerate(LENGTHS):
        columns = {
            "state": 1e7 + rng.standard_normal((steps + 1, 2)) * [1, 1e-3],
            "flag": rng.random(steps + 1) < 0.3,
            "count": rng.integers(0, 2**16, (steps // 3 + 1, 3), np.uint16),
            "reward": rng.standard_normal(steps) - 7,
        }
        episodes.append(change(make_episode(k, steps, info), **columns))
    return write_set(tmp_path_factory.mktemp("statistics"), episodes, info), episodes


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(["action", "state", "flag", "count", "reward", "pixels"]),
    chosen=st.lists(st.integers(0, len(LENGTHS) - 1), min_size=1, unique=True),
    chunk=st.sampled_from([1, 100, 1000, 1 << 24]),
)
def test_they_are_those_of_all_valid_rows_whatever_the_chunks(made, name, chosen, chunk):
    """A transition's row T is not one of them."""
    reader, episodes = made
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "CHUNK_BYTES", chunk)
        found = reader.statistics(name, np.array(chosen))
    rows = np.concatenate([episodes[k].columns[name] for k in chosen]).astype(np.longdouble)
    assert found.count == len(rows)
    assert np.allclose(found.mean.astype(float), rows.mean(0).astype(float), rtol=1e-14, atol=1e-12)
    assert np.allclose(found.std, rows.std(0).astype(float), rtol=1e-5, atol=1e-12)
    assert np.array_equal(found.low, rows.min(0))
    assert np.array_equal(found.high, rows.max(0))
    assert found.mean.dtype == found.std.dtype == np.float64
    assert found.mean.shape == found.low.shape == reader.info.columns[name].shape


def test_a_chunk_holds_no_more_than_it_may(made, monkeypatch):
    """Of float64 rows, not of the narrow ones on disk."""
    reader, _ = made
    for name, widest in (("flag", 8), ("pixels", 48), ("action", 16)):
        sizes, gather = [], EpisodeReader.gather

        def spy(self, *arguments, sizes=sizes, gather=gather):
            rows = gather(self, *arguments)
            sizes.append(len(rows))
            return rows

        with monkeypatch.context() as patch:
            patch.setattr(EpisodeReader, "gather", spy)
            patch.setattr(statistics, "CHUNK_BYTES", 160)
            reader.statistics(name, np.arange(len(LENGTHS)))
        assert max(sizes) * widest <= 160
        assert len(sizes) > 5


def test_they_do_not_depend_on_writers_shards_or_the_order_written(tmp_path, made, write_set):
    reader, episodes = made
    write_set(tmp_path, episodes[::-2], reader.info, writer="b", shard_bytes=1)
    again = write_set(tmp_path, episodes[-2::-2], reader.info, writer="a")
    for name in reader.info.columns:
        one, other = (r.statistics(name, np.arange(len(LENGTHS))) for r in (reader, again))
        assert all(np.array_equal(getattr(one, k), getattr(other, k)) for k in vars(one))


def test_validation_episodes_leave_no_trace(tmp_path, make_info, make_episode, write_set, change):
    """The same training episodes beside wild validation ones: the same normaliser."""
    prints = []
    for scale in (1.0, 1e6):
        episodes = [make_episode(i) for i in range(30)]
        held = split_episodes(write_set(tmp_path / f"plain{scale}", episodes), 0.3)[1]
        for k in held:
            episodes[k] = change(episodes[k], state=episodes[k].columns["state"] * scale)
        reader = write_set(tmp_path / f"scaled{scale}", episodes)
        training, again = split_episodes(reader, 0.3)
        assert np.array_equal(held, again)
        found = reader.statistics("state", training)
        prints.append([found.mean.tolist(), found.std.tolist(), found.high.tolist()])
    assert prints[0] == prints[1]


def test_a_column_that_never_changes_has_no_spread_and_a_usable_action_spec(
    tmp_path, make_episode, change, write_set
):
    reader = write_set(tmp_path, [change(make_episode(0), action=np.full((6, 2), 0.1, np.float32))])
    assert reader.statistics("action", np.array([0])).std.max() < 1e-15
    assert (reader.action_spec(np.array([0])).std > 0).all()


def test_no_episodes_is_an_error(made):
    with pytest.raises(InputError, match="at least one episode"):
        made[0].statistics("state", np.array([], int))
