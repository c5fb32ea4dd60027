"""Composition: the only package that knows lewm, envs and planners together, and the only one that knows Hydra."""

__lewm__ = True
