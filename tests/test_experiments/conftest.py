"""A plug-in of the test's own making; a model whose latents are known, with what it was trained on."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from envs import Straight, TwoRoom, rollout
from experiments.evaluate.agents import Trained
from lewm import registry
from lewm.data import Column, DatasetInfo, EpisodeReader, EpisodeWriter
from lewm.types import ActionSpec


@pytest.fixture
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], None]]:
    """plugin(source) makes a module `outside`; its parts are forgotten afterwards."""
    folder = tmp_path_factory.mktemp("plugin")
    parts = {kind: dict(known) for kind, known in registry._PARTS.items()}

    def make(source: str) -> None:
        (folder / "outside.py").write_text(source)

    sys.path.insert(0, str(folder))
    yield make
    sys.path.remove(str(folder))
    sys.modules.pop("outside", None)
    registry._PARTS.clear()
    registry._PARTS.update(parts)


class Place:
    """In the place of a world model: its latent is the state that it observes, and it was never trained."""

    columns, history, action_block = ("state",), 2, 5
    action_spec = ActionSpec(low=(-2, -2), high=(2, 2), mean=(0, 0), std=(1, 1))

    def encode(self, observations: dict[str, torch.Tensor]) -> torch.Tensor:
        return observations["state"].float()


@pytest.fixture(scope="session")
def walks(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Trained]:
    """walks(folder, stride=1): what `Place` says it was trained on, straight walks through two rooms."""

    def make(folder: Path, stride: int = 1) -> Trained:
        task, run = TwoRoom(40, image_size=16), tmp_path_factory.mktemp("walks")
        columns = {"state": Column("float64", (2,), stride), "action": Column("float32", (2,), transition=True)}
        info = DatasetInfo(columns, tuple(task.low.tolist()), tuple(task.high.tolist()))
        episodes = rollout(task, Straight(), range(40), seed=0, steps=32, frame_stride=None)
        thinned = [replace(e, columns={**e.columns, "state": e.columns["state"][::stride]}) for e in episodes]
        with EpisodeWriter(run / "data", info) as writer:
            writer.commit(thinned)
        for name, content in (("model.safetensors", "some weights"), ("meta.json", json.dumps({}))):
            (run / name).write_text(content)
        facts = {"data": {"fingerprint": EpisodeReader(run / "data").fingerprint, "validation": 0.25}}
        plan = {"planner": {"name": "cem"}, "cost": {"name": "goal_distance"}, "replan_every": 5}
        return Trained(Place(), run, facts, folder, run / "data", {"name": "two_room"}, **plan)

    return make
