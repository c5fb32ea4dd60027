"""A plug-in of the test's own making; quiet for a library that closes other people's files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from lewm import registry

with suppress(ImportError):  # below dm_control: it keeps the stderr of the test that imports it, pytest's, and
    from absl import logging as absl_logging  # closes it as soon as Hydra sets up logging

    absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__


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
