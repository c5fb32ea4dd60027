"""Every regulariser as an auxiliary term under its own name: two at once, or one beside `regulariser=none`."""

from __future__ import annotations

from functools import partial
from typing import Any

import lewm.objectives.regularisers  # noqa: F401, registers them
from lewm.registry import get, names, register


def _labelled(name: str) -> Any:
    """The same constructor, but its terms are called `name` in the logs."""
    constructor = get("regulariser", name)
    base = getattr(constructor, "func", constructor)  # what a partial is of
    labelled = type(base.__name__, (base,), {"label": name, "__doc__": base.__doc__, "__module__": __name__})
    return partial(labelled, **constructor.keywords) if isinstance(constructor, partial) else labelled


for _name in names("regulariser"):
    if _name != "none":
        register("auxiliary", _name)(_labelled(_name))
