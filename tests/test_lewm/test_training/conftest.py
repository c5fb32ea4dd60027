"""A tiny data set of random walks in Two-Room, and a tiny world model for it."""

import pytest
import torch

import envs
from lewm.data import Column, DatasetInfo, EpisodeReader, EpisodeWriter, Windows
from lewm.models import WorldModel, WorldModelConfig


@pytest.fixture(scope="session")
def reader(tmp_path_factory):
    """24 episodes of 20 steps, 16 x 16 pixels."""
    task = envs.TwoRoom(24, image_size=16)
    columns = {
        "pixels": Column("uint8", task.image_shape, 5, "zstd:3"),
        "state": Column("float64", (task.state_dim,)),
        "action": Column("float32", (2,)),
    }
    info = DatasetInfo(columns, tuple(task.low.tolist()), tuple(task.high.tolist()), {}, {})
    folder = tmp_path_factory.mktemp("walks") / "set"
    with EpisodeWriter(folder, info) as writer:
        policy = envs.OrnsteinUhlenbeck()
        writer.commit(envs.rollout(task, policy, range(24), seed=0, steps=20, frame_stride=5))
    return EpisodeReader(folder)


@pytest.fixture(scope="session")
def windows(reader):
    return Windows(reader, range(24), frames=4, block=5, pad=1)


@pytest.fixture
def make_model(reader):
    """Always the same initial weights. The transformer has dropout and BatchNorm: state easily lost."""
    predictors = {
        "residual_mlp": {"name": "residual_mlp", "width": 16},
        "adaln_transformer": {
            "name": "adaln_transformer",
            **{"depth": 1, "heads": 2, "head_dim": 4, "hidden": 16, "action_hidden": 8, "dropout": 0.2},
        },
    }

    def make(predictor="residual_mlp"):
        config = WorldModelConfig(
            encoder={"name": "conv", "channels": (4, 8), "features": 16},
            predictor=predictors[predictor],
            image_size=16,
            latent_dim=8,
            projector_hidden=16,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            return WorldModel(config, reader.action_spec(range(24)))

    return make
