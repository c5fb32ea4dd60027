"""`lewm benchmark planner`: what planning costs and what it gets, beside the peer and beside its limits."""

from experiments.benchmark_planner.verb import benchmark_planner

__all__ = ["benchmark_planner"]
