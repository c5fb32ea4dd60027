"""`lewm benchmark train`: optimiser steps, SIGReg and frames per second of training, beside another toolkit."""

from typing import Any


def __getattr__(name: str) -> Any:
    """The verb, on demand: worker processes are of this package too."""
    if name == "benchmark_train":
        from experiments.benchmark_train.verb import benchmark_train

        return benchmark_train
    raise AttributeError(name)
