"""What a model saw in training: latents of recorded episodes, for agents that imitate them or look things up."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from experiments.evaluate.agents import Trained
from experiments.observe import recorded
from experiments.runs import progress
from lewm import checkpoint
from lewm.data import EpisodeReader, split_episodes
from lewm.types import InputError
from planners.observations import each

READ = 256  # frames at a time
VERSION = 1  # raised whenever the same settings make something else


@dataclass(frozen=True)
class Memory:
    """Latents of whole training episodes, and the actions between them.

        frame      0   1   2  ...  n-1 |  0   1  ...      K environment steps apart
        latents    z   z   z        z  |  z   z
        actions    aK  aK  aK       0  |  aK  aK          from each frame to the next

    Attributes:
        z_ND: latents of N frames, one episode after another.
        actions_NKA: raw.
        first_N, last_N: numbers of the first and the last frame of each one's episode.
        origin: says what it was made of; other contents have another.
    """

    z_ND: Tensor
    actions_NKA: Tensor
    first_N: Tensor
    last_N: Tensor
    origin: Mapping[str, Any]

    @property
    def stride(self) -> int:
        """Environment steps K between two frames of an episode."""
        return self.actions_NKA.shape[1]

    @classmethod
    def of(cls, trained: Trained, frames: int) -> Memory:
        """Of randomly chosen training episodes, up to so many frames; kept in the agent's folder.

        Raises:
            InputError: the training data are not there, or are others.
        """
        reader = training_data(trained)
        validation = trained.facts["data"]["validation"]
        origin = {
            "version": VERSION,
            "checkpoint": hashlib.sha256(_weights(trained).read_bytes()).hexdigest()[:16],
            "data": reader.fingerprint,
            "validation": validation,
            "frames": frames,
        }
        path = trained.folder / f"latents-{frames}.safetensors"
        made = kept(path, origin, lambda: _encode(trained, reader, split_episodes(reader, validation)[0], frames))
        return cls(made["z"], made["actions"], made["first"], made["last"], origin)


def kept(path: Path, origin: Mapping[str, Any], make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of a file; made, on one thread, and written first if it does not hold those of this origin.

    Several processes may ask at once: one makes them, the others wait.
    """
    text = json.dumps(origin, sort_keys=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        if (found := _load(path, text)) is not None:
            return found
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # another number rounds differently, and workers have other numbers
        try:
            made = make()
        finally:
            torch.set_num_threads(threads)
        temporary = path.with_name(f".{path.name}.tmp")
        save_file(made, temporary, metadata={"origin": text})
        temporary.replace(path)
        return made


def _load(path: Path, origin: str) -> dict[str, Tensor] | None:
    """None for a file that is not there, is damaged, or is of another origin."""
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("origin") != origin:
                return None
            names = file.keys()  # no mapping: it cannot be walked by itself
            return {name: file.get_tensor(name) for name in names}
    except (FileNotFoundError, SafetensorError):
        return None


def _weights(trained: Trained) -> Path:
    return checkpoint.find(trained.run) / "model.safetensors"


def training_data(trained: Trained) -> EpisodeReader:
    """The very data the model was trained on; an `InputError` where they are not."""
    facts = trained.facts.get("data", {})
    if trained.data is None or not trained.data.exists():
        raise InputError(
            f"agents that learn from the training data of {trained.run} need them, and they are not at "
            f"{trained.data or 'any place its train.json names'}; put them there, or leave these agents out"
        )
    reader = EpisodeReader(trained.data)
    if reader.fingerprint != facts.get("fingerprint") or "validation" not in facts:
        raise InputError(
            f"{trained.data} has fingerprint {reader.fingerprint}, {trained.run} was trained on "
            f"{facts.get('fingerprint')}; agents that learn from the training data need the very same"
        )
    return reader


@torch.no_grad()
def _encode(trained: Trained, reader: EpisodeReader, episodes: np.ndarray, frames: int) -> dict[str, Tensor]:
    columns = trained.model.columns
    stride = int(np.lcm.reduce([reader.info.columns[column].stride for column in columns]))
    order = np.random.default_rng(0).permutation(episodes)
    counts = reader.steps[order] // stride + 1
    chosen = max(1, int(np.searchsorted(np.cumsum(counts), frames, side="right")))
    order, counts = order[:chosen], counts[:chosen]
    ends = np.cumsum(counts)
    first, last = np.repeat(ends - counts, counts), np.repeat(ends - 1, counts)
    episode, step = np.repeat(order, counts), (np.arange(ends[-1]) - first) * stride
    latents = []
    with progress(len(step), "encode", "frames") as bar:
        for part in np.split(np.arange(len(step)), range(READ, len(step), READ)):
            rows = recorded(reader, columns, episode[part], step[part])
            latents.append(trained.model.encode(each(torch.from_numpy, rows)).cpu())
            bar.update(len(part))
    within = np.minimum(step[:, None] + np.arange(stride), reader.steps[episode][:, None] - 1)
    actions = reader.gather("action", np.broadcast_to(episode[:, None], within.shape), within)
    actions[np.arange(len(step)) == last] = 0
    return {
        "z": torch.cat(latents),
        "actions": torch.from_numpy(actions.astype(np.float32)),
        "first": torch.from_numpy(first),
        "last": torch.from_numpy(last),
    }
