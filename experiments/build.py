"""Config -> objects, through the registry; and registry -> Hydra's config groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from hydra.core.config_store import ConfigStore

import envs
import lewm.models
import lewm.objectives
import lewm.training
import planners
from lewm import registry
from lewm.models import SIZES, WorldModel, WorldModelConfig
from lewm.types import ActionSpec

assert all((envs, lewm.objectives, lewm.training))  # imported so that their parts are registered

GROUPS = {  # Hydra group -> kind in the registry
    "env": "env",
    "policy": "policy",
    "model/encoder": "encoder",
    "model/predictor": "predictor",
    "objective": "objective",
    "trainer": "trainer",
    "planner": "planner",
    "cost": "cost",
}

MODELS = sorted(SIZES)

for _kind, _table in (("planner", planners.PLANNERS), ("cost", planners.COSTS)):
    for _name, _part in _table.items():
        registry.register(_kind, _name)(_part)


def store_groups() -> None:
    """Offer every registered part as a Hydra option with all its settings, plug-ins included."""
    store = ConfigStore.instance()
    for group, kind in GROUPS.items():
        for name in registry.names(kind):
            store.store(name=name, group=group, node={"name": name, **registry.defaults(kind, name)})
    for name, size in SIZES.items():
        node = asdict(size)
        parts = [{part: node.pop(part)["name"]} for part in ("encoder", "predictor")]
        store.store(name=name, group="model", node={"defaults": [*parts, "_self_"], **node})


def build_model(config: Mapping[str, Any], action_spec: ActionSpec, seed: int) -> WorldModel:
    """A freshly initialised world model; the weights are a function of `seed`."""
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return WorldModel(WorldModelConfig(**fields), action_spec)


def build_task(spec: Mapping[str, Any], rows: int) -> envs.GoalTask:
    """`rows` environments of a task."""
    return registry.build("env", spec, rows=rows)


def build_optional(kind: str, spec: Mapping[str, Any] | None) -> Any:
    """A part, or None where the config leaves the choice to the checkpoint."""
    return None if spec is None else registry.build(kind, spec)
