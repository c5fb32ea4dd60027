"""`lewm pretrain`: pictures -> encoder, by LeJEPA; judged by a linear probe beside the untrained encoder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from experiments.build import build_model
from experiments.runs import at_least, claim_folder, exclusive, progress, provenance, say
from experiments.train import _check_images, _check_sums, _pixels, probe
from lewm import checkpoint, registry
from lewm.data import EpisodeReader, split_episodes
from lewm.data.pictures import Frames, ImageFolder, Pictures, Subset
from lewm.data.views import standard_view
from lewm.diagnosis import RidgeProbe
from lewm.models import WorldModel
from lewm.types import ActionSpec

PROBE_PICTURES = 2000
STATISTICS_PICTURES = 256


class Material(Protocol):
    """Where pictures come from, and what a probe can be asked about them.

    Attributes:
        training: the pictures to learn from; action_spec: of the actions between them.
        fingerprint: of the data; measure: what `probe` gives.
    """

    training: Pictures
    action_spec: ActionSpec
    fingerprint: str
    measure: str

    def statistics(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Mean and standard deviation of the channels: as given for the model, else of the training pictures."""

    def check(self) -> None:
        """Raise an `InputError` for damaged data."""

    def probe(self, model: WorldModel) -> float | None:
        """Score of a linear probe on held-out pictures; None without a truth to compare with."""


class StoreMaterial:
    """The frames of an episode store; the probe reads off the true state."""

    measure = "state probe R2 (worst axis, held-out episodes)"

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._reader = EpisodeReader(config["data"], cache=config["cache"])
        _check_images(self._reader, config["model"]["image_size"])
        self._episodes, self._held_out = split_episodes(self._reader, config["validation"])
        self.training = Frames(self._reader, self._episodes)
        self.action_spec = self._reader.action_spec(self._episodes)
        self.fingerprint = self._reader.fingerprint

    def statistics(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """See `Material`."""
        return _pixels(given, self._reader, self._episodes)

    def check(self) -> None:
        """See `Material`."""
        _check_sums(self._reader)

    def probe(self, model: WorldModel) -> float | None:
        """R2 of the worst axis."""
        r2 = probe(model, self._reader, self._episodes, self._held_out)
        return min(r2) if r2 else None


class FolderMaterial:
    """The pictures of a folder; the probe tells their classes."""

    measure = "class probe accuracy (held-out pictures)"
    action_spec = ActionSpec(low=(-1,), high=(1,), mean=(0,), std=(1,))  # there are no actions

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._folder = ImageFolder(config["data"], cache=config["cache"])
        self._numbers, self._held_out = self._folder.split(config["validation"])
        self.training = Subset(self._folder, self._numbers)
        self.fingerprint = self._folder.fingerprint

    def statistics(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """See `Material`."""
        if given["pixel_mean"] or given["pixel_std"]:
            return {}
        chosen = np.random.default_rng(0).choice(self._numbers, STATISTICS_PICTURES)
        colours = self._standard(chosen, 32).reshape(-1, 3) / 255
        mean, std = colours.mean(0), np.maximum(colours.std(0), 0.02)
        return {"pixel_mean": tuple(mean.round(4).tolist()), "pixel_std": tuple(std.round(4).tolist())}

    def check(self) -> None:
        """Pictures are decoded, and found damaged, as they are drawn."""

    @torch.no_grad()
    def probe(self, model: WorldModel) -> float | None:
        """Share of held-out pictures whose class is the largest of a ridge regression of all classes."""
        classes = torch.eye(len(self._folder.classes), dtype=torch.float64)
        if not len(classes) or not len(self._held_out):
            return None
        rng = np.random.default_rng(0)
        parts = [rng.permutation(part)[:PROBE_PICTURES] for part in (self._numbers, self._held_out)]
        size = model.config.image_size
        z, z_held = (model.encode(torch.from_numpy(self._standard(part, size))) for part in parts)
        labels, labels_held = (torch.from_numpy(self._folder.labels[part]) for part in parts)
        scores = RidgeProbe.fit(z.cpu(), classes[labels]).predict(z_held.cpu())
        return (scores.argmax(1) == labels_held).double().mean().item()

    def _standard(self, numbers: np.ndarray, size: int) -> np.ndarray:
        pictures = (self._folder.read([number])[0] for number in numbers)  # of any size: one at a time
        return np.stack([standard_view(picture, size) for picture in pictures])


def pretrain(config: Mapping[str, Any]) -> Path:
    """Pretrain, or continue a run that was cut off; see `configs/pretrain.yaml` for the settings."""
    at_least(config, seed=0, threads=1)
    at_least(config["model"], action_block=1)
    torch.set_num_threads(config["threads"])
    run, material = Path(config["out"]), _open(config)
    trainer = registry.build("trainer", config["trainer"])
    objective = registry.build("objective", config["objective"])
    link = config["model"]["link"]
    learned = {"heads": objective.heads, "link": objective.link if link == "none" else link}
    model_config = config["model"] | material.statistics(config["model"]) | learned
    model = build_model(model_config, material.action_spec, config["seed"])
    views = registry.build(
        "views",
        config["views"],
        pictures=material.training,
        image_size=model.config.image_size,
        views=trainer.frames,
        action_shape=(model.action_block, model.action_spec.dim),
    )
    settings = {**config, "data_fingerprint": material.fingerprint}
    claim_folder(run, "pretrain", settings, ["checkpoint", "training_state.pt", "metrics.jsonl"])
    if (run / "checkpoint").exists():
        say(f"pretrain  already done: {run / 'checkpoint'}")
        return run
    begin = time.perf_counter()
    with exclusive(run), progress(trainer.steps, "pretrain", "steps") as bar:
        material.check()
        untrained = material.probe(model.eval())

        def on_step(step: int, metrics: Mapping[str, float]) -> None:
            bar.update(step - bar.n)
            if metrics:
                bar.set_postfix_str(f"loss {metrics['loss']:.3f}, rank {metrics['effective_rank']:.0f}")

        trainer.fit(model, objective, views, run, config["seed"], on_step)
        score = material.probe(model)
        facts = {
            "data": {"fingerprint": material.fingerprint, "validation": config["validation"]},
            "trained": ["encoder", "projector"],
            "steps": trainer.steps,
            "seed": config["seed"],
            "probe": {"measure": material.measure, "score": score, "untrained": untrained},
            "plugins": config["plugins"],
            **provenance(),
        }
        checkpoint.save(model, run / "checkpoint", facts)
    seen = "" if score is None else f", {material.measure} {score:.4f}, of the untrained encoder {untrained:.4f}"
    say(f"pretrain  {trainer.steps} steps in {run} ({time.perf_counter() - begin:.1f} s{seen})")
    return run


def _open(config: Mapping[str, Any]) -> Material:
    is_set = (Path(config["data"]) / "dataset.json").exists()
    return StoreMaterial(config) if is_set else FolderMaterial(config)
