"""The page of the Two-Room demo says what its raw lines say."""

import runpy
from pathlib import Path

RESULTS = Path(__file__).parents[2] / "docs/results"


def test_the_page_is_made_of_the_raw_lines():
    page = runpy.run_path(str(RESULTS / "two_room_demo.py"))["page"]()
    assert page == (RESULTS / "two_room_demo.md").read_text()
