"""`lewm benchmark envs`: frames per second of stepping, rendering and collecting, beside another toolkit."""

from typing import Any


def __getattr__(name: str) -> Any:
    """The verb, on demand: worker processes are of this package too."""
    if name == "benchmark_envs":
        from experiments.benchmark_envs.verb import benchmark_envs

        return benchmark_envs
    raise AttributeError(name)
