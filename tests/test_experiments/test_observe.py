"""What a model observes of tasks and of records, and evaluation from several columns."""

import json

import numpy as np
import pytest
import torch

from envs import TwoRoom, UniformHold, rollout
from experiments.build import build_model
from experiments.evaluate import evaluate
from experiments.fit import check_fits
from experiments.observe import columns_of, encode, observe, recorded, sensors
from experiments.train import train
from lewm import checkpoint
from lewm.data import Column, DatasetInfo, EpisodeReader, EpisodeWriter, split_episodes
from lewm.types import Episode, InputError

COLUMNS = ("pixels", "state")
MODEL = {
    "encoder": {"name": "fusion", "parts": {"pixels": {"name": "conv", "features": 8}, "state": "vector"}},
    "image_size": 32,
    "latent_dim": 8,
    "projector_hidden": 16,
}


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """Two-Room episodes with a column `wrist` of small pictures and one, `still`, that never changes."""
    episodes = rollout(TwoRoom(rows=3, image_size=32), UniformHold(), [0, 1, 2], seed=0, steps=10)
    columns = {
        "pixels": Column("uint8", (32, 32, 3), codec="raw"),
        "state": Column("float64", (2,)),
        "wrist": Column("uint8", (16, 16, 3), stride=5, codec="raw"),
        "still": Column("float32", (2,)),
        "action": Column("float32", (2,), transition=True),
    }
    folder = tmp_path_factory.mktemp("observe") / "data"
    with EpisodeWriter(folder, DatasetInfo(columns, [-1, -1], [1, 1], {})) as writer:
        for episode in episodes:
            wrist = episode.columns["pixels"][::5, ::2, ::2]
            more = {"wrist": wrist, "still": np.full((11, 2), 7.1, np.float32)}
            kept = {k: v for k, v in episode.columns.items() if k in columns}
            writer.commit([Episode(episode.id, {**kept, **more})])
    return EpisodeReader(folder)


def test_columns_are_those_of_the_parts():
    assert columns_of(MODEL["encoder"]) == COLUMNS
    assert columns_of({"name": "conv"}) == ("pixels",)


def test_a_task_is_seen_as_it_was_recorded(reader):
    """Recorded states, drawn and sensed again."""
    chosen, steps = np.array([0, 2, 1]), np.array([0, 5, 10])
    rows = recorded(reader, ("pixels", "state", "wrist"), chosen, steps)
    again = observe(TwoRoom(rows=1, image_size=32), rows["state"], COLUMNS)
    assert list(again) == list(COLUMNS)
    np.testing.assert_array_equal(again["pixels"], rows["pixels"])
    np.testing.assert_array_equal(again["state"], rows["state"])
    np.testing.assert_array_equal(rows["wrist"], rows["pixels"][:, ::2, ::2])
    np.testing.assert_array_equal(
        observe(TwoRoom(rows=1, image_size=32), rows["state"], ["pixels"]), rows["pixels"]
    )


def test_statistics_are_those_of_the_episodes_asked_for(reader):
    found = sensors(reader, np.array([0, 2]), ("pixels", "state", "wrist", "still"))
    assert set(found) == {"state", "wrist", "still"}
    states = np.concatenate([reader.column("state", position) for position in (0, 2)])
    np.testing.assert_allclose(found["state"].mean, states.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found["state"].std, states.std(0), rtol=1e-12)
    assert found["still"].std == (1.0, 1.0)  # nothing to scale
    pictures = np.concatenate([reader.column("wrist", position) for position in (0, 2)]) / 255
    np.testing.assert_allclose(found["wrist"].mean, pictures.mean((0, 1, 2)), atol=0.01)


@pytest.mark.parametrize("name", ["force", "action"])
def test_a_column_that_cannot_be_observed_is_refused(reader, name):
    with pytest.raises(InputError, match=f"'state', 'still', 'wrist'.*, the model is to observe '{name}'"):
        sensors(reader, np.arange(3), ("pixels", name))


@pytest.fixture(scope="module")
def model(reader):
    found = sensors(reader, np.arange(3), COLUMNS)
    return build_model({**MODEL, "sensors": found}, reader.action_spec(np.arange(3)), 0).eval()


def test_evaluation_from_pixels_and_states(model, compose, tmp_path):
    """Which runs two pairs alone and in their batch, and refuses to report if they differ."""
    env = {"name": "two_room", "image_size": 32}
    checkpoint.save(model, tmp_path / "checkpoint", {"data": {"source": {"env": env}}})
    planner = ["planner=cem", "planner.horizon=10", "planner.samples=8", "planner.elites=4", "planner.iterations=2"]
    evaluate(compose("evaluate", f"run={tmp_path}", *planner, "agents=[model]", "pairs=3", "rows=3", "budget=6"))
    lines = [json.loads(line) for line in (tmp_path / "episodes.jsonl").read_text().splitlines()]
    assert len(lines) == 3
    assert all(len(line["states"]) == 7 for line in lines)


def test_the_state_is_seen_by_the_model(model):
    task = TwoRoom(rows=1, image_size=32)
    states = np.array([[0.2, 0.2], [0.2, 0.2 + 1e-4]])  # the same pixel, or nearly
    latents = encode(model, task, states)
    assert (latents[0] - latents[1]).abs().max() > 0


def test_a_task_without_the_sensor_does_not_fit(model):
    check_fits(model, TwoRoom(rows=1, image_size=32))
    task = TwoRoom(rows=1, image_size=32)
    task.state_dim = 3
    with pytest.raises(
        InputError, match=r"observes 'state' of shape \(2,\), the task has the vectors {'state': 3}"
    ):
        check_fits(model, task)


def test_training_from_pixels_and_states(compose, tiny_run, tmp_path):
    parts = "{pixels: {name: conv, channels: [4, 8], features: 8}, state: {name: vector, hidden: 8}}"
    choice = ["model/encoder=fusion", f"model.encoder.parts={parts}", f"data={tiny_run}/data", f"out={tmp_path}"]
    train(compose("train", *choice, without="model.encoder"))
    model = checkpoint.load(tmp_path)
    assert model.columns == COLUMNS
    reader = EpisodeReader(tiny_run / "data")
    training, _ = split_episodes(reader)
    statistics = reader.statistics("state", training)
    np.testing.assert_allclose(model.config.sensors["state"].mean, statistics.mean)
    np.testing.assert_allclose(model.config.sensors["state"].std, statistics.std)
    fresh = build_model(vars(model.config), model.action_spec, 0)
    moved = {key for key, value in fresh.state_dict().items() if not torch.equal(value, model.state_dict()[key])}
    assert moved >= {f"encoder.{key}" for key, _ in model.encoder.named_parameters()}
