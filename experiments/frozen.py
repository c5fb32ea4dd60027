"""A manifest: pairs as they were drawn, frozen in a small JSON file that says where they are from.

The file lists *all* draws, those that are solved at the start or impossible, too, so that every track, tolerance
and share of detours finds in it what drawing anew would give. Numbers are written as the shortest text that reads
back as the same float64. `fingerprint` is a hash of everything else in the file.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from envs import GoalTask
from experiments.origins import check_unseen, check_world, judgement
from lewm.types import InputError

FORMAT = 1
ROOT = resources.files("configs").joinpath("manifests")
RECORDED = ("heldout", "paper")  # tracks whose pairs are states of one episode


@dataclass(frozen=True)
class Draw:
    """A start and a goal (s,); and, where they were recorded, the episode's id and the start's step."""

    start: np.ndarray
    goal: np.ndarray
    origin: tuple[int, int] | None = None


@dataclass(frozen=True)
class Manifest:
    """What a file holds.

    Attributes:
        track, offset, seed: that it was made for; no offset for `free`.
        env: settings of the task; task: its version, and those of its simulator.
        source: of the episodes, as a data set records it; data: that set's fingerprint. None: there are none.
        counts: `pairs` asked for, and what was left out to get them, `presolved` and `impossible`.
        starts, goals: (m, s), in the order of drawing; detour, solved: (m,) bool, in this task.
        episodes: (m, 2), id and step of each start, or None.
        name: of the file.
    """

    track: str
    offset: int | None
    seed: int
    env: Mapping[str, Any]
    task: Mapping[str, Any]
    source: Mapping[str, Any] | None
    data: str | None
    counts: Mapping[str, int]
    starts: np.ndarray
    goals: np.ndarray
    detour: np.ndarray
    solved: np.ndarray
    episodes: np.ndarray | None
    name: str = "a manifest"

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def draws(self) -> list[Draw]:
        """All of them, in order."""
        origins = [None] * len(self) if self.episodes is None else map(tuple, self.episodes.tolist())
        return [Draw(*one) for one in zip(self.starts, self.goals, origins, strict=True)]

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all that the file says."""
        return _hash(self._content())

    def write(self, path: Path) -> None:
        """Write the file, compressed if it is called `.gz`: the same bytes for the same manifest.

        Raises:
            InputError: it is there already and holds something else.
        """
        text = json.dumps({**self._content(), "fingerprint": self.fingerprint}, separators=(",", ":")) + "\n"
        packed = gzip.compress(text.encode(), mtime=0) if path.suffix == ".gz" else text.encode()
        if path.exists() and path.read_bytes() != packed:
            raise InputError(
                f"{path} holds another manifest or something else: choose another out=..., or delete it"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_bytes(packed)
        temporary.replace(path)

    @classmethod
    def read(cls, path: Any, name: str | None = None) -> Manifest:
        """Read a file; one that is damaged, or was edited, is an `InputError`.

        Args:
            path: anything with `read_bytes` and a `name`.
        """
        name = name or path.name
        try:
            content = json.loads(_unpack(path.read_bytes(), path.name))
            if (said := content.pop("fingerprint")) != (found := _hash(content)):
                raise ValueError(f"its fingerprint should be {found}, not {said}")
            if (version := content.pop("format")) != FORMAT:
                raise ValueError(f"its format is {version}")
            states = {key: np.array(content.pop(key), np.float64) for key in ("starts", "goals")}
            flags = {key: np.array(content.pop(key), bool) for key in ("detour", "solved")}
            episodes = content.pop("episodes")
            episodes = None if episodes is None else np.array(episodes, np.int64)
            return cls(**content, **states, **flags, episodes=episodes, name=name)
        except FileNotFoundError:
            raise InputError(f"there is no manifest {path}; `lewm manifest` makes one") from None
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise InputError(
                f"{name} is no manifest of format {FORMAT}, or is damaged or edited ({error}); make it again with "
                "`lewm manifest`"
            ) from None

    def check(self, task: GoalTask, env: Mapping[str, Any], trained: Mapping[str, Any]) -> None:
        """Refuse pairs of another world, and of episodes that a model was trained on.

        Args:
            task: in which they are to be run; env: what it was built from.
            trained: what the model's checkpoint says of its data.
        """
        remedy = f"make one for this environment with `lewm manifest env={env['name']} ...`"
        check_world(env, self.env, self.name, remedy)
        if self.task["version"] != task.version or self.starts.shape[1] != task.state_dim:
            raise InputError(
                f"{self.name} is of {env['name']} version {self.task['version']} with states of length "
                f"{self.starts.shape[1]}, here it is version {task.version} with {task.state_dim}; {remedy}"
            )
        solved, detour = task.distance(self.starts, self.goals) <= 1, task.detour(self.starts, self.goals)
        if not np.array_equal(detour, self.detour) or (
            judgement(env) == judgement(self.env) and not np.array_equal(solved, self.solved)
        ):
            raise InputError(
                f"{self.name} and {env['name']} disagree about which pairs are solved or a `detour`; {remedy}"
            )
        if self.source is not None:
            check_unseen(self.source, self.data, np.unique(self.episodes[:, 0]), trained, self.name)

    def check_track(self, track: str, offset: int) -> None:
        """Refuse to serve another track or offset; `heldout` and `paper` are two views of one list."""
        if track != self.track and not {track, self.track} <= {*RECORDED}:
            raise InputError(f"{self.name} is of track {self.track}: say track={self.track}, not {track}")
        if self.offset not in (None, offset):
            raise InputError(f"pairs of {self.name} are {self.offset} steps apart: say offset={self.offset}")

    def _content(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "track": self.track,
            "offset": self.offset,
            "seed": self.seed,
            "env": self.env,
            "task": self.task,
            "source": self.source,
            "data": self.data,
            "counts": self.counts,
            "starts": self.starts.tolist(),
            "goals": self.goals.tolist(),
            "detour": self.detour.astype(int).tolist(),
            "solved": self.solved.astype(int).tolist(),
            "episodes": None if self.episodes is None else self.episodes.tolist(),
        }


def shipped(name: str, track: str, offset: int, seed: int) -> Manifest | None:
    """The manifest that is shipped for an environment's name, in its usual world; None if there is none."""
    kind = "free" if track == "free" else f"heldout-{offset}"
    path = ROOT.joinpath(name, f"{kind}-{seed}.json.gz")
    return Manifest.read(path, f"{name}/{kind}-{seed}") if path.is_file() else None


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _unpack(data: bytes, name: str) -> bytes:
    """What a file of this name holds."""
    try:
        return gzip.decompress(data) if name.endswith(".gz") else data
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(error) from None
