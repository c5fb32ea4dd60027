"""`lewm evaluate`: agents on frozen pairs, one JSON line per episode."""

from experiments.evaluate import agents, cloning, oracles, retrieval
from experiments.evaluate.verb import evaluate

AGENTS = (agents, cloning, oracles, retrieval)  # registered by being imported

__all__ = ["AGENTS", "evaluate"]
