"""Answers and timings of stable-worldmodel's LeWM and CEM on our weights; runs in the peer's venv.

Reads FOLDER/weights.npz (our predictor's state dict) and FOLDER/problem.npz, all float32:

    z (B, T, D) observed latents        past (B, T - 1, E) action blocks between them
    goal (B, D)                         candidates (B, S, L, E)

Writes FOLDER/answers_h{h}.npz for each history h: latents (B, S, L, D) and costs (B, S) of the candidates, from the
last h observed frames. Then prints one JSON line per measurement.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import sys
import time
import types
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from gymnasium.spaces import Box

PACKAGE = "stable_worldmodel"
BLOCK = 5  # environment steps per action block


def skip_init(name: str) -> None:
    """Make a package importable without running its __init__, which would import simulators and torchvision."""
    module = types.ModuleType(name)
    module.__path__ = list(importlib.util.find_spec(name).submodule_search_locations)
    sys.modules[name] = module


skip_init(PACKAGE)
skip_init(f"{PACKAGE}.wm")
from stable_worldmodel.solver.cem import CEMSolver  # noqa: E402
from stable_worldmodel.wm.lewm import LeWM  # noqa: E402
from stable_worldmodel.wm.lewm.module import MLP, Embedder, Predictor  # noqa: E402

LAYER = "predictor.transformer.layers"
NAMES = {  # ours -> theirs; {} is the layer
    "action_encoder.0": "action_encoder.patch_embed",
    "action_encoder.1": "action_encoder.embed.0",
    "action_encoder.3": "action_encoder.embed.2",
    "blocks.{}.attention.0": LAYER + ".{}.attn.norm",
    "blocks.{}.attention.1.qkv": LAYER + ".{}.attn.to_qkv",
    "blocks.{}.attention.1.out": LAYER + ".{}.attn.to_out.0",
    "blocks.{}.mlp.0": LAYER + ".{}.mlp.net.0",
    "blocks.{}.mlp.1.0": LAYER + ".{}.mlp.net.1",
    "blocks.{}.mlp.1.3": LAYER + ".{}.mlp.net.4",
    "blocks.{}.modulation": LAYER + ".{}.adaLN_modulation.1",
    "norm": "predictor.transformer.norm",
    "projector.0": "pred_proj.net.0",
    "projector.1": "pred_proj.net.1",
    "projector.3": "pred_proj.net.3",
}


def renamed(key: str) -> str:
    """Their name of one of our parameters; an unknown one is a KeyError."""
    if key == "position":
        return "predictor.pos_embedding"
    module, _, leaf = key.rpartition(".")
    parts = module.split(".")
    layer = parts[1] if parts[0] == "blocks" else ""
    if layer:
        parts[1] = "{}"
    return f"{NAMES['.'.join(parts)].format(layer)}.{leaf}"


def build(weights: dict[str, np.ndarray], heads: int) -> LeWM:
    """Their model of the same size with our weights, without an encoder; any unmatched name is an error."""
    frames, dim = weights["position"].shape[1:]
    inner, hidden = weights["blocks.0.attention.1.out.weight"].shape[1], weights["projector.0.weight"].shape[0]
    block_dim, action_hidden = weights["action_encoder.0.weight"].shape[0], len(weights["action_encoder.1.weight"])
    predictor = Predictor(
        num_frames=frames,
        depth=sum(key.endswith("modulation.weight") for key in weights),
        heads=heads,
        dim_head=inner // heads,
        mlp_dim=len(weights["blocks.0.mlp.1.0.weight"]),
        input_dim=dim,
        hidden_dim=dim,
    )
    model = LeWM(
        encoder=torch.nn.Identity(),
        predictor=predictor,
        action_encoder=Embedder(block_dim, block_dim, dim, action_hidden // dim),
        pred_proj=MLP(dim, hidden, dim, norm_fn=torch.nn.BatchNorm1d),
    )
    state = {renamed(key): torch.from_numpy(value) for key, value in weights.items()}
    conv = "action_encoder.patch_embed.weight"  # a pointwise convolution there, a linear map here
    state[conv] = state[conv].unsqueeze(-1)
    model.load_state_dict(state, strict=True)
    return model.eval()


def info(problem: dict[str, torch.Tensor], rows: int, history: int) -> dict[str, torch.Tensor]:
    """What their solver gets: latents in place of images, which then need not be encoded."""
    z, goal = problem["z"][:rows, -history:], problem["goal"][:rows, None]
    empty = torch.zeros(rows, history, 1)  # of images only the number of frames is read
    return {"pixels": empty, "goal": empty, "emb": z, "goal_emb": goal}


def expanded(given: dict[str, torch.Tensor], samples: int) -> dict[str, torch.Tensor]:
    """One view per candidate, as their solver makes them: (B, ...) -> (B, S, ...)."""
    return {key: x.unsqueeze(1).expand(-1, samples, *x.shape[1:]) for key, x in given.items()}


def with_past(problem: dict[str, torch.Tensor], candidates: torch.Tensor, history: int) -> torch.Tensor:
    """Candidates (B, S, L, E) behind the history - 1 blocks already executed: their rollout wants both in one."""
    rows, samples = candidates.shape[:2]
    past = problem["past"][:rows, problem["past"].shape[1] - (history - 1) :]
    return torch.cat([past[:, None].expand(-1, samples, -1, -1), candidates], dim=2)


@torch.inference_mode()
def answer(model: LeWM, problem: dict[str, torch.Tensor], history: int) -> dict[str, np.ndarray]:
    """Their latents and costs of the given candidates."""
    candidates = problem["candidates"]
    rows, samples = candidates.shape[:2]
    given = expanded(info(problem, rows, history), samples)
    costs = model.get_cost(given, with_past(problem, candidates, history))
    return {"latents": given["predicted_emb"][:, :, history:].numpy(), "costs": costs.numpy()}


@torch.inference_mode()
def measure(
    model: LeWM, problem: dict[str, torch.Tensor], rows: int, history: int, args: argparse.Namespace
) -> float:
    """Seconds of one solve, or with more than one observed frame of as many calls of the cost as a solve makes.

    Their rollout gives the first `history` blocks of a candidate to the observed frames: with more than one, their
    solver would search for actions that have been executed. So only the cost is comparable then.
    """
    given, (blocks, block_dim) = info(problem, rows, history), problem["candidates"].shape[2:]
    if history == 1:
        solver = CEMSolver(model, args.batch, args.samples, n_steps=args.iterations, topk=args.topk)
        space = Box(-1.0, 1.0, (rows, block_dim // BLOCK))
        solver.configure(
            action_space=space, n_envs=rows, config=SimpleNamespace(horizon=blocks, action_block=BLOCK)
        )
        start = time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):
            solver.solve(given)
        return time.perf_counter() - start
    candidates = torch.randn(rows, args.samples, blocks, block_dim, generator=torch.Generator().manual_seed(0))
    candidates = with_past(problem, candidates, history)
    start = time.perf_counter()
    for first in range(0, rows, args.batch):
        batch = slice(first, first + args.batch)
        views = expanded({key: x[batch] for key, x in given.items()}, args.samples)
        for _ in range(args.iterations):
            model.get_cost(views, candidates[batch])
    return time.perf_counter() - start


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="holds weights.npz and problem.npz")
    parser.add_argument("--heads", type=int, default=16, help="attention heads (default %(default)s)")
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 8], help="problems per solve (default 1 8)")
    parser.add_argument("--history", type=int, nargs="*", default=[1, 3], help="observed frames (default 1 3)")
    parser.add_argument("--samples", type=int, default=300, help="candidates (default %(default)s)")
    parser.add_argument("--topk", type=int, default=30, help="elites (default %(default)s)")
    parser.add_argument("--iterations", type=int, default=30, help="of a solve (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each kind (default %(default)s)")
    parser.add_argument(
        "--batch", type=int, default=1, help="rows their solver takes at once (default %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, help="of torch (default %(default)s)")
    parser.add_argument("--paced", action="store_true", help="wait for a line on stdin before each measurement")
    return parser.parse_args()


def main() -> None:
    """Answer, then measure."""
    args = arguments()
    torch.set_num_threads(args.threads)
    with np.load(args.folder / "weights.npz") as weights, np.load(args.folder / "problem.npz") as problem:
        model = build(dict(weights), args.heads)
        tensors = {key: torch.from_numpy(value) for key, value in problem.items()}
    for history in args.history:
        np.savez(args.folder / f"answers_h{history}.npz", **answer(model, tensors, history))
    fixed = {"package": PACKAGE, "version": version(PACKAGE), "torch": torch.__version__, "threads": args.threads}
    for history in args.history:
        for rows in args.rows:
            for _ in range(args.repeats):
                if args.paced and not sys.stdin.readline():
                    return
                seconds = measure(model, tensors, rows, history, args)
                case = {"rows": rows, "history": history, "iterations": args.iterations}
                timed = "solve" if history == 1 else "cost"
                print(json.dumps({**fixed, **case, "timed": timed, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
