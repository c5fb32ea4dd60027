"""`lewm train`: data set -> world model."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.build import build_model
from experiments.runs import at_least, claim_folder, exclusive, progress, provenance, say
from lewm import checkpoint, registry
from lewm.data import EpisodeReader, Windows, split_episodes
from lewm.diagnosis import RidgeProbe
from lewm.models import WorldModel
from lewm.types import InputError

PROBE_FRAMES = 2000
STATISTICS_FRAMES = 256


def train(config: Mapping[str, Any]) -> Path:
    """Train, or continue a run that was cut off; see `configs/train.yaml` for the settings."""
    at_least(config, seed=0, threads=1)
    at_least(config["model"], action_block=1)
    torch.set_num_threads(config["threads"])
    run, reader = Path(config["out"]), EpisodeReader(config["data"], cache=config["cache"])
    _check_images(reader, config["model"]["image_size"])
    _check_advice(config)
    training, held_out = split_episodes(reader, config["validation"])
    trainer = registry.build("trainer", config["trainer"])
    objective = registry.build("objective", config["objective"])
    settings = {**config, "data_fingerprint": reader.fingerprint}
    pixels = _pixels(config["model"], reader, training)
    link = config["model"]["link"]
    learned = {"heads": objective.heads, "link": objective.link if link == "none" else link}
    model = build_model(config["model"] | pixels | learned, reader.action_spec(training), config["seed"])
    model.recommendation = {key: config[key] for key in ("planner", "cost", "replan_every")}
    windows = Windows(reader, training, frames=trainer.frames, block=model.action_block, pad=model.history - 1)

    claim_folder(run, "train", settings, ["checkpoint", "training_state.pt", "metrics.jsonl"])
    if (run / "checkpoint").exists():
        say(f"train     already done: {run / 'checkpoint'}")
        return run
    begin = time.perf_counter()
    with exclusive(run), progress(trainer.steps, "train", "steps") as bar:
        _check_sums(reader)

        def on_step(step: int, metrics: Mapping[str, float]) -> None:
            if trainer.reading and not bar.n:
                say(f"          data is read by {trainer.reading}")
            bar.update(step - bar.n)
            if metrics:
                bar.set_postfix_str(f"loss {metrics['loss']:.3f}, rank {metrics['effective_rank']:.0f}")

        trainer.fit(model, objective, windows, run, config["seed"], on_step)
        r2 = probe(model, reader, training, held_out)
        facts = {
            "data": {
                "fingerprint": reader.fingerprint,
                "source": reader.info.source,
                "validation": config["validation"],
            },
            "steps": trainer.steps,
            "seed": config["seed"],
            "probe_r2": r2,
            "plugins": config["plugins"],
            **provenance(),
        }
        checkpoint.save(model, run / "checkpoint", facts)
    seen = f", state probe R2 {min(r2):.4f} (worst axis, held-out episodes)" if r2 else ""
    say(f"train     {trainer.steps} steps in {run} ({time.perf_counter() - begin:.1f} s{seen})")
    return run


@torch.no_grad()
def probe(
    model: WorldModel, reader: EpisodeReader, training: np.ndarray, held_out: np.ndarray
) -> list[float] | None:
    """R2 of a linear probe of the true state, fitted on training and scored on held-out episodes, per axis.

    The recorded `pose` stands for the state where there is one: what a picture can show of it. Axes that are
    constant on the held-out frames are left out. None where neither was recorded, no episode held out, or nothing
    varies.
    """
    truth = next((name for name in ("pose", "state") if name in reader.info.columns), None)
    if truth is None or set(held_out) <= set(training):
        return None
    (z, state), (z_held, state_held) = (_encode_some(model, reader, truth, part) for part in (training, held_out))
    r2 = RidgeProbe.fit(z, state).r2(z_held, state_held)
    return r2[~r2.isnan()].tolist() or None


def _encode_some(
    model: WorldModel, reader: EpisodeReader, truth: str, episodes: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents and true states of up to `PROBE_FRAMES` random frames of these episodes."""
    stride = reader.info.columns["pixels"].stride
    rng = np.random.default_rng(0)
    chosen = rng.choice(episodes, PROBE_FRAMES)
    frames = rng.integers(0, reader.steps[chosen] // stride + 1)
    z = model.encode(torch.from_numpy(reader.gather("pixels", chosen, frames)))
    return z, torch.from_numpy(reader.gather(truth, chosen, frames * stride))


def _pixels(given: Mapping[str, Any], reader: EpisodeReader, episodes: np.ndarray) -> dict[str, Any]:
    """Mean and standard deviation of the channels: as given for the model, else of these episodes."""
    mean, std = given["pixel_mean"], given["pixel_std"]
    if not mean and not std:
        return _pixel_statistics(reader, episodes)
    if not (len(mean or ()) == len(std or ()) == 3 and min(std) > 0):
        raise InputError(
            "model.pixel_mean and model.pixel_std are three numbers each, of pixels in [0, 1], standard deviations "
            f"above 0, or both [] to take them from the data; got {list(mean or ())} and {list(std or ())}"
        )
    return {"pixel_mean": tuple(mean), "pixel_std": tuple(std)}


def _pixel_statistics(reader: EpisodeReader, episodes: np.ndarray) -> dict[str, tuple[float, ...]]:
    """Mean and standard deviation of the channels over some frames of these episodes, of pixels in [0, 1]."""
    rng = np.random.default_rng(0)
    chosen = rng.choice(episodes, STATISTICS_FRAMES)
    stride = reader.info.columns["pixels"].stride
    frames = reader.gather("pixels", chosen, rng.integers(0, reader.steps[chosen] // stride + 1))
    counts = np.zeros(3 * 256, np.int64)  # of each value, channel after channel
    for frame in frames:
        counts += np.bincount((frame + 256 * np.arange(3)).ravel(), minlength=len(counts))
    share, levels = counts.reshape(3, 256) / (frames.size / 3), np.arange(256) / 255
    mean = share @ levels
    std = np.maximum(np.sqrt((share * (levels - mean[:, None]) ** 2).sum(1)), 0.02)
    return {"pixel_mean": tuple(mean.round(4).tolist()), "pixel_std": tuple(std.round(4).tolist())}


def _check_advice(config: Mapping[str, Any]) -> None:
    """Build what the checkpoint will recommend, so that a mistake shows before training and not after."""
    planner, block = registry.build("planner", config["planner"]), config["model"]["action_block"]
    registry.build("cost", config["cost"])
    if planner.horizon % block or not 1 <= config["replan_every"] <= planner.horizon:
        raise InputError(
            f"planner.horizon must be a multiple of model.action_block {block} and at least replan_every, got "
            f"horizon {planner.horizon} and replan_every {config['replan_every']}"
        )


def _check_sums(reader: EpisodeReader) -> None:
    with progress(len(reader), "verify", "episodes") as bar:
        for fault in reader.verify(bar.update):
            raise InputError(f"{fault.text} (`lewm data verify {reader.folder}` lists everything)")


def _check_images(reader: EpisodeReader, size: int) -> None:
    if "pixels" not in reader.info.columns:
        raise InputError(f"{reader.folder} holds no images (columns {sorted(reader.info.columns)})")
    shape = reader.info.columns["pixels"].shape
    if shape != (size, size, 3):
        raise InputError(
            f"{reader.folder} holds images of shape {shape}, the model takes ({size}, {size}, 3); "
            f"choose model.image_size={shape[0]}, or collect with env.image_size={size}"
        )
