"""`lewm benchmark data`: what reading training windows costs, beside other stores and beside its limits."""

from typing import Any


def __getattr__(name: str) -> Any:
    """The verb, on demand: worker processes are of this package too, and start often."""
    if name == "benchmark_data":
        from experiments.benchmark_data.verb import benchmark_data

        return benchmark_data
    raise AttributeError(name)
