"""Checkpoints: a round trip through a fresh process, and every way a folder can be wrong."""

import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import lewm
from lewm import checkpoint
from lewm.models import WorldModel, WorldModelConfig
from lewm.types import ActionSpec, InputError

ROOT = Path(__file__).parents[2]
RECOMMENDATION = {"planner": {"name": "cem", "horizon": 20, "init_std": 0.75}, "replan_every": 5}
ADALN = {"name": "adaln_transformer", "depth": 1, "heads": 2, "head_dim": 8, "hidden": 16, "action_hidden": 8}


def make_model(seed=0, predictor=None, latent_dim=8):
    """A tiny model whose every weight, normaliser and running statistic is away from its initial value."""
    config = WorldModelConfig(
        encoder={"name": "conv", "channels": (4, 8), "features": 16},
        predictor=predictor or {"name": "residual_mlp", "width": 16},
        image_size=16,
        latent_dim=latent_dim,
        projector_hidden=16,
        action_block=2,
        pixel_mean=(0.1, 0.2, 0.3),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = WorldModel(config, ActionSpec([-1, 0.1], [1, 0.7], [0.05, 0.3], [0.4, 0.123456789]))
    generator = torch.Generator().manual_seed(seed)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.1 * torch.rand(tensor.shape, generator=generator))
    model.recommendation = RECOMMENDATION
    return model.eval()


def inputs(model):
    generator = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (3, model.history, 16, 16, 3), dtype=torch.uint8, generator=generator)
    between = torch.randn(3, (model.history - 1) * 2, 2, generator=generator)
    return frames, between, torch.randn(3, 4, 6, 2, generator=generator)


def outputs(model, frames, between, future):
    with torch.no_grad():
        context = model.context(frames, between)
        return {"z": context.z_BTD, "past": context.past_BTE, "imagined": model.rollout(context, future)}


FRESH_PROCESS = """
import sys, torch, lewm
model = lewm.load(sys.argv[1])
frames, between, future = torch.load(sys.argv[2], weights_only=True)
with torch.no_grad():
    context = model.context(frames, between)
    out = {"z": context.z_BTD, "past": context.past_BTE, "imagined": model.rollout(context, future)}
torch.save(out, sys.argv[3])
assert "lewm.training" not in sys.modules
"""


@pytest.fixture
def folder(tmp_path):
    """A good checkpoint, to be damaged."""
    checkpoint.save(make_model(), tmp_path / "checkpoint", {"plugins": [], "steps": 7})
    return tmp_path / "checkpoint"


@pytest.mark.parametrize("predictor", [None, ADALN], ids=["residual_mlp", "adaln_transformer"])
def test_round_trip_through_a_fresh_process_is_bit_for_bit(tmp_path, predictor):
    model = make_model(predictor=predictor)
    lewm.save(model, tmp_path / "checkpoint")
    torch.save(inputs(model), tmp_path / "in.pt")
    paths = [str(tmp_path / name) for name in ("checkpoint", "in.pt", "out.pt")]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    subprocess.run([sys.executable, "-c", FRESH_PROCESS, *paths], cwd=ROOT, check=True, env=os.environ | threads)
    for name, expected in outputs(model, *inputs(model)).items():
        assert torch.equal(torch.load(paths[2], weights_only=True)[name], expected), name


def test_everything_around_the_weights_survives(folder):
    saved, loaded = make_model(), checkpoint.load(folder)
    assert not loaded.training
    assert loaded.recommendation == RECOMMENDATION
    assert checkpoint.provenance(folder) == {"plugins": [], "steps": 7}
    for name in ("low", "high", "mean", "std"):
        assert (getattr(loaded.action_spec, name) == getattr(saved.action_spec, name)).all(), name
    assert loaded.image_shape == saved.image_shape
    assert list(loaded.state_dict()) == list(saved.state_dict())
    for name, tensor in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_saving_what_was_loaded_changes_nothing(folder, tmp_path):
    checkpoint.save(checkpoint.load(folder), tmp_path / "again", checkpoint.provenance(folder))
    for name in ("config.json", "meta.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes(), name


def test_run_folder_or_checkpoint_folder(folder):
    assert checkpoint.find(folder) == checkpoint.find(folder.parent) == checkpoint.find(str(folder)) == folder
    weights = [checkpoint.load(path).projector[0].weight for path in (folder, folder.parent)]
    assert torch.equal(*weights)


@pytest.mark.parametrize("missing", ["nothing there", "empty folder"])
def test_no_checkpoint_is_an_error(tmp_path, missing):
    path = tmp_path / "run"
    if missing == "empty folder":
        path.mkdir()
    with pytest.raises(InputError, match=r"no checkpoint at .*run"):
        checkpoint.load(path)


@pytest.mark.parametrize("name", ["config.json", "meta.json", "model.safetensors"])
def test_missing_file_is_an_error(folder, name):
    (folder / name).unlink()
    with pytest.raises(InputError, match=name):
        checkpoint.load(folder)


def change_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


NAME = "projector.0.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(NAME), rf"missing tensors \['{NAME}'\], unknown \[\]"),
        (lambda t: t.pop("action_mean"), r"missing tensors \['action_mean'\]"),
        (lambda t: t.update(extra=torch.zeros(2)), r"missing tensors \[\], unknown \['extra'\]"),
        (
            lambda t: t.update({NAME: t[NAME][:-1].contiguous()}),
            rf"'{NAME}' has shape \(15, 16\), expected \(16, 16\)",
        ),
    ],
    ids=["missing", "missing normaliser", "extra", "wrong shape"],
)
def test_tensors_that_do_not_fit_are_an_error(folder, change, message):
    change_tensors(folder, change)
    with pytest.raises(InputError, match=message):
        checkpoint.load(folder)


@pytest.mark.parametrize("name", ["config.json", "meta.json"])
@pytest.mark.parametrize(
    "content",
    [
        lambda data: data[:-20],
        lambda data: b"",
        lambda data: b"\xff\xfe\x00\x80" + data,
        lambda data: b"[1, 2]",
    ],
    ids=["cut short", "empty", "binary", "a list"],
)
def test_damaged_json_is_an_error_that_names_the_folder(folder, name, content):
    path = folder / name
    path.write_bytes(content(path.read_bytes()))
    with pytest.raises(InputError, match=re.escape(str(folder))):
        checkpoint.load(folder)


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("key", ["action_spec", "recommendation"])
def test_description_without_a_part_is_an_error(folder, key):
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({k: v for k, v in meta.items() if k != key}))
    with pytest.raises(InputError, match=key):
        checkpoint.load(folder)


@pytest.mark.parametrize("changes", [{"format": "something-else"}, {"version": 99}, {"version": None}], ids=str)
def test_foreign_format_is_an_error(folder, changes):
    edit(folder / "config.json", **changes)
    with pytest.raises(InputError, match="this lewm reads lewm-checkpoint version 1"):
        checkpoint.load(folder)


def test_unknown_setting_of_the_architecture_is_an_error(folder):
    config = json.loads((folder / "config.json").read_text())
    edit(folder / "config.json", model=config["model"] | {"depth_of_thought": 3})
    with pytest.raises(InputError, match="depth_of_thought"):
        checkpoint.load(folder)


def test_unknown_encoder_names_the_plugins_it_needs(folder):
    config = json.loads((folder / "config.json").read_text())
    edit(folder / "config.json", model=config["model"] | {"encoder": {"name": "my_eye"}})
    with pytest.raises(InputError, match="unknown encoder 'my_eye'"):
        checkpoint.load(folder)
    edit(folder / "meta.json", provenance={"plugins": ["eye_package"]})
    with pytest.raises(InputError, match=r"my_eye.*trained with plugins \['eye_package'\].*pass plugins="):
        checkpoint.load(folder)


def test_pickle_in_place_of_weights_is_refused_and_never_run(folder, tmp_path):
    trap = tmp_path / "trap"

    class Trap:
        def __reduce__(self):
            return (open, (str(trap), "w"))

    (folder / "model.safetensors").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(InputError, match=r"model\.safetensors cannot be read"):
        checkpoint.load(folder)
    torch.save({"weight": torch.zeros(2), "trap": Trap()}, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"model\.safetensors cannot be read"):
        checkpoint.load(folder)
    assert not trap.exists()


def test_overwriting_replaces_the_whole_folder(folder):
    other = make_model(seed=9, predictor=ADALN, latent_dim=6)
    checkpoint.save(other, folder)
    loaded = checkpoint.load(folder)
    for name, tensor in other.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert checkpoint.provenance(folder) == {}
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "meta.json", "model.safetensors"]
    assert [p.name for p in folder.parent.iterdir()] == ["checkpoint"]  # nothing left beside it


def test_a_folder_that_holds_more_is_refused_untouched(folder):
    (folder / "precious").write_text("not a checkpoint's")
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    for place in (folder, folder.parent):
        with pytest.raises(InputError, match="not a checkpoint"):
            checkpoint.save(make_model(seed=9), place)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert [p.name for p in folder.parent.iterdir()] == ["checkpoint"]


def test_failed_save_leaves_the_old_checkpoint_and_nothing_else(folder):
    with pytest.raises(TypeError):
        checkpoint.save(make_model(seed=9), folder, {"not JSON": object()})
    assert torch.equal(checkpoint.load(folder).projector[0].weight, make_model().projector[0].weight)
    assert [p.name for p in folder.parent.iterdir()] == ["checkpoint"]
