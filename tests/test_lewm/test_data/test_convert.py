"""Bringing a source over: resumable, with the user's choices; and copying what is intact of a damaged set."""

from dataclasses import replace

import numpy as np
import pytest

from lewm.data import Column, EpisodeReader
from lewm.data import convert as module
from lewm.data.convert import Choices, convert
from lewm.data.formats import Source
from lewm.data.store_source import StoreSource
from lewm.types import InputError


class Stub(Source):
    """Episodes made on the spot; counts which are asked for."""

    def __init__(self, info, make_episode, count=9, bounds=None):
        self.columns, self.about, self.asked = info.columns, {"format": "stub"}, []
        self._make, self._count, self._bounds = make_episode, count, bounds

    def __len__(self):
        return self._count

    def episodes(self, first=0):
        for number in range(first, self._count):
            self.asked.append(number)
            yield self._make(number, steps=3 + number)

    def action_bounds(self):
        return self._bounds


@pytest.fixture
def stub(make_info, make_episode):
    return lambda **options: Stub(make_info(), make_episode, **options)


def test_every_episode_comes_over_as_it_was(stub, tmp_path, make_episode, matches):
    convert(stub(), tmp_path / "out", Choices(), creator={})
    reader = EpisodeReader(tmp_path / "out")
    assert len(reader) == 9
    assert all(matches(reader, k, make_episode(k, steps=3 + k)) for k in range(9))
    assert reader.info.source == {"format": "stub", "action_bounds": "seen in the data"}


def test_bounds_are_those_stated_or_seen_or_given(stub, tmp_path):
    low, high = np.array([-1.0, -2.0]), np.array([30.0, 40.0])
    for name, source, choices, expected, said in (
        ("seen", stub(), Choices(), ((1.0, 1.0), (9.0, 11.0)), "seen in the data"),
        ("stated", stub(bounds=(low, high)), Choices(), ((-1.0, -2.0), (30.0, 40.0)), None),
        ("given", stub(bounds=(low, high)), Choices(bounds=(low * 2, high)), ((-2.0, -4.0), (30.0, 40.0)), "given"),
    ):
        convert(source, tmp_path / name, choices, creator={})
        info = EpisodeReader(tmp_path / name).info
        assert (info.action_low, info.action_high) == expected
        assert info.source.get("action_bounds") == said


@pytest.mark.parametrize("after", [1, 4, 8])
def test_an_interrupted_import_continues_behind_what_is_there(stub, tmp_path, monkeypatch, after):
    monkeypatch.setattr(module, "GROUP_SECONDS", -1)  # commit each episode
    whole = stub()
    convert(whole, tmp_path / "whole", Choices(), creator={})

    class Cut(Exception):
        pass

    done = 0

    def stop(count):
        nonlocal done
        done += count
        if done >= after:
            raise Cut

    with pytest.raises(Cut):
        convert(stub(), tmp_path / "cut", Choices(), creator={}, tick=stop)
    assert len(EpisodeReader(tmp_path / "cut")) == after
    again, ticks = stub(bounds=None), []
    again.actions = lambda: (episode.columns["action"] for episode in stub().episodes())  # bounds, without `asked`
    convert(again, tmp_path / "cut", Choices(), creator={}, tick=ticks.append)
    assert again.asked == list(range(after, 9))
    assert sum(ticks) == 9
    assert EpisodeReader(tmp_path / "cut").fingerprint == EpisodeReader(tmp_path / "whole").fingerprint


def test_columns_are_renamed_dropped_and_encoded_anew(stub, tmp_path, make_episode):
    choices = Choices(rename={"pixels": "top", "state": "pose"}, drop=(), codecs={"top": "raw"})
    convert(stub(), tmp_path / "a", choices, creator={})
    reader = EpisodeReader(tmp_path / "a")
    assert set(reader.info.columns) == {"top", "pose", "action"}
    assert reader.info.columns["top"].codec == "raw"
    assert np.array_equal(reader.column("top", 2), make_episode(2, steps=5).columns["pixels"])
    convert(stub(), tmp_path / "b", Choices(drop=("pixels",)), creator={})
    assert set(EpisodeReader(tmp_path / "b").info.columns) == {"state", "action"}


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        (Choices(rename={"stat": "pose"}), "no column 'stat': did you mean 'state'"),
        (Choices(drop=("pixel",)), "did you mean 'pixels'"),
        (Choices(drop=("action",)), "needs a column 'action'"),
        (Choices(rename={"state": "pixels"}), "two columns would be called 'pixels'"),
        (Choices(codecs={"pixel": "raw"}), "did you mean 'pixels'"),
        (Choices(codecs={"pixels": "png"}), "codec must be"),
        (Choices(rename={"state": "a/b"}), "a column's name may hold"),
        (Choices(bounds=(np.zeros(3), np.ones(3))), "A bounds each way"),
    ],
)
def test_choices_that_do_not_fit_are_refused_before_anything_is_written(stub, tmp_path, choices, words):
    with pytest.raises(InputError, match=words):
        convert(stub(), tmp_path / "out", choices, creator={})
    assert not (tmp_path / "out").exists()


def test_a_copy_of_our_own_set_keeps_ids_facts_and_fingerprint(tmp_path, write_set, make_episode, equal):
    episodes = [make_episode(number, facts={"seed": number}) for number in (5, 2, 11)]
    reader = write_set(tmp_path / "a", episodes)
    convert(StoreSource(tmp_path / "a"), tmp_path / "b", Choices(codecs={"pixels": "zstd:19"}), creator={})
    copy = EpisodeReader(tmp_path / "b")
    assert copy.fingerprint == reader.fingerprint
    assert all(equal(copy.episode(k), reader.episode(k)) for k in range(3))


def test_what_is_intact_of_a_damaged_set_is_copied(tmp_path, write_set, make_episode, equal):
    episodes = [make_episode(number) for number in range(4)]
    reader = write_set(tmp_path / "a", episodes)
    place = reader.table.places["state"][2]
    path = tmp_path / "a/shards/w0000-0/state.bin"
    data = bytearray(path.read_bytes())
    data[int(place["begin"]) + 3] ^= 4
    path.write_bytes(data)
    with pytest.raises(InputError, match="episode 2"):
        convert(StoreSource(tmp_path / "a"), tmp_path / "strict", Choices(), creator={})
    source = StoreSource(tmp_path / "a", skip_damaged=True)
    convert(source, tmp_path / "b", Choices(), creator={})
    copy = EpisodeReader(tmp_path / "b")
    assert copy.ids.tolist() == [0, 1, 3]
    assert all(equal(copy.episode(k), replace(episodes[n])) for k, n in enumerate((0, 1, 3)))
    (text,) = source.damaged
    assert "state.bin" in text and "episode 2" in text


def test_frames_of_a_camera_are_not_compressed_twice(tmp_path, make_info, write_set, make_episode, equal, change):
    info = make_info(pixels=Column("uint8", (16, 16, 3), codec="jpeg:60"))
    frames = np.random.default_rng(0).integers(0, 255, (7, 16, 16, 3), np.uint8)
    reader = write_set(tmp_path / "a", [change(make_episode(0), pixels=frames)], info)
    convert(StoreSource(tmp_path / "a"), tmp_path / "b", Choices(), creator={})
    copy = EpisodeReader(tmp_path / "b")
    assert copy.fingerprint == reader.fingerprint and equal(copy.episode(0), reader.episode(0))
    convert(StoreSource(tmp_path / "a"), tmp_path / "c", Choices(codecs={"pixels": "zstd:3"}), creator={})
    assert np.array_equal(EpisodeReader(tmp_path / "c").column("pixels", 0), reader.column("pixels", 0))
