"""Config -> objects, through the registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

import planners
from envs import GoalTask
from lewm import registry
from lewm.models import WorldModel, WorldModelConfig
from lewm.models.encoders import TimmEncoder
from lewm.types import ActionSpec

for _kind, _table in planners.KINDS.items():  # planners know no registry
    for _name, _part in _table.items():
        registry.register(_kind, _name)(_part)


def build_model(config: Mapping[str, Any], action_spec: ActionSpec, seed: int) -> WorldModel:
    """A freshly initialised world model; its weights a function of `seed` or published."""
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = WorldModel(WorldModelConfig(**fields), action_spec)
        for module in model.modules():
            if isinstance(module, TimmEncoder):
                module.download()
        return model


def build_task(spec: Mapping[str, Any], rows: int) -> GoalTask:
    """`rows` environments of a task."""
    return registry.build("env", spec, rows=rows)
