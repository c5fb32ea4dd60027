"""`lewm pretrain`: pictures -> encoder, by LeJEPA; judged by a linear probe beside the untrained encoder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.build import build_model
from experiments.observe import DARKEST
from experiments.runs import at_least, claim_folder, exclusive, progress, provenance, say
from experiments.train import OUTPUTS, check_images, check_sums, ignore, shown
from lewm import checkpoint, registry
from lewm.data import EpisodeReader, split_episodes
from lewm.data.pictures import Frames, ImageFolder, Pictures, Subset
from lewm.data.views import standard_view
from lewm.diagnosis.probe import RidgeProbe, r2
from lewm.models import WorldModel
from lewm.objectives import Objective
from lewm.training import join
from lewm.types import ActionSpec

PROBE_PICTURES = 2000
STATISTICS_PICTURES = 256
NO_ACTIONS = ActionSpec(low=(-1,), high=(1,), mean=(0,), std=(1,))


@dataclass(frozen=True)
class Material:
    """Pictures to learn from, and others to be judged on, if any are held out.

    Attributes:
        fingerprint: of the data.
        measure, score: name of, and what a probe's answers (N, P) are worth beside the truth (N, P).
        action_spec: of the actions between the pictures.
        check: raises an `InputError` for damaged data.
    """

    training: Pictures
    held_out: Pictures | None
    fingerprint: str
    measure: str
    score: Callable[[Tensor, Tensor], float | None]
    action_spec: ActionSpec = NO_ACTIONS
    check: Callable[[], None] = lambda: None


def pretrain(config: Mapping[str, Any]) -> Path:
    """Pretrain, or continue a run that was cut off; see `configs/pretrain.yaml` for the settings.

    Under `torchrun` all processes run this, and the first one writes and speaks.
    """
    at_least(config, seed=0, threads=1)
    at_least(config["model"], action_block=1)
    torch.set_num_threads(config["threads"])
    run, material = Path(config["out"]), _open(config)
    trainer = registry.build("trainer", config["trainer"])
    objective = registry.build("objective", config["objective"])
    model = _model(config, material, objective)
    views = registry.build(
        "views",
        config["views"],
        pictures=material.training,
        image_size=model.config.image_size,
        views=trainer.frames,
        action_shape=(model.action_block, model.action_spec.dim),
    )
    processes = join(trainer.device)
    if processes.main:
        claim_folder(run, "pretrain", {**config, "data_fingerprint": material.fingerprint}, OUTPUTS)
    processes.wait()
    tell = _tell if processes.main else ignore
    if (run / "checkpoint").exists():
        tell(f"already done: {run / 'checkpoint'}")
        return run
    begin = time.perf_counter()
    with exclusive(run) if processes.main else nullcontext():
        if processes.main:
            material.check()
            before = probe(model.eval(), material)
        with progress(trainer.steps, "pretrain", "steps") if processes.main else nullcontext() as bar:
            trainer.fit(model, objective, views, run, config["seed"], shown(bar), tell)
        if processes.main:
            after = probe(model, material)
            scores = {"measure": material.measure, "score": after, "untrained": before}
            facts = {"steps": trainer.steps, "processes": processes.world, "probe": scores}
            checkpoint.save(model, run / "checkpoint", _facts(config, material) | facts)
            seen = "" if after is None else f", held-out {material.measure} {after:.4f}, untrained {before:.4f}"
            tell(f"{trainer.steps} steps in {run} ({time.perf_counter() - begin:.1f} s{seen})")
    processes.wait()
    return run


def _tell(text: str) -> None:
    say(f"pretrain  {text}")


def _model(config: Mapping[str, Any], material: Material, objective: Objective) -> WorldModel:
    """The whole world model at the start; its predictor will stay as it is."""
    given = config["model"]
    learned = {"heads": objective.heads, "link": objective.link if given["link"] == "none" else given["link"]}
    return build_model(
        given | _statistics(given, material.training) | learned, material.action_spec, config["seed"]
    )


def _facts(config: Mapping[str, Any], material: Material) -> dict[str, Any]:
    """Where a checkpoint comes from, and what of it a world model may start from."""
    data = {"fingerprint": material.fingerprint, "validation": config["validation"]}
    learned = {"data": data, "trained": ["encoder", "projector"]}
    return {**learned, "seed": config["seed"], "plugins": config["plugins"], **provenance()}


@torch.no_grad()
def probe(model: WorldModel, material: Material) -> float | None:
    """Score of a ridge regression from latents, fitted on training and tried on held-out pictures.

    Latents are scaled to unit variance first: an untrained encoder's are small, and the ridge would hold them down.
    None where nothing is known of the pictures, or none are held out.
    """
    if material.held_out is None:
        return None
    parts = [_sample(pictures, PROBE_PICTURES) for pictures in (material.training, material.held_out)]
    truths = [pictures.truth(numbers) for pictures, numbers in parts]
    if any(truth is None for truth in truths):
        return None
    size = model.config.image_size
    z, z_held = (model.encode(torch.from_numpy(_show(*part, size))).cpu() for part in parts)
    scale = z.std(0).clamp(min=1e-6)
    fitted = RidgeProbe.fit(z / scale, torch.from_numpy(truths[0]))
    return material.score(fitted.predict(z_held / scale), torch.from_numpy(truths[1]))


def worst_r2(predicted_NP: Tensor, true_NP: Tensor) -> float | None:
    """R2 of the axis that is predicted worst, of those that vary."""
    shares = r2(predicted_NP, true_NP)
    return shares[~shares.isnan()].min().item() if not shares.isnan().all() else None


def accuracy(predicted_NP: Tensor, true_NP: Tensor) -> float:
    """Share of rows whose largest number is at the true class."""
    return (predicted_NP.argmax(1) == true_NP.argmax(1)).double().mean().item()


def _open(config: Mapping[str, Any]) -> Material:
    """A data set, or a folder of pictures."""
    if not (Path(config["data"]) / "dataset.json").exists():
        folder = ImageFolder(config["data"], cache=config["cache"])
        numbers, others = folder.split(config["validation"])
        held_out = Subset(folder, others) if len(others) else None
        return Material(Subset(folder, numbers), held_out, folder.fingerprint, "class accuracy", accuracy)
    reader = EpisodeReader(config["data"], cache=config["cache"])
    check_images(reader, config["model"]["image_size"])
    episodes, others = split_episodes(reader, config["validation"])
    held_out = Frames(reader, others) if set(others) - set(episodes) else None
    spec, check = reader.action_spec(episodes), partial(check_sums, reader)
    return Material(
        Frames(reader, episodes), held_out, reader.fingerprint, "state R2 (worst axis)", worst_r2, spec, check
    )


def _statistics(given: Mapping[str, Any], training: Pictures) -> dict[str, tuple[float, ...]]:
    """Mean and standard deviation of the channels: as given for the model, else of some training pictures."""
    if given["pixel_mean"] or given["pixel_std"]:
        return {}
    numbers = _sample(training, STATISTICS_PICTURES)[1]
    pictures = (_show(training, numbers[k : k + 1], given["image_size"])[0] / 255 for k in range(len(numbers)))
    first, second = np.mean([(p.mean((0, 1)), (p**2).mean((0, 1))) for p in pictures], axis=0)
    mean, std = first, np.maximum(np.sqrt(second - first**2), DARKEST)
    return {"pixel_mean": tuple(mean.round(4).tolist()), "pixel_std": tuple(std.round(4).tolist())}


def _sample(pictures: Pictures, count: int) -> tuple[Pictures, np.ndarray]:
    """The pictures, and the numbers of up to `count` of them, the same ones every time."""
    return pictures, np.random.default_rng(0).permutation(len(pictures))[:count]


def _show(pictures: Pictures, numbers: np.ndarray, size: int) -> np.ndarray:
    """uint8 (N, size, size, 3) of pictures of any size, read one at a time."""
    return np.stack([standard_view(pictures.read(numbers[k : k + 1])[0], size) for k in range(len(numbers))])
