"""Logs of measured cells: JSON, whatever was measured."""

import json
import math

import pytest

from experiments.cells import Cell, cells, complete, number
from lewm.types import InputError


def strict(text):
    """Read as other programs do, which know no NaN."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_what_is_not_finite_is_null_and_read_as_nan(tmp_path):
    log = tmp_path / "log.jsonl"
    rows = [{"error": math.nan, "curve": [1.0, math.inf], "by": {"axis": (-math.inf, 2)}, "peer": None}]
    cell = Cell("a", {"deadline": math.inf}, lambda: rows)
    complete(log, [cell])
    _, line = [strict(text) for text in log.read_text().splitlines()]
    assert line["rows"] == [{"error": None, "curve": [1.0, None], "by": {"axis": [None, 2]}, "peer": None}]
    (found,) = cells(log)
    assert math.isnan(number(found["rows"][0]["error"])) and number(found["rows"][0]["curve"][0]) == 1.0
    before = log.read_bytes()
    complete(log, [cell])  # the same settings, so nothing is measured again
    assert log.read_bytes() == before


def test_lines_of_before_are_read_as_they_were_meant(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text('{"cell": "a", "settings": {"n": 1}, "rows": [{"error": NaN}]}\n')
    assert math.isnan(number(cells(log)[0]["rows"][0]["error"]))
    with pytest.raises(InputError, match="holds another 'a'"):
        complete(log, [Cell("a", {"n": 2}, list)])
