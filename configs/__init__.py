"""Hydra's files, one per verb; data only. The groups (env, model, ...) come from the registry: ADR 0002."""

__lewm__ = True
