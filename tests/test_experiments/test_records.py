"""The summary is recomputed from the lines, with intervals that match published values."""

import pytest

from experiments import records
from experiments.records import EpisodeRecord, summarise, wilson
from lewm.types import InputError


def record(policy="model", pair=0, detour=False, final=True, ever=True) -> EpisodeRecord:
    return EpisodeRecord(policy, pair, detour, [0.0], [1.0], final, ever, 3 if ever else None, [[0.0], [1.0]], 7)


def test_wilson_interval_of_48_in_50():
    low, high = wilson(48, 50)
    assert low == pytest.approx(0.865, abs=5e-4) and high == pytest.approx(0.989, abs=5e-4)


def test_summary_counts_final_ever_and_detour_apart():
    lines = [record(pair=k, detour=k % 2 == 0, final=k < 6, ever=k < 8) for k in range(10)]
    lines += [record("random", pair=k, final=k == 0, ever=k < 2) for k in range(10)]
    summary = summarise(lines)
    assert (summary["n"], summary["n_detour"]) == (10, 5)
    assert (summary["success_final"], summary["success_ever"]) == (0.6, 0.8)
    assert summary["detour_final"] == 0.6 and summary["detour_ever"] == 0.8
    assert (summary["random_final"], summary["random_ever"]) == (0.1, 0.2)
    assert summary["random_detour_final"] is None
    assert summary["success_final_interval"] == wilson(6, 10)


def test_records_survive_a_round_trip_and_a_torn_line(tmp_path):
    path, lines = tmp_path / "episodes.jsonl", [record(pair=k) for k in range(3)]
    records.append(path, lines)
    whole = path.read_text()
    path.write_text(whole[:-20])
    assert records.read(path) == lines[:2]
    assert path.read_text() == whole[:-20]  # reading changes nothing
    records.repair(path)
    records.append(path, lines[2:])
    assert path.read_text() == whole


def test_a_foreign_line_is_an_error(tmp_path):
    (tmp_path / "e.jsonl").write_text('{"policy": "model"}\n')
    with pytest.raises(InputError, match="not an episode record"):
        records.read(tmp_path / "e.jsonl")


def test_an_episode_counted_twice_is_an_error(tmp_path):
    records.append(tmp_path / "e.jsonl", [record(pair=1), record(pair=1)])
    with pytest.raises(InputError, match="twice"):
        records.read(tmp_path / "e.jsonl")
