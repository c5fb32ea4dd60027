"""Weights and answers of stable-worldmodel's own LeWM; runs in the peer's venv (`setup_lewm.sh`).

Writes into FOLDER, of a model whose parameters are all random:

    weights.pt     its state dict, as it is published; with --safetensors weights.safetensors
    answers.npz    pixels (B, T, h, w, 3) uint8; past (B, T - 1, E) and future (B, S, L, E), z-scored action blocks;
                   z (B, T, D), its encodings; h1, h2, h3 (B, S, L, D), its rollouts from the last 1, 2, 3 frames
    shapes.json    name -> shape of every tensor; only with --shapes, and nothing else then
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import ViTConfig, ViTModel

for package in ("stable_worldmodel", "stable_worldmodel.wm"):  # without their __init__: simulators and torchvision
    module = types.ModuleType(package)
    module.__path__ = list(importlib.util.find_spec(package).submodule_search_locations)
    sys.modules[package] = module
from stable_worldmodel.wm.lewm import LeWM  # noqa: E402
from stable_worldmodel.wm.lewm.module import MLP, Embedder, Predictor  # noqa: E402

BLOCK_DIM, FRAMES, SAMPLES, BLOCKS = 10, 3, 2, 4
MEAN, STD = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
FULL = {
    "vit": {"hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3, "intermediate_size": 768}
    | {"image_size": 224, "patch_size": 14},
    "predictor": {"depth": 6, "heads": 16, "dim_head": 64, "mlp_dim": 2048, "dropout": 0.1},
    "latent": 192,
    "projector": 2048,
}
TINY = {  # no two sizes alike
    "vit": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
    | {"image_size": 24, "patch_size": 8},
    "predictor": {"depth": 2, "heads": 2, "dim_head": 3, "mlp_dim": 14, "dropout": 0.1},
    "latent": 12,
    "projector": 18,
}


def build(size: dict, block_dim: int) -> LeWM:
    """Their model as `config/train/model/lewm.yaml` makes it, at other sizes too."""
    dim, norm = size["latent"], torch.nn.BatchNorm1d
    encoder = ViTModel(ViTConfig(**size["vit"]), add_pooling_layer=False, use_mask_token=False)
    return LeWM(
        encoder=encoder,
        predictor=Predictor(num_frames=FRAMES, input_dim=dim, hidden_dim=dim, **size["predictor"]),
        action_encoder=Embedder(input_dim=block_dim, emb_dim=dim),
        projector=MLP(size["vit"]["hidden_size"], size["projector"], dim, norm_fn=norm),
        pred_proj=MLP(dim, size["predictor"]["mlp_dim"], dim, norm_fn=norm),
    )


@torch.no_grad()
def disturb(model: LeWM, generator: torch.Generator) -> None:
    """Let nothing be 0 or 1: what starts there (modulation, norms, running statistics) would hide errors."""
    for parameter in model.parameters():
        parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.2, generator=generator)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0, generator=generator)


@torch.inference_mode()
def answer(model: LeWM, rows: int, generator: torch.Generator) -> dict[str, np.ndarray]:
    """Encodings of random images, and rollouts from them."""
    side = model.encoder.config.image_size
    pixels = torch.randint(0, 256, (rows, FRAMES, side, side, 3), dtype=torch.uint8, generator=generator)
    past = torch.randn(rows, FRAMES - 1, BLOCK_DIM, generator=generator)
    future = torch.randn(rows, SAMPLES, BLOCKS, BLOCK_DIM, generator=generator)
    images = (pixels.permute(0, 1, 4, 2, 3) / 255 - MEAN) / STD
    found = {"pixels": pixels, "past": past, "future": future, "z": model.encode({"pixels": images})["emb"]}
    for h in range(1, FRAMES + 1):
        executed = past[:, None, FRAMES - h :].expand(-1, SAMPLES, -1, -1)  # theirs wants both in one
        seen = images[:, None, -h:].expand(-1, SAMPLES, *[-1] * 4)
        info = model.rollout({"pixels": seen}, torch.cat([executed, future], dim=2))
        found[f"h{h}"] = info["predicted_emb"][:, :, h:]
    return {name: tensor.numpy() for name, tensor in found.items()}


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--full", action="store_true", help="the published size (default: a tiny one)")
    parser.add_argument("--shapes", action="store_true", help="write shapes.json only")
    parser.add_argument("--safetensors", action="store_true", help="write weights.safetensors")
    parser.add_argument("--block-dim", type=int, default=BLOCK_DIM, help="numbers in an action block (10)")
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model, generator = build(FULL if args.full else TINY, args.block_dim), torch.Generator().manual_seed(0)
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.shapes:
        shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
        lines = ",\n".join(f'"{name}": {json.dumps(shape)}' for name, shape in shapes.items())
        (args.folder / "shapes.json").write_text("{\n" + lines + "\n}\n")
        return
    disturb(model, generator)
    if args.safetensors:
        save_file(model.state_dict(), args.folder / "weights.safetensors")
    else:
        torch.save(model.state_dict(), args.folder / "weights.pt")
    np.savez_compressed(args.folder / "answers.npz", **answer(model.eval(), 2, generator))


if __name__ == "__main__":
    main()
