"""`lewm collect`: task + policy -> data set."""

from typing import Any


def __getattr__(name: str) -> Any:
    """The verb, on demand: workers are of this package too, and start in a fraction of the time without it."""
    if name == "collect":
        from experiments.collect.verb import collect

        return collect
    raise AttributeError(name)
