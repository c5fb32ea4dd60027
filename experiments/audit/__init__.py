"""`lewm audit`: which part is to blame when planning fails, the model, the cost or the search."""

from experiments.audit.verb import audit

__all__ = ["audit"]
