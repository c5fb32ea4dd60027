"""A resumable sweep over objectives and predictors: train, plan, diagnose; one line per cell, one page."""

from experiments.ablation.verb import ablation

__all__ = ["ablation"]
