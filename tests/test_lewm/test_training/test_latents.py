"""Latents of a frozen encoder, encoded once: the same bits, whenever they are read."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

import lewm
from lewm.data import Column, EpisodeReader, Loader, Windows
from lewm.training import LATENT, LatentReader, freeze, settled
from lewm.types import InputError


@pytest.fixture(scope="module")
def model(tiny_run):
    return lewm.load(tiny_run)


@pytest.fixture(scope="module")
def reader(tiny_run):
    return EpisodeReader(tiny_run / "data")


def test_windows_of_latents_are_the_latents_of_windows(model, reader):
    """Of the same episodes and steps, before the episode's begin too, read together or apart."""
    episodes, shape = np.array([1, 3, 4]), {"frames": 3, "block": 5, "pad": 1}
    pictures = Windows(reader, episodes, **shape).batch(np.arange(9))
    latents = Windows(LatentReader(reader, model, episodes), episodes, **shape, columns=(LATENT,))
    expected = model.encode(torch.from_numpy(pictures.pixels)).detach().numpy()
    for chosen in (np.arange(6), np.arange(4, 9), np.arange(9)):
        batch = latents.batch(chosen)
        np.testing.assert_array_equal(batch.observations[LATENT], expected[chosen])
        np.testing.assert_array_equal(batch.actions, pictures.actions[chosen])
        np.testing.assert_array_equal(batch.starts, pictures.starts[chosen])


def test_a_frame_is_encoded_once(model, reader, monkeypatch):
    source, counts = LatentReader(reader, model, np.arange(4)), []
    encode = source._model.encode
    monkeypatch.setattr(source._model, "encode", lambda seen: counts.append(len(seen["pixels"])) or encode(seen))
    positions, rows = np.array([[0, 1], [0, 1]]), np.array([[2, 5], [2, 6]])
    for _ in range(2):
        assert source.gather(LATENT, positions, rows).shape == (2, 2, model.config.latent_dim)
    source.gather(LATENT, np.array([0, 2]), np.array([2, 7]))
    assert counts == [3, 1]
    np.testing.assert_array_equal(source.gather("state", positions, rows), reader.gather("state", positions, rows))


def test_rows_of_other_episodes_are_refused(model, reader):
    """They have no place: another episode's latents would be read, or overwritten."""
    source = LatentReader(reader, model, np.array([1, 3]))
    for position, row in ((2, 0), (1, 31), (3, -1)):
        with pytest.raises(IndexError, match="outside of the episodes"):
            source.gather(LATENT, np.array([position]), np.array([row]))
    assert source.gather(LATENT, np.array([], int), np.array([], int), np.empty((0, 32), np.uint8)).shape == (0, 8)


def test_what_reads_is_a_copy(model, reader):
    """The trained model moves on and is in training mode; the reader's is neither."""
    trained = pickle.loads(pickle.dumps(model))
    source = LatentReader(reader, trained, np.arange(2))
    freeze(trained, ["encoder", "projector"])
    assert settled(trained) and not settled(model)
    with torch.no_grad():
        trained.train().projector[0].weight.zero_()
    frame = np.array([0]), np.array([3])
    expected = model.encode(torch.from_numpy(reader.gather("pixels", *frame))).detach().numpy()
    np.testing.assert_array_equal(source.gather(LATENT, *frame), expected)


def test_workers_read_the_same(model, reader):
    source = LatentReader(reader, model, np.arange(len(reader)))
    windows = Windows(source, np.arange(len(reader)), frames=2, block=5, columns=(LATENT,))
    first, again = (
        [
            batch.observations[LATENT].copy()
            for batch in Loader(windows, batch_size=4, seed=0, workers=n).batches(0, 3)
        ]
        for n in (0, 1)
    )
    np.testing.assert_array_equal(first, again)


def test_sparse_pictures_make_a_sparse_column(model, reader):
    """A data set that keeps every fifth frame has a latent where it has a frame."""

    class Sparse:
        def __getattr__(self, name):
            return getattr(reader, name)

        @property
        def info(self):
            columns = {**reader.info.columns, "pixels": Column("uint8", (*model.image_shape,), stride=5)}
            return replace(reader.info, columns=columns)

        def gather(self, name, positions, rows, out=None):
            return reader.gather(name, positions, rows * 5 if name == "pixels" else rows, out)

    source = LatentReader(Sparse(), model, np.arange(3))
    assert source.info.columns[LATENT].stride == 5
    sparse = Windows(source, np.arange(3), frames=2, block=5, columns=(LATENT,))
    dense = Windows(LatentReader(reader, model, np.arange(3)), np.arange(3), frames=2, block=5, columns=(LATENT,))
    every, fifth = dense.batch(np.arange(len(dense))), sparse.batch(np.arange(len(sparse)))
    shared = every.starts % 5 == 0
    np.testing.assert_array_equal(fifth.starts, every.starts[shared])
    np.testing.assert_array_equal(fifth.observations[LATENT], every.observations[LATENT][shared])


def test_latents_that_do_not_fit_are_refused(model, reader, monkeypatch):
    monkeypatch.setattr("lewm.training.latents.available_memory", lambda: 100)
    with pytest.raises(InputError, match=r"the latents of 62 frames need .* train on fewer episodes"):
        LatentReader(reader, model, np.array([0, 5]))
    LatentReader(reader, model, np.array([0, 5]), most=3)
