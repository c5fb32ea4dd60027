"""`lewm import`: published LeWM weights -> a checkpoint that `lewm evaluate` and `lewm.load` take."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import planners
from experiments.runs import claim_folder, exclusive, provenance, say
from lewm import checkpoint
from lewm.data import EpisodeReader
from lewm.models.released import load_released
from lewm.types import ActionSpec, InputError

STATISTICS = ("low", "high", "mean", "std")
HEADS = {"encoder_heads": "encoder", "predictor_heads": "predictor"}  # option -> part
EPILOG = """examples:
  lewm import weights.pt runs/pusht --data data/pusht
  lewm import weights.pt runs/mine --low=-1,-1 --high=1,1 --mean=0.02,0.1 --std=0.4,0.5
  lewm evaluate run=runs/pusht env.image_size=224"""
# LeWM's recipe (arXiv 2603.19312, section 4) in environment steps and in standard deviations of the data's actions.
# Differs in that candidates stay inside the bounds.
PLANNER = {
    "name": "cem",
    **{"samples": 300, "elites": 30, "iterations": 30, "warm_iterations": 30},
    **{"init_std": 1.0, "min_std": 0.0, "correlation": 0.0, "returns": "mean"},
}
COST = {"name": "goal_distance", "running": 0.0, "terminal": 1.0}
HORIZON = 5  # in action blocks; all of them are executed before the next plan


def import_weights(arguments: Sequence[str]) -> Path:
    """Read weights, write a run folder with a checkpoint; the same command again changes nothing."""
    options = _parser().parse_args(arguments or ["--help"])
    reader = None if options.data is None else EpisodeReader(options.data)
    spec = _action_spec(options, reader)
    model = load_released(
        options.weights, spec, encoder_heads=options.encoder_heads, predictor_heads=options.predictor_heads
    )
    model.recommendation = recommendation(model.action_block)
    source = {"weights": options.weights.name, "sha256": _sha256(options.weights)}
    data = {} if reader is None else {"fingerprint": reader.fingerprint, "source": reader.info.source}
    actions = {name: value.tolist() for name, value in vars(spec).items()}
    heads = {name: getattr(model.config, part)["heads"] for name, part in HEADS.items()}
    claim_folder(options.out, "import", {**source, **heads, "actions": actions}, ["checkpoint"])
    if not (options.out / "checkpoint").exists():
        with exclusive(options.out):
            facts = {"imported": source, **({"data": data} if data else {}), **provenance()}
            checkpoint.save(model, options.out / "checkpoint", facts)
    count, size = sum(p.numel() for p in model.parameters()), model.config.image_size
    say(
        f"import    {count:,} parameters in {options.out / 'checkpoint'}: images {size} x {size}, history "
        f"{model.history}, blocks of {model.action_block} actions of dimension {spec.dim}"
    )
    return options.out


def recommendation(block: int) -> dict[str, Any]:
    """How LeWM plans, in our units."""
    planner = PLANNER | {"horizon": HORIZON * block}
    planners.CEM(**{key: value for key, value in planner.items() if key != "name"})  # what it says can be built
    return {"planner": planner, "cost": COST, "replan_every": HORIZON * block}


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("lewm import", description=__doc__, epilog=EPILOG, formatter_class=raw)
    parser.add_argument("weights", type=Path, help="weights.pt (a state dict) or a .safetensors file")
    parser.add_argument("out", type=Path, help="folder of the run to make")
    text = "data set of ours it was trained on (lewm data convert), for the bounds and statistics of the actions"
    parser.add_argument("--data", type=Path, help=text)
    for name in STATISTICS:
        parser.add_argument(f"--{name}", help="of the actions, numbers separated by commas, in place of --data's")
    for name, part in HEADS.items():
        text = f"attention heads of the {part}, if they are not 64 wide as in the published sizes"
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help=text)
    return parser


def _action_spec(options: argparse.Namespace, reader: EpisodeReader | None) -> ActionSpec:
    """Those of the data set, and what was given in their place."""
    given = {name: _numbers(name, text) for name in STATISTICS if (text := getattr(options, name)) is not None}
    if reader is not None:
        spec = ActionSpec(**(vars(reader.action_spec(np.arange(len(reader)))) | given))
    elif missing := [f"--{name}" for name in STATISTICS if name not in given]:
        raise InputError(
            "weights do not say what actions they were trained on: give --data FOLDER, or also "
            f"{', '.join(missing)}, numbers separated by commas"
        )
    else:
        spec = ActionSpec(**given)
    if not (spec.std > 0).all() or not np.isfinite([spec.mean, spec.std]).all():
        raise InputError(
            f"actions need a finite mean and a standard deviation above 0, got {spec.mean}, {spec.std}"
        )
    return spec


def _numbers(name: str, text: str) -> np.ndarray:
    try:
        return np.array(text.split(","), float)
    except ValueError:
        raise InputError(f"--{name} takes numbers separated by commas, got '{text}'") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
