"""Sets side by side: ids kept or numbered anew, rows copied as they are stored, resumable."""

import numpy as np
import pytest

from lewm.data import Column, EpisodeReader, EpisodeWriter
from lewm.data import convert as module
from lewm.data.convert import Choices, convert
from lewm.data.store_source import StoreSource
from lewm.types import InputError


@pytest.fixture
def sets(tmp_path, make_info, make_episode, write_set):
    """Three sets: `a` and `b` of one work, `c` of another."""
    write_set(tmp_path / "a", [make_episode(n) for n in (0, 4)], writer="w0000")
    write_set(tmp_path / "b", [make_episode(n) for n in (1, 3)], writer="w0000")
    other = make_info(source={"env": "other"})
    write_set(tmp_path / "c", [make_episode(n) for n in (0, 1)], other, writer="w0007")
    return tmp_path


def merge(folders, out, tick=lambda _: None):
    convert(StoreSource(*folders), out, Choices(), creator={}, tick=tick)
    return EpisodeReader(out)


def test_parts_of_one_work_become_the_set_that_one_writer_would_have_made(sets, make_episode, write_set):
    merged = merge([sets / "a", sets / "b"], sets / "ab")
    whole = write_set(sets / "whole", [make_episode(n) for n in (0, 1, 3, 4)])
    assert merged.fingerprint == whole.fingerprint
    assert merged.info.source == whole.info.source
    assert not list(merged.verify())


def test_other_works_are_numbered_anew_and_say_where_they_come_from(sets, make_episode):
    merged = merge([sets / "a", sets / "c"], sets / "ac")
    assert merged.ids.tolist() == [0, 1, 2, 3]
    for position, (name, number) in enumerate((("a", 0), ("a", 4), ("c", 0), ("c", 1))):
        episode = merged.episode(position)
        assert np.array_equal(episode.columns["state"], make_episode(number).columns["state"])
        assert episode.facts["merged_from"] == [EpisodeReader(sets / name).fingerprint, number]
    assert [part["env"] for part in merged.info.source["merged"]] == ["stub", "other"]


def test_a_merged_set_can_be_merged_and_written_on(sets, make_episode):
    merged = merge([sets / "a", sets / "b"], sets / "ab")
    assert len(merge([sets / "ab", sets / "c"], sets / "abc")) == 6
    with EpisodeWriter(sets / "ab", merged.info) as writer:
        writer.commit([make_episode(9)])
    assert EpisodeReader(sets / "ab").ids.tolist() == [0, 1, 3, 4, 9]
    assert EpisodeReader(sets / "a").ids.tolist() == [0, 4]


def test_an_interrupted_merge_is_completed(sets, monkeypatch):
    whole = merge([sets / "a", sets / "b"], sets / "whole")
    monkeypatch.setattr(module, "GROUP_SECONDS", -1)  # commit each episode

    def stop(count):
        if count and len(list((sets / "cut").glob("*.jsonl"))) and len(EpisodeReader(sets / "cut")) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge([sets / "a", sets / "b"], sets / "cut", stop)
    ticks = []
    cut = merge([sets / "a", sets / "b"], sets / "cut", ticks.append)
    assert sum(ticks) == 4
    assert cut.fingerprint == whole.fingerprint
    assert not list(cut.verify()) and not cut.leftovers()


def test_a_merge_that_became_another_is_refused(sets, make_episode):
    """The first set grew, or other sets are named: never a result with episodes of both, or short of some."""
    merge([sets / "a", sets / "c"], sets / "out")
    with EpisodeWriter(sets / "a", EpisodeReader(sets / "a").info) as writer:
        writer.commit([make_episode(7)])
    with pytest.raises(InputError, match="holds another data set"):
        merge([sets / "a", sets / "c"], sets / "out")


def test_sets_that_do_not_fit_together_are_refused(sets, make_info, make_episode, write_set, change):
    with pytest.raises(InputError, match="episode 0 is in more than one"):
        merge([sets / "a", sets / "a"], sets / "out")
    info = make_info(grip=Column("float32", ()))
    write_set(sets / "d", [change(make_episode(7), grip=np.zeros(7, np.float32))], info)
    with pytest.raises(InputError, match="differ in columns"):
        merge([sets / "a", sets / "d"], sets / "out")
    assert not (sets / "out").exists()
    with pytest.raises(InputError, match="holds another data set"):
        merge([sets / "a", sets / "b"], sets / "c")
