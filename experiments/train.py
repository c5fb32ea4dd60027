"""`lewm train`: data set -> world model."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from experiments.build import build_model
from experiments.observe import columns_of, image_statistics, recorded, sensors
from experiments.runs import at_least, claim_folder, exclusive, progress, provenance, say
from lewm import checkpoint, registry
from lewm.data import EpisodeReader, Windows, split_episodes
from lewm.diagnosis import RidgeProbe
from lewm.models import WorldModel
from lewm.objectives import Objective
from lewm.training import LATENT, LatentReader, freeze, join, settled, start_from, whiten
from lewm.types import InputError
from planners.observations import each

PROBE_FRAMES = 2000
PAIRS_AT_ONCE = 100  # of frames that are encoded
OUTPUTS = ["checkpoint", "training_state.pt", "metrics.jsonl", "metrics.csv"]


def train(config: Mapping[str, Any]) -> Path:
    """Train, or continue a run that was cut off; see `configs/train.yaml` for the settings.

    Under `torchrun` all processes run this, and the first one writes and speaks.
    """
    at_least(config, seed=0, threads=1)
    at_least(config["model"], action_block=1)
    torch.set_num_threads(config["threads"])
    run, reader = Path(config["out"]), EpisodeReader(config["data"], cache=config["cache"])
    _check_advice(config)
    training, held_out = split_episodes(reader, config["validation"])
    trainer = registry.build("trainer", config["trainer"])
    objective = registry.build("objective", config["objective"])
    model, origin = _model(config, reader, training, objective)
    freeze(model, _names(config["frozen"]))
    if config["whiten"]:
        _check_whitening(config["whiten"], model, origin)
    model.recommendation = {key: config[key] for key in ("planner", "cost", "replan_every")}
    shape = {"frames": trainer.frames, "block": model.action_block, "pad": model.history - 1}
    windows = Windows(reader, training, **shape, columns=model.columns)

    processes = join(trainer.device)
    if processes.main:
        claim_folder(run, "train", {**config, "data_fingerprint": reader.fingerprint, **origin}, OUTPUTS)
    processes.wait()
    tell = _tell if processes.main else ignore
    if (run / "checkpoint").exists():
        tell(f"already done: {run / 'checkpoint'}")
        return run
    begin = time.perf_counter()
    with exclusive(run) if processes.main else nullcontext():
        if processes.main:
            check_sums(reader)
            if origin:
                tell(f"starts from {_spoken(**origin['init'])}")
        if config["whiten"]:
            whiten(model, _changes(model, reader, training), config["whiten"])
        if settled(model):
            most = trainer.steps * trainer.batch_size * trainer.frames
            latents = LatentReader(reader, model, training, device=processes.device, most=most)
            windows = Windows(latents, training, **shape, columns=(LATENT,))
        with progress(trainer.steps, "train", "steps") if processes.main else nullcontext() as bar:
            trainer.fit(model, objective, windows, run, config["seed"], shown(bar), tell)
        if processes.main:
            r2 = probe(model, reader, training, held_out)
            facts = {"steps": trainer.steps, "processes": processes.world, "probe_r2": r2, **origin}
            checkpoint.save(model, run / "checkpoint", _facts(config, reader) | facts)
            seen = f", state probe R2 {min(r2):.4f} (worst axis, held-out episodes)" if r2 else ""
            tell(f"{trainer.steps} steps in {run} ({time.perf_counter() - begin:.1f} s{seen})")
    processes.wait()
    return run


def _names(given: str | Sequence[str] | None) -> list[str]:
    """None, one name or several as a list."""
    return [given] if isinstance(given, str) else list(given or ())


def _tell(text: str) -> None:
    say(f"train     {text}")


def _spoken(run: str, parts: Sequence[str], fresh_heads: Sequence[str], **_: object) -> str:
    new = f"; new heads: {', '.join(fresh_heads)}" if fresh_heads else ""
    return f"{run}: {', '.join(parts)}{new}"


def ignore(text: str) -> None:
    """Say nothing: what all processes but the first do."""


def shown(bar: tqdm | None) -> Callable[[int, Mapping[str, float]], None]:
    """What shows each step on a progress bar."""

    def on_step(step: int, metrics: Mapping[str, float]) -> None:
        if bar is None:
            return
        if not bar.n:
            bar.n = bar.initial = step - 1  # what an earlier try has done says nothing about the time left
        bar.update(step - bar.n)
        if metrics:
            bar.set_postfix_str(f"loss {metrics['loss']:.3f}, rank {metrics['effective_rank']:.0f}")

    return on_step


def _facts(config: Mapping[str, Any], reader: EpisodeReader) -> dict[str, Any]:
    """Where a checkpoint comes from."""
    data = {"fingerprint": reader.fingerprint, "source": reader.info.source, "validation": config["validation"]}
    settings = {key: config[key] for key in ("seed", "whiten", "plugins")}
    return {"data": data, **settings, **provenance()}


def _model(
    config: Mapping[str, Any], reader: EpisodeReader, episodes: np.ndarray, objective: Objective
) -> tuple[WorldModel, dict[str, Any]]:
    """The model at the start, and where its weights come from if they are another run's."""
    given = config["model"]
    columns = columns_of(given["encoder"])
    if "pixels" in columns:
        check_images(reader, given["image_size"])
    learned = {"heads": objective.heads, "link": objective.link if given["link"] == "none" else given["link"]}
    spec = reader.action_spec(episodes)
    if config["init"] is None:
        pixels = _pixels(given, reader, episodes) if "pixels" in columns else {}
        learned |= {"sensors": sensors(reader, episodes, columns), **pixels}
        return build_model(given | learned, spec, config["seed"]), {}
    folder = checkpoint.find(str(config["init"]))
    source = checkpoint.load(folder, plugins=config["plugins"])
    scales = {name: getattr(source.config, name) for name in ("pixel_mean", "pixel_std", "sensors")}
    model = build_model(given | learned | scales, spec, config["seed"])
    parts = config["init_only"] or checkpoint.provenance(folder).get("trained", [])
    fresh = start_from(model, source, parts)
    facts = {"run": str(config["init"]), "sha256": _sha256(folder), "parts": parts or ["all"], "fresh_heads": fresh}
    return model, {"init": facts}


def _check_whitening(power: float, model: WorldModel, origin: Mapping[str, Any]) -> None:
    parts = origin["init"]["parts"] if origin else ["all"]
    if not (
        0 < power <= 1 and settled(model) and set(parts) <= {"encoder", "projector"} and model.config.link == "none"
    ):
        raise InputError(
            "whiten, from 0 to 1, needs latents that stay, without a link, and a predictor that begins anew: "
            "init=RUN 'init_only=[encoder,projector]' 'frozen=[encoder,projector]'; got "
            f"whiten={power}, parts {', '.join(parts)} of another run, link {model.config.link}"
        )


@torch.no_grad()
def _changes(model: WorldModel, reader: EpisodeReader, episodes: np.ndarray) -> torch.Tensor:
    """How latents (n, D) change within a block, in some windows of these episodes."""
    windows = Windows(reader, episodes, frames=2, block=model.action_block, columns=model.columns)
    model.eval()
    found = []
    for step in range(math.ceil(min(len(windows), PROBE_FRAMES) / PAIRS_AT_ONCE)):
        batch = windows.draw(step, PAIRS_AT_ONCE, 0)
        z_BTD = model.encode(each(torch.from_numpy, dict(batch.observations)))
        found.append(z_BTD[:, 1] - z_BTD[:, 0])
    return torch.cat(found)


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
    stride = math.lcm(*(reader.info.columns[column].stride for column in (*model.columns, truth)))
    rng = np.random.default_rng(0)
    chosen = rng.choice(episodes, PROBE_FRAMES)
    steps = stride * rng.integers(0, reader.steps[chosen] // stride + 1)
    rows = each(torch.from_numpy, recorded(reader, {*model.columns, truth}, chosen, steps))
    return model.encode(rows).cpu(), rows[truth]


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
    """Those of some frames of these episodes."""
    mean, std = image_statistics(reader, episodes)
    return {"pixel_mean": tuple(mean.tolist()), "pixel_std": tuple(std.tolist())}


def _sha256(folder: Path) -> str:
    with (folder / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_advice(config: Mapping[str, Any]) -> None:
    """Build what the checkpoint will recommend, so that a mistake shows before training and not after."""
    planner, block = registry.build("planner", config["planner"]), config["model"]["action_block"]
    registry.build("cost", config["cost"])
    if planner.horizon % block or not 1 <= config["replan_every"] <= planner.horizon:
        raise InputError(
            f"planner.horizon must be a multiple of model.action_block {block} and at least replan_every, got "
            f"horizon {planner.horizon} and replan_every {config['replan_every']}"
        )


def check_sums(reader: EpisodeReader) -> None:
    """Raise an `InputError` for the first thing that is damaged in a data set."""
    with progress(len(reader), "verify", "episodes") as bar:
        for fault in reader.verify(bar.update):
            raise InputError(f"{fault.text} (`lewm data verify {reader.folder}` lists everything)")


def check_images(reader: EpisodeReader, size: int) -> None:
    """Raise an `InputError` unless a data set holds square images of this size."""
    if "pixels" not in reader.info.columns:
        raise InputError(f"{reader.folder} holds no images (columns {sorted(reader.info.columns)})")
    shape = reader.info.columns["pixels"].shape
    if shape != (size, size, 3):
        raise InputError(
            f"{reader.folder} holds images of shape {shape}, the model takes ({size}, {size}, 3); "
            f"choose model.image_size={shape[0]}, or collect with env.image_size={size}"
        )
