"""Presets: settings of a good data set for an environment, `configs/presets/<env>/<name>.yaml`.

A preset becomes settings as if they had been typed; what the user types himself wins. A policy of his own replaces
the preset's with all its settings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

from omegaconf import OmegaConf

from lewm.types import InputError, nearest

ROOT = resources.files("configs").joinpath("presets")


def presets() -> dict[str, list[str]]:
    """Environment -> names of its presets."""
    found = {env.name: sorted(file.name.removesuffix(".yaml") for file in env.iterdir()) for env in ROOT.iterdir()}
    return dict(sorted(found.items()))


def expand(overrides: Sequence[str], groups: Mapping[str, str], env: str, scope: str) -> list[str]:
    """Overrides with those of the preset they name in front.

    Args:
        groups: what can be chosen: the key on the command line -> its group.
        env: the environment, where the overrides choose none.
        scope: what stands before the settings of the collection: nothing, or `collect.` in a demo.

    Raises:
        InputError: a preset that is not there, with those that are.
    """
    given = dict(override.lstrip("+~").partition("=")[::2] for override in overrides)
    name = given.get(f"{scope}preset", "null")
    if name == "null":
        return list(overrides)
    chosen = {group: option for option, group in groups.items() if option in (group, f"{group}@{scope}{group}")}
    settings = _read(given.get(chosen["env"], env), name)
    own = []
    for group, option in chosen.items():
        if group != "env" and option in given:
            settings.pop(group, None)
        elif "name" in settings.get(group, {}):
            own.append(f"{option}={settings[group].pop('name')}")
    own += [f"{scope}{key}={_text(value)}" for key, value in _flat(settings) if f"{scope}{key}" not in given]
    return [*own, *overrides]


def _read(env: str, name: str) -> dict[str, Any]:
    known = presets()
    if "," in env + name:
        raise InputError("a preset goes with one environment at a time; run one after the other")
    if env not in known:
        listed = "; ".join(f"{env}: {', '.join(names)}" for env, names in known.items())
        raise InputError(f"env '{env}' has no presets; there are {listed}")
    if name not in known[env]:
        raise InputError(f"env '{env}' has no preset '{name}': {nearest(name, known[env])}")
    text = ROOT.joinpath(env, f"{name}.yaml").read_text(encoding="utf-8")
    return OmegaConf.to_container(OmegaConf.create(text))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _text(value: Any) -> str:
    """A value in Hydra's grammar, which is that of JSON but for the keys of dictionaries."""
    if isinstance(value, list):
        return "[" + ",".join(map(_text, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_text(inner)}" for key, inner in value.items()) + "}"
    return json.dumps(value)
