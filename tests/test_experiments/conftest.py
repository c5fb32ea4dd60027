"""A plug-in of the test's own making."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest

from lewm import registry


@pytest.fixture
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], None]]:
    """plugin(source) makes a module `outside`; its parts are forgotten afterwards."""
    folder = tmp_path_factory.mktemp("plugin")
    parts = {kind: dict(known) for kind, known in registry._PARTS.items()}

    def make(source: str) -> None:
        (folder / "outside.py").write_text(source)

    sys.path.insert(0, str(folder))
    yield make
    sys.path.remove(str(folder))
    sys.modules.pop("outside", None)
    registry._PARTS.clear()
    registry._PARTS.update(parts)
