"""How a model scales pixels: by the mean and spread of what it is trained on, or as it is told."""

import tracemalloc

import numpy as np
import pytest
import torch

import lewm
from experiments import train as module
from experiments.train import _pixel_statistics, train
from lewm.data import Column, DatasetInfo, EpisodeReader, EpisodeWriter, split_episodes
from lewm.types import Episode, InputError


@pytest.fixture
def write(tmp_path):
    """write(frames of each episode (n, h, w, 3), ..., stride) makes a set of pixels and actions."""

    def make(*episodes, stride=1):
        pixels = Column("uint8", episodes[0].shape[1:], stride, "zstd:1")
        columns = {"pixels": pixels, "action": Column("float32", (1,), transition=True)}
        with EpisodeWriter(tmp_path / "set", DatasetInfo(columns, (-1.0,), (1.0,), {})) as writer:
            for id, frames in enumerate(episodes):
                actions = np.zeros(((len(frames) - 1) * stride, 1), np.float32)
                writer.commit([Episode(id, {"pixels": frames, "action": actions}, {})])
        return EpisodeReader(tmp_path / "set")

    return make


def frames(count, *colours):
    """Frames (count, 1, len(colours), 3) of one pixel of each colour."""
    return np.tile(np.array(colours, np.uint8), (count, 1, 1, 1))


def test_mean_and_spread_of_each_channel(write):
    """Of one pixel in four: values a and b in shares 3/4 and 1/4 have std |a - b| * sqrt(3) / 4."""
    dark, light = (0, 51, 102), (255, 153, 122)
    found = _pixel_statistics(write(frames(7, dark, light, dark, dark)), np.arange(1))
    assert found["pixel_mean"] == pytest.approx((0.25, 0.3, (0.4 * 3 + 122 / 255) / 4), abs=1e-4)
    assert found["pixel_std"] == pytest.approx((0.4330, 0.4 * 0.4330, 20 / 255 * 0.4330), abs=1e-4)


def test_a_channel_that_never_changes_is_not_blown_up(write):
    found = _pixel_statistics(write(frames(3, (10, 20, 255))), np.arange(1))
    assert found == {"pixel_mean": (0.0392, 0.0784, 1.0), "pixel_std": (0.02, 0.02, 0.02)}


def test_frames_of_other_episodes_do_not_count(write):
    reader = write(*(frames(4, (level, level, level)) for level in (51, 255, 51, 0)))
    assert _pixel_statistics(reader, np.array([0, 2]))["pixel_mean"] == (0.2, 0.2, 0.2)


def test_every_frame_of_an_episode_counts(write):
    """Three frames of values 0, 51 and 255, kept every fifth step: each is taken about a third of the time."""
    episode = np.concatenate([frames(1, (level,) * 3) for level in (0, 51, 255)])
    found = _pixel_statistics(write(episode, stride=5), np.arange(1))
    assert found["pixel_mean"] == pytest.approx([0.4] * 3, abs=0.08)
    assert found["pixel_std"] == pytest.approx([np.std([0, 0.2, 1])] * 3, abs=0.05)


def test_a_trained_model_has_those_of_its_training_episodes(tiny_run):
    reader, model = EpisodeReader(tiny_run / "data"), lewm.load(tiny_run)
    training, _ = split_episodes(reader, 0.1)
    pixels = np.concatenate([reader.column("pixels", int(k)) for k in training]).reshape(-1, 3) / 255
    assert model.pixel_mean.ravel().tolist() == pytest.approx(pixels.mean(0).tolist(), abs=0.01)
    assert model.pixel_std.ravel().tolist() == pytest.approx(pixels.std(0).tolist(), abs=0.01)


def test_only_training_episodes_are_looked_at(compose, tiny_run, tmp_path, monkeypatch):
    class Enough(Exception):
        pass

    def looked_at(reader, episodes):
        assert np.array_equal(episodes, split_episodes(reader, 0.1)[0])
        raise Enough

    monkeypatch.setattr(module, "_pixel_statistics", looked_at)
    with pytest.raises(Enough):
        train(compose("train", f"data={tiny_run}/data", f"out={tmp_path}/run"))


def test_pixels_are_scaled_before_they_are_encoded(tiny_run):
    """An encoder that hands on what it gets gets (pixel / 255 - mean) / std of each channel."""
    model, seen = lewm.load(tiny_run), []
    model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    image = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.encode(image)
    mean, std = (np.array(values) for values in (model.config.pixel_mean, model.config.pixel_std))
    expected = (image[0].numpy() / 255 - mean) / std
    assert np.allclose(seen[0][0].permute(1, 2, 0).numpy(), expected, atol=1e-4)


def test_what_is_given_stays(compose, tiny_run, tmp_path):
    given = ["model.pixel_mean=[0.1,0.2,0.3]", "model.pixel_std=[0.4,0.5,0.6]", "trainer.steps=2"]
    train(compose("train", f"data={tiny_run}/data", f"out={tmp_path}/run", *given, without="trainer.steps"))
    model = lewm.load(tmp_path / "run")
    assert torch.equal(model.pixel_mean.ravel(), torch.tensor([0.1, 0.2, 0.3]))
    assert torch.equal(model.pixel_std.ravel(), torch.tensor([0.4, 0.5, 0.6]))


@pytest.mark.parametrize("one", ["pixel_mean", "pixel_std"])
def test_one_of_the_two_alone_is_an_error(compose, tiny_run, tmp_path, one):
    with pytest.raises(InputError, match=r"pixel_mean and model\.pixel_std"):
        train(compose("train", f"data={tiny_run}/data", f"out={tmp_path}/run", f"model.{one}=[0.1,0.2,0.3]"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("mean", "std"),
    [("[0.1,0.2]", "[0.1,0.2,0.3]"), ("[0.1,0.2,0.3]", "[0.1]"), ("[0.1,0.2,0.3]", "[0.1,0.0,0.3]")],
)
def test_they_are_three_numbers_each_and_the_spread_is_positive(compose, tiny_run, tmp_path, mean, std):
    given = [f"model.pixel_mean={mean}", f"model.pixel_std={std}"]
    with pytest.raises(InputError, match="three numbers each"):
        train(compose("train", f"data={tiny_run}/data", f"out={tmp_path}/run", *given))
    assert not (tmp_path / "run").exists()


def test_statistics_are_exact_and_take_little_memory(write):
    """Of noise: as numpy's own over all pixels; 256 frames of 96 x 96 are 7 MB, and 57 MB as float64."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (96, 96, 3), np.uint8) // np.array([1, 2, 5], np.uint8)
    reader = write(np.stack([noise, noise]))
    pixels = reader.column("pixels", 0).reshape(-1, 3) / 255
    tracemalloc.start()
    found = _pixel_statistics(reader, np.arange(1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found["pixel_mean"] == tuple(pixels.mean(0).round(4)) and peak < 30e6
    assert found["pixel_std"] == tuple(pixels.std(0).round(4))
