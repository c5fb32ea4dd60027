"""Start/goal pairs, pre-solved ones removed: the `free` track draws them from the task, half of them `detour`; the
`heldout` track takes them from recorded episodes, the goal some steps after the start."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs import GoalTask
from lewm import registry
from lewm.data import EpisodeReader, split_episodes
from lewm.types import InputError

MAX_DRAWS = 20_000
PICTURES = {"image_size", "quality"}  # settings of an environment that its states do not depend on
REMARKS = {"preset", "plugins", "columns", "action_bounds", "of"}  # in a source: what makes no other episodes


@dataclass(frozen=True)
class Pairs:
    """Frozen evaluation pairs: `starts` and `goals` (n, s), `detour` (n,) bool; and how many were left out.

    Attributes:
        presolved: drawn pairs that were already solved at the start.
        impossible: drawn pairs with a recorded state that the task rules out.
    """

    starts: np.ndarray
    goals: np.ndarray
    detour: np.ndarray
    presolved: int
    impossible: int = 0

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def fingerprint(self) -> str:
        """A hash of the pairs."""
        return hashlib.sha256(self.starts.tobytes() + self.goals.tobytes()).hexdigest()[:16]


def choose_pairs(
    task: GoalTask, env: Mapping[str, Any], config: Mapping[str, Any], trained: Mapping[str, Any]
) -> tuple[Pairs, dict[str, Any]]:
    """The pairs of the chosen track, and what the protocol says about where they come from.

    Args:
        task: with one row; its state is overwritten.
        env: what it was built from.
        config: of the evaluation.
        trained: what the checkpoint says of its data.
    """
    count, seed = config["pairs"], config["pairs_seed"]
    if config["track"] == "free":
        share = config["detours"]
        if not 0 <= share <= 1:
            raise InputError(f"detours is a share of the pairs, 0 to 1, got {share}")
        return draw_pairs(task, count, seed, share), {"track": "free", "detours": share}
    if config["track"] != "heldout":
        raise InputError(f"tracks are free and heldout, got '{config['track']}'")
    if not config["data"]:
        raise InputError(
            "track=heldout takes its pairs from episodes: data=FOLDER, of the training data or another set"
        )
    reader = EpisodeReader(config["data"])
    _check_world(reader, task, env)
    pairs = heldout_pairs(task, reader, unseen(reader, trained), count, config["offset"], seed)
    return pairs, {"track": "heldout", "offset": config["offset"], "pairs_from": reader.fingerprint}


def draw_pairs(task: GoalTask, count: int, seed: int, share: float = 0.5) -> Pairs:
    """Draw `count` unsolved pairs; a share of them `detour`, interleaved, where the task knows detours.

    Args:
        task: with one row; its state is overwritten.
        seed: of the pairs, independent of every training and planning seed.
    """
    rng = np.random.default_rng([seed, 0x9A125])
    kinds: dict[bool, list[tuple[np.ndarray, np.ndarray]]] = {False: [], True: []}
    presolved = 0
    detours, around_wanted = type(task).detour is not GoalTask.detour, int(count * share)
    for draw in range(MAX_DRAWS):
        start = task.sample_state(rng)
        start, goal = start[None], task.sample_goal(rng, start)[None]
        task.reset(start, goal)
        if task.success()[0]:
            presolved += 1
        else:
            kinds[bool(task.detour(start, goal)[0])].append((start[0], goal[0]))
        enough = len(kinds[False]) >= count - around_wanted and len(kinds[True]) >= around_wanted
        if enough or (not kinds[True] and len(kinds[False]) >= count and (draw >= 20 * count or not detours)):
            break
    detour_count = around_wanted if kinds[True] else 0
    plain, around = kinds[False][: count - detour_count], kinds[True][:detour_count]
    if len(plain) + len(around) < count:
        raise InputError(
            f"found only {len(plain) + len(around)} unsolved pairs in {MAX_DRAWS} draws; check the task"
        )
    order = np.argsort(np.r_[np.arange(len(plain)) * 2 + 1, np.arange(len(around)) * 2], kind="stable")
    starts, goals = (np.array([pair[k] for pair in plain + around])[order] for k in (0, 1))
    return Pairs(starts, goals, (np.arange(count) >= len(plain))[order], presolved)


def heldout_pairs(
    task: GoalTask, reader: EpisodeReader, episodes: np.ndarray, count: int, offset: int, seed: int
) -> Pairs:
    """Draw `count` unsolved pairs from recorded states: any state of these episodes, and that `offset` steps later.

    None is drawn twice: fewer places than pairs are an error, not a narrower interval. Pairs with a state that the
    task says is impossible are left out.

    Args:
        episodes: positions in the data set; `unseen` finds those that a model was not trained on.

    Raises:
        InputError: the set does not hold a state of this size at every step, or too few pairs.
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
    rng = np.random.default_rng([seed, offset, 0x4E1D])
    found: list[tuple[np.ndarray, np.ndarray]] = []
    presolved = impossible = 0
    for place in rng.choice(ends[-1], min(MAX_DRAWS, ends[-1]), replace=False):
        if len(found) == count:
            break
        k = np.searchsorted(ends, place, side="right")
        pair = reader.gather("state", np.full(2, episodes[k]), ends[k] - 1 - place + np.array([0, offset]))
        if not task.possible(pair).all():
            impossible += 1
        elif task.distance(pair[:1], pair[1:])[0] <= 1:
            presolved += 1
        else:
            found.append((pair[0], pair[1]))
    if len(found) < count:
        raise InputError(
            f"found only {len(found)} unsolved pairs {offset} steps apart in {reader.folder}, beside {presolved} "
            f"solved at the start and {impossible} with impossible states; ask for fewer pairs, or collect more"
        )
    starts, goals = (np.array([pair[k] for pair in found]) for k in (0, 1))
    return Pairs(starts, goals, task.detour(starts, goals), presolved, impossible)


def unseen(reader: EpisodeReader, trained: Mapping[str, Any]) -> np.ndarray:
    """Positions of episodes that a model was not trained on, as far as the records of both tell.

    An id stands for the same episode whenever the same work is done, more of it or less, with other pictures: of
    such a set only those count that the split by id holds out. A set of other work counts as a whole.

    Args:
        trained: what the checkpoint says of its data: `fingerprint`, `source`, `validation`.

    Raises:
        InputError: there are none, or it cannot be told.
    """
    source, before = reader.info.source, trained.get("source", {})
    very_set = reader.fingerprint == trained.get("fingerprint")
    theirs = [_work(part) for part in _parts(before)]
    if not very_set and not any(_work(part) in theirs for part in _parts(source)):
        return np.arange(len(reader))
    if not very_set and source != before and {"merged", "source"} & (source.keys() | before.keys()):
        raise InputError(
            f"{reader.folder} shares episodes with the training data, under other ids: which of them are held out "
            "cannot be told. Give data=... the training data itself, or a set collected with another seed"
        )
    if "validation" not in trained:
        raise InputError(
            f"{reader.folder} is of the data the model was trained on, and its checkpoint does not record the "
            "share held out (`validation`); give data=... it has not seen, collected with another seed"
        )
    training, held_out = split_episodes(reader, trained["validation"])
    if set(training) >= set(held_out):
        raise InputError(f"the model was trained on all of {reader.folder}; give data=... it has not seen")
    if not very_set and len(held_out) < 2:  # the split holds out one at least, and this one perhaps only here
        raise InputError(f"{reader.folder} has too few episodes that were held out in training; collect more")
    return held_out


def _check_world(reader: EpisodeReader, task: GoalTask, env: Mapping[str, Any]) -> None:
    """Refuse states of an environment with other settings; sets that do not say where they are from may pass."""
    here = _world(env)
    for part in _parts(reader.info.source):
        there = _world(part["env"]) if isinstance(part.get("env"), Mapping) else here
        for key in there | here:
            if there.get(key) != here.get(key):
                raise InputError(
                    f"{reader.folder} does not hold the states of {type(task).__name__} as it is evaluated: its "
                    f"env.{key} is {there.get(key)}, here it is {here.get(key)}; evaluate with the environment of "
                    "the data, or give data=... collected in this one"
                )


def _parts(source: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The sources a set was merged or converted from, or its own."""
    within = source.get("source")  # of an export
    inner = [*source.get("merged", ()), *([within] if isinstance(within, Mapping) else [])]
    return [leaf for part in inner for leaf in _parts(part)] or [source]


def _work(source: Mapping[str, Any]) -> dict[str, Any]:
    """What decides which episode an id stands for; of a set from elsewhere, all that is known."""
    if not isinstance(source.get("env"), Mapping):
        return {key: value for key, value in source.items() if key not in REMARKS}
    return {"env": _world(source["env"]), "policy": source.get("policy"), "seed": source.get("seed")}


def _world(env: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of an environment that its states may depend on, as JSON values."""
    name = env.get("name")
    usual = registry.defaults("env", name) if name in registry.names("env") else {}
    settings = {"name": name, **usual, **env}
    return json.loads(json.dumps({key: value for key, value in settings.items() if key not in PICTURES}))
