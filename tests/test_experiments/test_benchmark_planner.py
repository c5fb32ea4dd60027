"""`lewm benchmark planner`: small runs of its parts, resumption, and a page that agrees with its raw lines."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from experiments.benchmark_planner import cells, deadline, page, two_room, verb

RESULTS = Path(__file__).parents[2] / "docs/results/planner"


@pytest.fixture
def small(monkeypatch, tiny_run):
    """The verb on the tiny run, with two cells and few decisions."""
    monkeypatch.setattr(verb, "_default_model", lambda run: tiny_run)
    monkeypatch.setattr(verb, "_trained", lambda run, name, overrides: tiny_run)
    monkeypatch.setattr(deadline, "DECISIONS", 5)
    every = cells.compute_cells(tiny_run)
    few = [cell for cell in every if cell.name in (cells.DEFAULT, "mppi 32 x 1")]
    monkeypatch.setattr(verb, "compute_cells", lambda run: few)
    monkeypatch.setattr(two_room, "CHUNK", 2)

    def run(out, *parts):
        return [
            "benchmark",
            "planner",
            f"parts=[{','.join(parts)}]",
            f"out={out}",
            "pairs=4",
            "budget=7",
            "workers=1",
        ]

    return run


@pytest.mark.slow
def test_parts_leave_raw_lines_a_page_and_a_plot(small, lewm, tmp_path):
    code, _, err = lewm(*small(tmp_path, "deadline", "success"), "threads=[1]")
    assert code == 0, err
    rows = [json.loads(line) for line in (tmp_path / "deadline.jsonl").read_text().splitlines()][1:]
    assert [row["deadline_ms"] for row in rows] == list(deadline.DEADLINES_MS)
    assert all(0 < row["p50_ms"] <= row["p95_ms"] <= row["max_ms"] for row in rows)
    found = two_room.outcomes(tmp_path / "success.jsonl")
    assert {o.cell.name for o in found} == {cells.DEFAULT, "mppi 32 x 1"}
    assert all(o.final.shape == (4,) and o.evaluations > 0 for o in found)
    text = (tmp_path / "planner.md").read_text()
    assert "mppi 32 x 1" in text and "Keeping a deadline" in text
    assert (tmp_path / "success.png").stat().st_size > 10_000


def test_a_rerun_evaluates_only_what_is_missing(small, lewm, tmp_path):
    assert lewm(*small(tmp_path, "success"))[0] == 0
    log = tmp_path / "success.jsonl"
    whole = sorted(log.read_text().splitlines())
    log.write_text("\n".join(whole[:2]) + "\n" + whole[2][:40])  # a torn line, and one gone
    assert two_room.outcomes(tmp_path / "missing.jsonl") == []
    assert lewm(*small(tmp_path, "success"))[0] == 0
    assert sorted(log.read_text().splitlines()) == whole


def test_lines_of_another_budget_are_not_mixed_in(small, lewm, tmp_path):
    assert lewm(*small(tmp_path, "success"))[0] == 0
    before = (tmp_path / "success.jsonl").read_bytes()
    code, _, err = lewm(*small(tmp_path, "success"), "budget=8")
    assert code == 2 and "holds another" in err
    assert (tmp_path / "success.jsonl").read_bytes() == before


def test_unknown_part_is_one_line(lewm, tmp_path):
    code, _, err = lewm("benchmark", "planner", "parts=[sped]", f"out={tmp_path}")
    assert (code, err) == (2, "error: parts are speed, deadline, success, equal; got 'sped'\n")
    code, _, err = lewm("benchmark", "planer")
    assert code == 2 and "did you mean 'planner'?" in err
    code, out, _ = lewm("benchmark", "planner", "--help")
    assert code == 0 and out.startswith("lewm benchmark planner:")


def test_the_published_page_is_what_its_raw_lines_say(tmp_path):
    shutil.copytree(RESULTS, tmp_path / "again")
    (tmp_path / "again/planner.md").unlink()
    page.write(tmp_path / "again")
    assert (tmp_path / "again/planner.md").read_text() == (RESULTS / "planner.md").read_text()


def test_paired_bound_is_of_the_differences(tmp_path):
    """All pairs won by one side: difference and bound are 100 points; equal outcomes: both are zero."""
    cell = cells.recipe_cell(tmp_path)
    won, lost = (
        two_room.Outcome(cell, np.full(50, v), np.ones(50, bool), np.ones(50, bool), 10.0) for v in (True, False)
    )
    assert "+100.0 points" in page._paired(won, lost) and "bound +100.0" in page._paired(won, lost)
    assert "+0.0 points" in page._paired(won, won) and "bound +0.0" in page._paired(won, won)
