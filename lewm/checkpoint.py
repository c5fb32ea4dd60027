"""Save and load a model: a folder of safetensors and JSON that is sufficient by itself and cannot run code.

<checkpoint>/
  model.safetensors   all weights and normalisers
  config.json         architecture, by registered names
  meta.json           action spec, recommendation, and where the model came from
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialise

from lewm.models import WorldModel, WorldModelConfig
from lewm.registry import load_plugins
from lewm.types import ActionSpec, InputError

FORMAT, VERSION = "lewm-checkpoint", 1
FILES = {"model.safetensors", "config.json", "meta.json"}


def save(model: WorldModel, folder: Path | str, provenance: Mapping[str, Any] | None = None) -> None:
    """Write a checkpoint as a whole; an older one at the same place is replaced, anything else is refused.

    Args:
        provenance: JSON facts about training (data fingerprint, steps, versions, plugins needed).
    """
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and {path.name for path in folder.iterdir()} <= FILES):
        raise InputError(
            f"{folder} exists and is not a checkpoint; save to a folder of its own, {folder}/checkpoint say"
        )
    spec = {name: value.tolist() for name, value in vars(model.action_spec).items()}
    meta = {"action_spec": spec, "recommendation": model.recommendation, "provenance": dict(provenance or {})}
    config = {"format": FORMAT, "version": VERSION, "model": asdict(model.config)}
    contents = {
        "config.json": json.dumps(config, indent=1).encode(),
        "meta.json": json.dumps(meta, indent=1).encode(),
        "model.safetensors": serialise({name: t.contiguous() for name, t in model.state_dict().items()}),
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".checkpoint-", dir=folder.parent))
    try:
        for name, content in contents.items():
            with (temporary / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        temporary.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def load(path: Path | str, *, device: str = "cpu", plugins: Iterable[str] = ()) -> WorldModel:
    """Load a model in evaluation mode from a checkpoint folder, or from a run folder that holds one.

    Args:
        plugins: installed packages whose registered parts the checkpoint needs; only you can name them.

    Raises:
        InputError: no checkpoint there, a damaged file, a missing or unknown tensor, an unknown part.
    """
    folder = find(path)
    load_plugins(plugins)
    config, meta = _read(folder / "config.json"), _read(folder / "meta.json")
    if config.get("format") != FORMAT or config.get("version") != VERSION:
        raise InputError(
            f"{folder}/config.json is {config.get('format')} version {config.get('version')}, "
            f"this lewm reads {FORMAT} version {VERSION}"
        )
    try:
        model_config = WorldModelConfig(**config["model"])
        spec = ActionSpec(**meta["action_spec"])
        recommendation = meta["recommendation"]
    except (KeyError, TypeError) as error:
        raise InputError(f"{folder} does not describe a model this lewm knows: {error}") from None
    try:
        model = WorldModel(model_config, spec)
    except (InputError, TypeError, ValueError, AttributeError) as error:
        needs = [p for p in meta.get("provenance", {}).get("plugins", []) if p not in plugins]
        hint = f"; it was trained with plugins {needs}: pass plugins={needs}" if needs else ""
        raise InputError(f"{folder}: {error}{hint}") from None
    _fill(model, folder / "model.safetensors")
    model.recommendation = recommendation
    return model.to(device).eval()


def find(path: Path | str) -> Path:
    """The checkpoint folder at `path/checkpoint`, or at `path`."""
    for folder in (Path(path) / "checkpoint", Path(path)):
        if (folder / "meta.json").exists():
            return folder
    raise InputError(
        f"no checkpoint at {path} (no meta.json there or in {Path(path) / 'checkpoint'}); train one first"
    )


def provenance(path: Path | str) -> dict[str, Any]:
    """Where a checkpoint came from: the facts given to `save`."""
    return _read(find(path) / "meta.json")["provenance"]


def _fill(model: WorldModel, path: Path) -> None:
    try:
        tensors = load_file(path)
    except (FileNotFoundError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read ({error}); restore it or train again") from None
    wanted = model.state_dict()
    missing, unknown = sorted(set(wanted) - set(tensors)), sorted(set(tensors) - set(wanted))
    if missing or unknown:
        raise InputError(f"{path} does not fit its config: missing tensors {missing[:3]}, unknown {unknown[:3]}")
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise InputError(
                f"{path}: '{name}' has shape {tuple(tensor.shape)}, expected {tuple(wanted[name].shape)}"
            )
    with torch.no_grad():
        model.load_state_dict(tensors)


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path} is missing; restore it or train again") from None
    except ValueError as error:  # JSON or UTF-8
        raise InputError(f"{path} is damaged: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} is damaged: expected a JSON object, got {type(value).__name__}")
    return value
