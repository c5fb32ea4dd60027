"""Where recorded states come from: of which world, by which work, and whether a model was trained on them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from lewm import registry
from lewm.data import EpisodeReader, split_episodes
from lewm.types import InputError

PICTURES = {"image_size", "quality"}  # settings of an environment that its states do not depend on
LOOKS = {"target", "agent_color", "wall_color", "floor_color", "block_color", "background_color"}  # nor on these of
JUDGEMENT = {"tolerance", "difficulty"}  # our own tasks; what these change is which states count as a goal reached
REMARKS = {"preset", "plugins", "columns", "action_bounds", "of"}  # in a source: what makes no other episodes
COMPANY = np.arange(10_000)  # ids


def world(env: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of an environment that its states may depend on, as JSON values."""
    name, usual, silent = env.get("name"), {}, PICTURES
    if name in registry.names("env"):
        usual = registry.defaults("env", name)
        ours = registry.get("env", name).__module__.startswith("envs.")
        silent = PICTURES | LOOKS | JUDGEMENT if ours else PICTURES
    settings = {"name": name, **usual, **env}
    return json.loads(json.dumps({key: value for key, value in settings.items() if key not in silent}))


def judgement(env: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an environment that decide when a goal is reached."""
    usual = registry.defaults("env", env["name"])
    return {key: value for key, value in {**usual, **env}.items() if key in JUDGEMENT}


def check_world(here: Mapping[str, Any], there: Mapping[str, Any], holder: str, remedy: str) -> None:
    """Refuse states of an environment with other settings.

    Args:
        here: settings of the task in use; there: those of the states.
        holder: what holds the states; remedy: what to do about it.
    """
    ours, theirs = world(here), world(there)
    for key in theirs | ours:
        if theirs.get(key) != ours.get(key):
            raise InputError(
                f"{holder} does not hold the states of {here['name']} as it is evaluated: its env.{key} is "
                f"{theirs.get(key)}, here it is {ours.get(key)}; {remedy}"
            )


def check_recorded_world(reader: EpisodeReader, env: Mapping[str, Any]) -> None:
    """`check_world` for a data set; one that does not say where it is from may pass."""
    remedy = "evaluate with the environment of the data, or give data=... collected in this one"
    for part in _parts(reader.info.source):
        if isinstance(part.get("env"), Mapping):
            check_world(env, part["env"], str(reader.folder), remedy)


def unseen(reader: EpisodeReader, trained: Mapping[str, Any]) -> np.ndarray:
    """Positions of episodes that a model was not trained on, as far as the records of both tell.

    An id stands for the same episode whenever the same work is done, more of it or less, with other pictures: of
    such a set only those count that the split by id holds out. A set of other work counts as a whole.

    Args:
        trained: what the checkpoint says of its data: `fingerprint`, `source`, `validation`.

    Raises:
        InputError: there are none, or it cannot be told.
    """
    if not _shares_episodes(reader.info.source, reader.fingerprint, trained, str(reader.folder)):
        return np.arange(len(reader))
    training, held_out = split_episodes(reader, trained["validation"])
    if set(training) >= set(held_out):
        raise InputError(f"the model was trained on all of {reader.folder}; give data=... it has not seen")
    very_set = reader.fingerprint == trained.get("fingerprint")
    if not very_set and len(held_out) < 2:  # the split holds out one at least, and this one perhaps only here
        raise InputError(f"{reader.folder} has too few episodes that were held out in training; collect more")
    return held_out


def check_unseen(
    source: Mapping[str, Any], fingerprint: str | None, ids: np.ndarray, trained: Mapping[str, Any], holder: str
) -> None:
    """Refuse states of episodes that a model was trained on, or perhaps was.

    Args:
        source: of the episodes, as a data set records it; fingerprint: of that set, if there is one.
        ids: of the episodes in question.
        trained: what the checkpoint says of its data.
        holder: what holds the states.
    """
    if not _shares_episodes(source, fingerprint, trained, holder):
        return
    # in company: the split always holds out the lowest hash of a set, which in training was that of another episode
    known = SimpleNamespace(ids=np.union1d(ids, COMPANY))
    held_out = known.ids[split_episodes(known, trained["validation"])[1]]
    if len(seen := np.setdiff1d(ids, held_out)):
        raise InputError(
            f"{holder} holds states of {len(seen)} episodes that the model was trained on, number {seen[0]} among "
            "them; evaluate on a manifest of other episodes"
        )


def _shares_episodes(
    source: Mapping[str, Any], fingerprint: str | None, trained: Mapping[str, Any], holder: str
) -> bool:
    """Whether an id stands for the same episode in both; an error where it may, but cannot be told."""
    before = trained.get("source", {})
    very_set = fingerprint is not None and fingerprint == trained.get("fingerprint")
    theirs = [_work(part) for part in _parts(before)]
    if not very_set and not any(_work(part) in theirs for part in _parts(source)):
        return False
    if not very_set and source != before and {"merged", "source"} & (source.keys() | before.keys()):
        raise InputError(
            f"{holder} shares episodes with the training data, under other ids: which of them are held out "
            "cannot be told. Give data=... the training data itself, or a set collected with another seed"
        )
    if "validation" not in trained:
        raise InputError(
            f"{holder} is of the data the model was trained on, and its checkpoint does not record the "
            "share held out (`validation`); give data=... it has not seen, collected with another seed"
        )
    return True


def _parts(source: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The sources a set was merged or converted from, or its own."""
    within = source.get("source")  # of an export
    inner = [*source.get("merged", ()), *([within] if isinstance(within, Mapping) else [])]
    return [leaf for part in inner for leaf in _parts(part)] or [source]


def _work(source: Mapping[str, Any]) -> dict[str, Any]:
    """What decides which episode an id stands for; of a set from elsewhere, all that is known."""
    if not isinstance(source.get("env"), Mapping):
        return {key: value for key, value in source.items() if key not in REMARKS}
    return {"env": world(source["env"]), "policy": source.get("policy"), "seed": source.get("seed")}
