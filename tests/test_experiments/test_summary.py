"""The summary is recomputed from the lines."""

import numpy as np
import pytest

from experiments.evaluate.summary import by_seed, headline, summarise
from experiments.records import EpisodeRecord
from experiments.statistics import interval, wilson


def record(policy="model", pair=0, detour=False, final=True, ever=True, seed=7, presolved=False) -> EpisodeRecord:
    first = 3 if ever else None
    return EpisodeRecord(policy, pair, detour, [0.0], [1.0], final, ever, first, [[0.0], [1.0]], seed, presolved)


def test_final_ever_and_detour_are_counted_apart():
    lines = [record(pair=k, detour=k % 2 == 0, final=k < 6, ever=k < 8) for k in range(10)]
    lines += [record("random", pair=k, final=k == 0, ever=k < 2) for k in range(10)]
    summary = summarise(lines)
    assert (summary["n"], summary["n_detour"]) == (10, 5)
    assert (summary["success_final"], summary["success_ever"]) == (0.6, 0.8)
    assert summary["detour_final"] == 0.6 and summary["detour_ever"] == 0.8
    assert (summary["random_final"], summary["random_ever"]) == (0.1, 0.2)
    assert summary["random_detour_final"] is None
    assert summary["success_final_interval"] == wilson(6, 10)
    assert summary["success_ever_interval"] == wilson(8, 10)


def test_seeds_of_one_model_are_averaged_before_the_interval():
    lines = [record(pair=k, final=(k + seed) % 2 == 0, seed=seed) for seed in (0, 1) for k in range(40)]
    summary = summarise(lines)
    assert summary["n"] == summary["success_n"] == 40  # pairs, not episodes
    assert summary["success_final"] == 0.5
    assert summary["success_final_interval"] == interval(np.full((1, 40), 0.5))
    np.testing.assert_array_equal(by_seed(lines, [line.success_final for line in lines]).mean(0), np.full(40, 0.5))


def test_presolved_pairs_count_in_a_figure_of_their_own():
    lines = [record(pair=k, final=k < 2, ever=k < 4, presolved=k >= 8) for k in range(8)]
    lines += [record(pair=k, final=False, ever=True, presolved=True) for k in (8, 9)]
    summary = summarise(lines)
    assert summary["n"] == 8 and summary["success_ever"] == 0.5 and summary["success_final"] == 0.25
    assert summary["success_with_presolved_ever"] == 0.6 and summary["success_with_presolved_n"] == 10


@pytest.mark.parametrize(("track", "said"), [("free", "60.0%"), ("paper", "80.0%")])
def test_the_headline_is_the_rule_of_the_track(track, said):
    lines = [record(pair=k, final=k < 6, ever=k < 8) for k in range(10)]
    protocol = {"track": track, "agents": {"model": {}}}
    assert headline({**summarise(lines), "measures": [], "protocol": protocol}).startswith(f"success {said}")
