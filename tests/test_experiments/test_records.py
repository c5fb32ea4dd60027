"""The lines of an evaluation: torn, foreign, twice, and of several workers."""

import pytest

from experiments import records
from experiments.records import EpisodeRecord
from lewm.types import InputError


def record(policy="model", pair=0, detour=False, final=True, ever=True) -> EpisodeRecord:
    return EpisodeRecord(policy, pair, detour, [0.0], [1.0], final, ever, 3 if ever else None, [[0.0], [1.0]], 7)


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


def test_logs_of_workers_become_one_in_order(tmp_path):
    lines = [record(policy, pair=k) for policy in ("model", "random") for k in range(3)]
    records.append(tmp_path / "episodes.jsonl", [lines[4], lines[0]])
    records.append(tmp_path / "episodes-w0000.jsonl", [lines[2], lines[0]])  # as after a kill while merging
    records.append(tmp_path / "episodes-w0001.jsonl", [lines[5], lines[1], lines[3]])
    assert records.merge(tmp_path, [("model", 7), ("random", 7)]) == lines
    assert records.read(tmp_path / "episodes.jsonl") == lines
    assert [path.name for path in tmp_path.iterdir()] == ["episodes.jsonl"]
