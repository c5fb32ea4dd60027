"""Weights of LeWorldModel as its authors and stable-worldmodel save them -> our world model, strictly.

Their model is a Hugging Face `ViTModel` with two projectors, a predictor and an action encoder; ours has the same
layers under other names, with the queries, keys and values of the ViT in one matrix. Every size is read off the
shapes; only the number of attention heads leaves no trace in them. A tensor that is missing, left over or of
another shape is an error: loading such a file loosely leaves a random encoder (lucas-maes/le-wm, issue 95).
"""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lewm.models.world_model import SIZES, WorldModel, WorldModelConfig
from lewm.types import ActionSpec, InputError

ANCHOR = "predictor.pos_embedding"  # in every such file; what stands before it is a prefix of all names
CONV = "action_encoder.patch_embed.weight"  # a pointwise convolution there, a linear map here
HEAD_DIM = 64  # of all published sizes

LAYERS = "predictor.transformer.layers.{}."
MODULES = {  # ours -> theirs; {} is the layer
    "encoder.cls": "encoder.embeddings.cls_token",
    "encoder.position": "encoder.embeddings.position_embeddings",
    "encoder.patches": "encoder.embeddings.patch_embeddings.projection",
    "encoder.norm": "encoder.layernorm",
    "predictor.position": ANCHOR,
    "predictor.action_encoder.0": "action_encoder.patch_embed",
    "predictor.action_encoder.1": "action_encoder.embed.0",
    "predictor.action_encoder.3": "action_encoder.embed.2",
    "predictor.blocks.{}.attention.0": LAYERS + "attn.norm",
    "predictor.blocks.{}.attention.1.qkv": LAYERS + "attn.to_qkv",
    "predictor.blocks.{}.attention.1.out": LAYERS + "attn.to_out.0",
    "predictor.blocks.{}.mlp.0": LAYERS + "mlp.net.0",
    "predictor.blocks.{}.mlp.1.0": LAYERS + "mlp.net.1",
    "predictor.blocks.{}.mlp.1.3": LAYERS + "mlp.net.4",
    "predictor.blocks.{}.modulation": LAYERS + "adaLN_modulation.1",
    "predictor.norm": "predictor.transformer.norm",
    **{f"projector.{layer}": f"projector.net.{layer}" for layer in (0, 1, 3)},
    **{f"predictor.projector.{layer}": f"pred_proj.net.{layer}" for layer in (0, 1, 3)},
}
NEW, OLD = "encoder.layers.{}.", "encoder.encoder.layer.{}."
VIT = {  # the blocks of the ViT: ours -> theirs, by what transformers calls its list of layers
    OLD: {  # transformers 4 and early 5
        "attention.0": ["layernorm_before"],
        "attention.1.qkv": [f"attention.attention.{part}" for part in ("query", "key", "value")],
        "attention.1.out": ["attention.output.dense"],
        "mlp.0": ["layernorm_after"],
        "mlp.1.0": ["intermediate.dense"],
        "mlp.1.3": ["output.dense"],
    },
    NEW: {
        "attention.0": ["layernorm_before"],
        "attention.1.qkv": [f"attention.{part}_proj" for part in "qkv"],
        "attention.1.out": ["attention.o_proj"],
        "mlp.0": ["layernorm_after"],
        "mlp.1.0": ["mlp.fc1"],
        "mlp.1.3": ["mlp.fc2"],
    },
}


def load_released(
    path: Path | str,
    action_spec: ActionSpec,
    *,
    encoder_heads: int | None = None,
    predictor_heads: int | None = None,
) -> WorldModel:
    """A world model in evaluation mode with the weights of `weights.pt` or `*.safetensors`.

    Args:
        action_spec: bounds, mean and standard deviation of the actions it was trained on, which the file lacks.
        encoder_heads, predictor_heads: attention heads, if they are not 64 wide as in the published sizes.

    Raises:
        InputError: not such a file, a tensor missing, unknown or of another shape, actions of another size.
    """
    return from_tensors(read_tensors(path), action_spec, encoder_heads, predictor_heads)


def read_tensors(path: Path | str) -> dict[str, Tensor]:
    """Named tensors of a file; one that would have to run code to be read is refused."""
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{path} holds objects that would run code when loaded, or is damaged; expected tensors only: "
            "where it was made, torch.save(model.state_dict(), 'weights.pt')"
        ) from None
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise InputError(f"{path} cannot be read as weights: {error or type(error).__name__}") from None
    found = found.get("state_dict", found) if isinstance(found, dict) else found  # Lightning wraps it
    if not isinstance(found, dict) or not all(isinstance(k, str) and torch.is_tensor(v) for k, v in found.items()):
        raise InputError(f"{path} holds no state dict of named tensors; save model.state_dict()")
    return found


def from_tensors(
    tensors: Mapping[str, Tensor],
    action_spec: ActionSpec,
    encoder_heads: int | None = None,
    predictor_heads: int | None = None,
) -> WorldModel:
    """See `load_released`."""
    tensors = _without_prefix(tensors)
    model = WorldModel(config_of(tensors, action_spec.dim, encoder_heads, predictor_heads), action_spec)
    own, layers = model.state_dict(), _layers(tensors)
    used: set[str] = set()
    for key in own:
        if not key.startswith(("encoder.", "projector.", "predictor.")):
            continue  # normalisers, which theirs has outside of the model
        sources = _sources(key, layers)
        used.update(sources)
        rows, *rest = own[key].shape or (1,)
        shape = (rows // len(sources), *rest) if own[key].ndim else ()
        parts = [_expect(tensors, name, (*shape, 1) if name == CONV else shape) for name in sources]
        own[key] = (torch.cat(parts) if len(parts) > 1 else parts[0]).reshape(own[key].shape).to(own[key].dtype)
    if unknown := sorted(tensors.keys() - used):
        raise InputError(f"{_some(unknown)} in the weights belong to no part of LeWM; expected its tensors only")
    model.load_state_dict(own)
    return model.eval()


def config_of(
    tensors: Mapping[str, Tensor],
    action_dim: int,
    encoder_heads: int | None = None,
    predictor_heads: int | None = None,
) -> WorldModelConfig:
    """The architecture that tensors of these shapes belong to; pixels are normalised as in the size `lewm`."""
    layers, size = _layers(tensors), partial(_shape, tensors)
    dim, _, patch, _ = size("encoder.embeddings.patch_embeddings.projection.weight", 4)
    _, tokens, _ = size("encoder.embeddings.position_embeddings", 3)
    _, history, latent_dim = size(ANCHOR, 3)
    smoothed, block_dim, _ = size(CONV, 3)
    inner = size(LAYERS.format(0) + "attn.to_qkv.weight", 2)[0] // 3
    side = math.isqrt(tokens - 1)
    if side**2 != tokens - 1:
        raise InputError(f"{tokens} position embeddings are not a class token and a square of patches")
    if block_dim % action_dim:
        raise InputError(
            f"the weights take action blocks of {block_dim} numbers, which actions of dimension {action_dim} do "
            "not fill evenly; give the bounds and statistics of the actions they were trained on"
        )
    encoder = {
        "name": "vit",
        "patch": patch,
        "dim": dim,
        "depth": _depth(tensors, layers),
        "heads": _heads("encoder_heads", encoder_heads, dim),
        "hidden": size(layers.format(0) + VIT[layers]["mlp.1.0"][0] + ".weight", 2)[0],
    }
    heads = _heads("predictor_heads", predictor_heads, inner)
    predictor = {
        "name": "adaln_transformer",
        "history": history,
        "depth": _depth(tensors, LAYERS),
        "heads": heads,
        "head_dim": inner // heads,
        "hidden": size(LAYERS.format(0) + "mlp.net.1.weight", 2)[0],
        "action_smoothed": smoothed,
        "action_hidden": size("action_encoder.embed.0.weight", 2)[0],
    }
    return replace(
        SIZES["lewm"],
        encoder=encoder,
        predictor=predictor,
        image_size=side * patch,
        latent_dim=latent_dim,
        projector_hidden=size("projector.net.0.weight", 2)[0],
        action_block=block_dim // action_dim,
    )


def _without_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Less what a wrapper put before every name: `model.`, `module.`, `_orig_mod.`."""
    prefix = next((name[: -len(ANCHOR)] for name in tensors if re.search(rf"(^|\.){re.escape(ANCHOR)}$", name)), "")
    if unknown := sorted(name for name in tensors if not name.startswith(prefix)):
        raise InputError(f"{_some(unknown)} in the weights do not begin with '{prefix}' as the others do")
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def _layers(tensors: Mapping[str, Tensor]) -> str:
    """What this file's transformers called the layers of its ViT."""
    return NEW if any(name.startswith(NEW.partition("{")[0]) for name in tensors) else OLD


def _sources(key: str, layers: str) -> list[str]:
    """Names of their tensors that make one of ours, one below the other."""
    if key in MODULES:  # a parameter of its own
        return [MODULES[key]]
    module, _, leaf = key.rpartition(".")
    part, number, inside = re.fullmatch(r"(?:(\w+)\.blocks\.(\d+)\.)?(.*)", module).groups()
    if part == "encoder":
        found = [layers + name for name in VIT[layers][inside]]
    else:
        found = [MODULES[module if part is None else f"{part}.blocks.{{}}.{inside}"]]
    return [f"{name.format(number)}.{leaf}" for name in found]


def _shape(tensors: Mapping[str, Tensor], name: str, rank: int) -> tuple[int, ...]:
    shape = tuple(_expect(tensors, name).shape)
    if len(shape) != rank or 0 in shape:
        raise InputError(f"'{name}' in the weights has shape {shape}, expected {rank} axes, none of them empty")
    return shape


def _expect(tensors: Mapping[str, Tensor], name: str, shape: tuple[int, ...] | None = None) -> Tensor:
    if name not in tensors:
        raise InputError(f"the weights lack '{name}'; expected all tensors of a LeWM")
    if shape is not None and tuple(tensors[name].shape) != shape:
        raise InputError(f"'{name}' in the weights has shape {tuple(tensors[name].shape)}, expected {shape}")
    return tensors[name]


def _depth(tensors: Mapping[str, Tensor], layers: str) -> int:
    pattern = re.compile(re.escape(layers).replace(r"\{\}", r"(\d+)"))
    return len({match[1] for name in tensors if (match := pattern.match(name))})


def _heads(name: str, given: int | None, width: int) -> int:
    heads = width // HEAD_DIM if given is None else given
    if heads < 1 or width % heads or (given is None and width % HEAD_DIM):
        raise InputError(
            f"attention of width {width} has {'no' if given is None else given} heads of equal width"
            f"{f' {HEAD_DIM}' if given is None else ''}; give {name}"
        )
    return heads


def _some(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
