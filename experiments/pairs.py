"""Start/goal pairs of an evaluation: the task's own (`free`), or states some steps apart (`heldout`, `paper`).

Pairs are drawn one after another, and what is drawn does not depend on how many are wanted: a shorter list is the
beginning of a longer one, and a manifest (`frozen.py`) is a beginning that was written down.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from envs import GoalTask
from experiments.frozen import Draw, Manifest, shipped
from experiments.origins import check_recorded_world, unseen, world
from lewm.data import EpisodeReader
from lewm.types import InputError

MAX_DRAWS = 20_000
TRACKS = ("free", "heldout", "paper")


@dataclass(frozen=True)
class Pairs:
    """Frozen evaluation pairs: `starts` and `goals` (n, s), `detour` (n,) bool; and how many were left out.

    Attributes:
        presolved: drawn pairs that were left out as they are solved at the start.
        impossible: drawn pairs with a recorded state that the task rules out.
        solved: (n,) bool, pairs that are solved at the start and were not left out: in the `paper` track.
    """

    starts: np.ndarray
    goals: np.ndarray
    detour: np.ndarray
    presolved: int
    impossible: int = 0
    solved: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.solved is None:
            object.__setattr__(self, "solved", np.zeros(len(self.starts), bool))

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def fingerprint(self) -> str:
        """A hash of the pairs."""
        return hashlib.sha256(self.starts.tobytes() + self.goals.tobytes()).hexdigest()[:16]


@dataclass(frozen=True)
class Supply:
    """Draws to select pairs from, and in words where they are from and what to do if they are too few.

    Attributes:
        about: what the protocol says of them.
    """

    draws: Iterable[Draw]
    where: str
    advice: str
    about: Mapping[str, Any]


def choose_pairs(
    task: GoalTask, env: Mapping[str, Any], config: Mapping[str, Any], trained: Mapping[str, Any]
) -> tuple[Pairs, dict[str, Any]]:
    """The pairs of the chosen track, and what the protocol says about where they come from.

    Args:
        task: it is only asked; env: what it was built from.
        config: of the evaluation.
        trained: what the checkpoint says of its data.
    """
    track, offset, share = config["track"], config["offset"], config["detours"]
    check_track(track, share)
    supply = _supply(task, env, config, trained)
    pairs = select(task, supply, config["pairs"], **rule(track, share))
    about = {"detours": share} if track == "free" else {"offset": offset}
    return pairs, {"track": track, **about, **supply.about}


def check_track(track: str, share: float) -> None:
    """Raise an `InputError` for a track that does not exist, and a share of detours that is none."""
    if track not in TRACKS:
        raise InputError(f"tracks are {', '.join(TRACKS)}, got '{track}'")
    if not 0 <= share <= 1:
        raise InputError(f"detours is a share of the pairs, 0 to 1, got {share}")


def rule(track: str, share: float) -> dict[str, Any]:
    """Which draws a track takes, for `select`."""
    return {"share": share if track == "free" else None, "solved_too": track == "paper"}


def _supply(
    task: GoalTask, env: Mapping[str, Any], config: Mapping[str, Any], trained: Mapping[str, Any]
) -> Supply:
    """The manifest that is given; else the data that are given; else the manifest shipped for this world.

    Only `free` can do without. Its shipped manifests are what drawing gives, and where they end drawing goes on.
    """
    track, offset, seed = config["track"], config["offset"], config["pairs_seed"]
    if config["data"] and (track == "free" or config.get("manifest")):
        raise InputError("data=... is for track=heldout or paper without a manifest; leave it out")
    if config.get("manifest"):
        given = Manifest.read(Path(config["manifest"]))
        if seed not in (0, given.seed):
            raise InputError(f"{given.name} holds its own pairs, of seed {given.seed}; leave pairs_seed=... out")
        given.check_track(track, offset)
        given.check(task, env, trained)
        return _frozen(given)
    if config["data"] and track != "free":
        reader = EpisodeReader(config["data"])
        check_recorded_world(reader, env)
        return recorded(task, reader, unseen(reader, trained), offset, seed)
    found = shipped(env["name"], track, offset, seed)
    if track == "free":
        if found is None or world(found.env) != world(env):
            return drawn(task, seed)
        found.check(task, env, trained)
        rest = itertools.islice(drawn(task, seed).draws, len(found), None)
        return replace(_frozen(found), draws=itertools.chain(found.draws, rest))
    if found is None:
        raise InputError(
            f"no manifest is shipped for {env['name']} with offset={offset} and pairs_seed={seed}: make one with "
            f"`lewm manifest env={env['name']} track={track} offset={offset} seed={seed} out=pairs.json.gz`, and "
            "evaluate with manifest=pairs.json.gz; or take the pairs from episodes, data=FOLDER"
        )
    found.check(task, env, trained)
    return _frozen(found)


def _frozen(manifest: Manifest) -> Supply:
    """The draws of a manifest."""
    about = {"manifest": manifest.name, "pairs_from": manifest.fingerprint}
    return Supply(
        manifest.draws, f"in {manifest.name}", "ask for fewer, or make a longer one with `lewm manifest`", about
    )


def drawn(task: GoalTask, seed: int) -> Supply:
    """Starts and goals as the task draws them."""

    def draws() -> Iterator[Draw]:
        rng = np.random.default_rng([seed, 0x9A125])
        for _ in range(MAX_DRAWS):
            start = task.sample_state(rng)
            yield Draw(start, task.sample_goal(rng, start))

    return Supply(draws(), f"in {MAX_DRAWS} draws", "check the task", {"manifest": None})


def recorded(task: GoalTask, reader: EpisodeReader, episodes: np.ndarray, offset: int, seed: int) -> Supply:
    """Any recorded state of some episodes, and that `offset` steps later; no place is drawn twice.

    Args:
        episodes: positions in the data set; `unseen` finds those that a model was not trained on.

    Raises:
        InputError: the set does not hold a state of this size at every step, or no episode is long enough.
    """
    column = reader.info.columns.get("state")
    if column is None or column.shape != (task.state_dim,) or column.stride != 1:
        raise InputError(
            f"{reader.folder} does not hold the states of {type(task).__name__} at every step (columns "
            f"{sorted(reader.info.columns)}); collect with the same environment settings"
        )
    ends = np.cumsum(np.maximum(reader.steps[episodes] - offset + 1, 0))  # of the places to start from, in a row
    if not ends.any():
        raise InputError(f"{reader.folder} has no held-out episode of {offset} steps; choose a smaller offset")

    def draws() -> Iterator[Draw]:
        rng = np.random.default_rng([seed, offset, 0x4E1D])
        for place in rng.choice(ends[-1], min(MAX_DRAWS, ends[-1]), replace=False):
            k = np.searchsorted(ends, place, side="right")
            step = ends[k] - 1 - place
            start, goal = reader.gather("state", np.full(2, episodes[k]), step + np.array([0, offset]))
            yield Draw(start, goal, (int(reader.ids[episodes[k]]), int(step)))

    advice, about = "ask for fewer pairs, or collect more", {"manifest": None, "pairs_from": reader.fingerprint}
    return Supply(draws(), f"{offset} steps apart in {reader.folder}", advice, about)


def select(
    task: GoalTask, supply: Supply, count: int, *, share: float | None = None, solved_too: bool = False
) -> Pairs:
    """The first `count` draws that make a pair: possible, and not solved at the start.

    Args:
        share: of `detour` pairs, spread evenly over the list; the others are without a detour. Where the task does
            not know detours, or none turns up in many draws, all are. None takes them as they come.
        solved_too: take pairs that are solved at the start, too, and flag them.

    Raises:
        InputError: there are too few.
    """
    share = None if type(task).detour is GoalTask.detour else share
    turns = np.diff(np.ceil(np.round(np.arange(count + 1) * (share or 0), 9))) > 0  # (n,) which are to be detours
    around, found = int(turns.sum()), ([], [])  # those to be detours in a list of their own
    presolved = impossible = 0
    for number, draw in enumerate(supply.draws):
        start, goal = draw.start[None], draw.goal[None]
        solved, detour = bool(task.distance(start, goal)[0] <= 1), bool(task.detour(start, goal)[0])
        if not task.possible(np.concatenate([start, goal])).all():
            impossible += 1
        elif solved and not solved_too:
            presolved += 1
        else:
            found[detour and share is not None].append((draw.start, draw.goal, detour, solved))
        enough = len(found[0]) >= count - around and len(found[1]) >= around
        if enough or (not found[1] and len(found[0]) >= count and number >= 20 * count):
            break
    if not found[1] and len(found[0]) >= count:
        turns[:], around = False, 0
    if (usable := min(len(found[0]), count - around) + min(len(found[1]), around)) < count:
        kind = "" if solved_too else "unsolved "
        raise InputError(
            f"found only {usable} {kind}pairs {supply.where}, beside {presolved} solved at the start and "
            f"{impossible} with impossible states; {supply.advice}"
        )
    rest = [iter(kind) for kind in found]
    starts, goals, detours, flags = zip(*(next(rest[turn]) for turn in turns.astype(int)), strict=True)
    return Pairs(np.array(starts), np.array(goals), np.array(detours), presolved, impossible, np.array(flags))


def draw_pairs(task: GoalTask, count: int, seed: int, share: float = 0.5) -> Pairs:
    """Draw `count` unsolved pairs; a share of them `detour`, interleaved, where the task knows detours.

    Args:
        seed: of the pairs, independent of every training and planning seed.
    """
    return select(task, drawn(task, seed), count, share=share)


def heldout_pairs(
    task: GoalTask, reader: EpisodeReader, episodes: np.ndarray, count: int, offset: int, seed: int
) -> Pairs:
    """Draw `count` unsolved pairs from recorded states; see `recorded` and `select`."""
    return select(task, recorded(task, reader, episodes, offset, seed), count)
