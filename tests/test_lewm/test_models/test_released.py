"""Published weights: every name and shape of the real module, and its own answers (golden/, by golden/make.sh).

The slow test asks stable-worldmodel itself, at the published size, in a venv that experiments/peers/setup_lewm.sh
makes (a minute, 1.2 GB) or that LEWM_PEER_MODEL names.
"""

import json
import os
import subprocess
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lewm.models import SIZES, WorldModel
from lewm.models.released import config_of, from_tensors, load_released, read_tensors
from lewm.types import ActionSpec, InputError

ROOT, GOLDEN = Path(__file__).parents[3], Path(__file__).parent / "golden"
OLD, NEW = GOLDEN / "transformers_4/weights.pt", GOLDEN / "transformers_5/weights.safetensors"
SPEC = ActionSpec([-1, -2], [1, 2], [0.25, -0.5], [0.5, 2.0])
HEADS = {"encoder_heads": 2, "predictor_heads": 2}
TOLERANCE = 1e-5  # of float32, relative to the largest


def spec_of(dim):
    return ActionSpec([-1] * dim, [1] * dim, [0] * dim, [1] * dim)


def published(version):
    """Tensors of the published size, without memory behind them."""
    shapes = json.loads((GOLDEN / version / "shapes.json").read_text())
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


@torch.no_grad()
def check_answers(model, path):
    """Our encodings and rollouts of raw actions are theirs of z-scored blocks."""
    with np.load(path) as file:
        given = {name: torch.from_numpy(array) for name, array in file.items()}
    mean, std = torch.tensor(SPEC.mean), torch.tensor(SPEC.std)
    past, future = (
        (given[name].unflatten(-1, (-1, 2)) * std + mean).flatten(-3, -2) for name in ("past", "future")
    )
    pairs = [(model.encode(given["pixels"]), given["z"])]
    for history in (1, 2, 3):
        context = model.context(given["pixels"][:, -history:], past[:, past.shape[1] - (history - 1) * 5 :])
        pairs.append((model.rollout(context, future), given[f"h{history}"]))
    for ours, theirs in pairs:
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() < TOLERANCE * theirs.abs().max()
    rollouts = [theirs[:, :, 0] for _, theirs in pairs[1:]]
    assert min(float((a - b).abs().max()) for a, b in pairwise(rollouts)) > 0.01


@pytest.mark.parametrize("path", [OLD, NEW], ids=["transformers 4", "transformers 5"])
def test_encodings_and_rollouts_are_those_of_stable_worldmodel(path):
    check_answers(load_released(path, SPEC, **HEADS), path.with_name("answers.npz"))


@pytest.mark.parametrize(
    ("version", "dim", "parameters"), [("transformers_4", 2, 18_034_478), ("transformers_5", 5, 18_034_628)]
)
def test_the_published_weights_are_our_size_lewm(version, dim, parameters):
    """303 tensors; the Cube's actions have dimension 5, and its blocks go through the same bottleneck of ten."""
    tensors = published(version)
    assert len(tensors) == 303
    model = from_tensors(tensors, spec_of(dim))
    assert sum(p.numel() for p in model.parameters()) == parameters
    parts = {"encoder": model.config.encoder, "predictor": model.config.predictor}
    assert model.config == replace(SIZES["lewm"], **parts)
    built = WorldModel(SIZES["lewm"], spec_of(dim)).state_dict()
    assert {k: v.shape for k, v in built.items()} == {k: v.shape for k, v in model.state_dict().items()}
    assert (model.encoder.blocks[0].attention[1].heads, model.predictor.blocks[0].attention[1].heads) == (3, 16)


def test_every_tensor_is_needed_and_no_other_is_taken():
    tensors = read_tensors(OLD)
    for name in tensors:
        without = {k: v for k, v in tensors.items() if k != name}
        with pytest.raises(InputError, match=rf"lack '{name}'"):
            from_tensors(without, SPEC, 2, 2)
    for name in ("encoder.pooler.dense.weight", "encoder.embeddings.mask_token", "predictor.cond_proj.weight"):
        with pytest.raises(InputError, match=rf"'{name}' in the weights belong to no part"):
            from_tensors(tensors | {name: torch.zeros(1)}, SPEC, 2, 2)


def test_a_tensor_of_another_shape_is_an_error():
    tensors = read_tensors(OLD)
    for name, tensor in tensors.items():
        wrong = torch.zeros(2) if tensor.ndim == 0 else torch.cat([tensor, tensor[:1]])
        with pytest.raises(InputError):
            from_tensors(tensors | {name: wrong}, SPEC, 2, 2)
    name = "encoder.encoder.layer.1.attention.attention.key.weight"
    with pytest.raises(InputError, match=rf"'{name}' in the weights has shape \(17, 16\), expected \(16, 16\)"):
        from_tensors(tensors | {name: torch.zeros(17, 16)}, SPEC, 2, 2)


@pytest.mark.parametrize("prefix", ["model.", "module.", "module.model.", "_orig_mod."])
def test_a_prefix_of_all_names_is_no_part_of_them(prefix):
    tensors = read_tensors(OLD)
    renamed = {prefix + name: tensor for name, tensor in tensors.items()}
    plain, wrapped = (from_tensors(some, SPEC, 2, 2).state_dict() for some in (tensors, renamed))
    assert all(torch.equal(plain[name], wrapped[name]) for name in plain)
    with pytest.raises(InputError, match=rf"'sigreg.t' in the weights do not begin with '{prefix}'"):
        from_tensors(renamed | {"sigreg.t": torch.zeros(17)}, SPEC, 2, 2)


def test_actions_and_heads_must_fit():
    tensors = read_tensors(OLD)
    assert config_of(tensors, 5, 2, 2).action_block == 2
    with pytest.raises(InputError, match=r"blocks of 10 numbers, which actions of dimension 3 do not fill"):
        config_of(tensors, 3, 2, 2)
    with pytest.raises(InputError, match=r"width 16 has no heads of equal width 64; give encoder_heads"):
        config_of(tensors, 2)
    with pytest.raises(InputError, match=r"width 6 has 4 heads of equal width; give predictor_heads"):
        config_of(tensors, 2, 2, 4)


class Payload:
    def __reduce__(self):
        return print, ("this ran",)


def test_a_file_that_would_run_code_is_refused(tmp_path, capsys):
    torch.save({"predictor.pos_embedding": Payload()}, tmp_path / "lewm_object.ckpt")
    with pytest.raises(InputError, match=r"objects that would run code when loaded.*model.state_dict"):
        load_released(tmp_path / "lewm_object.ckpt", SPEC)
    assert capsys.readouterr().out == ""


def test_files_of_other_kinds(tmp_path):
    tensors = read_tensors(OLD)
    torch.save({"state_dict": tensors, "epoch": 3}, tmp_path / "lightning.ckpt")
    assert read_tensors(tmp_path / "lightning.ckpt").keys() == tensors.keys()
    half = {name: t.half() if t.is_floating_point() else t for name, t in load_file(NEW).items()}
    save_file(half, tmp_path / "half.safetensors")
    assert load_released(tmp_path / "half.safetensors", SPEC, **HEADS).projector[0].weight.dtype == torch.float32
    torch.save([torch.zeros(3)], tmp_path / "list.pt")
    with pytest.raises(InputError, match="no state dict of named tensors"):
        read_tensors(tmp_path / "list.pt")
    for name, content in (("cut.pt", OLD.read_bytes()[:9000]), ("cut.safetensors", NEW.read_bytes()[:9000])):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "empty.pt").touch()
    for name in ("cut.pt", "cut.safetensors", "empty.pt", "absent.pt", "absent.safetensors"):
        with pytest.raises(InputError, match=name):
            read_tensors(tmp_path / name)
    with pytest.raises(InputError, match=r"lack 'encoder.embeddings.patch_embeddings.projection.weight'"):
        from_tensors({"weight": torch.zeros(3)}, SPEC)


@pytest.mark.slow
def test_the_published_size_answers_as_stable_worldmodel_does(tmp_path):
    venv = Path(os.environ.get("LEWM_PEER_MODEL") or tmp_path / "venv")
    if not (venv / "bin/python").exists():
        subprocess.run(["bash", ROOT / "experiments/peers/setup_lewm.sh", venv], check=True, timeout=600)
    worker = [venv / "bin/python", ROOT / "experiments/peers/lewm_worker.py", tmp_path, "--full"]
    subprocess.run(worker, check=True, timeout=300)
    check_answers(load_released(tmp_path / "weights.pt", SPEC), tmp_path / "answers.npz")
