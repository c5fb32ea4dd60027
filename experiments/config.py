"""Configuration: Hydra's groups come from the registry, and Hydra's errors become one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import envs
import experiments.build
import experiments.evaluate
import experiments.simulator
import lewm.data.views
import lewm.objectives
import lewm.training
from experiments.collect import executors
from experiments.presets import expand, presets
from experiments.runs import PLACES
from lewm import registry
from lewm.models import SIZES
from lewm.types import InputError, nearest

# Registered by being imported.
PARTS = (
    envs,
    experiments.build,
    experiments.evaluate.agents,
    experiments.simulator,
    executors,
    lewm.data.views,
    lewm.objectives,
    lewm.training,
)

KINDS = {  # Hydra group -> kind in the registry
    "env": "env",
    "policy": "policy",
    "model/encoder": "encoder",
    "model/predictor": "predictor",
    "objective": "objective",
    "objective/prediction": "prediction",
    "objective/regulariser": "regulariser",
    "objective/regulariser/statistic": "statistic",
    "objective/regulariser/directions": "directions",
    "objective/regulariser/target": "target",
    "trainer": "trainer",
    "views": "views",
    "planner": "planner",
    "cost": "cost",
    "executor": "executor",
}


def spoken(verb: str) -> str:
    """A verb as it is typed: `benchmark_planner` is `benchmark planner`."""
    return verb.replace("_", " ")


def groups() -> dict[str, list[str]]:
    """Hydra group -> what can be chosen."""
    return {"model": sorted(SIZES)} | {group: registry.names(kind) for group, kind in KINDS.items()}


def choices(verb: str) -> dict[str, str]:
    """What can be chosen in a verb: the key on the command line -> its group."""
    if verb == "demo":
        parts = [(part, group) for part in ("collect", "train") for group in choices(part).values()]
        return {f"{group}@{part}.{group.replace('/', '.')}": group for part, group in parts}
    text = _yaml(verb)
    return {group: group for group in groups() if f"- {group.partition('/')[0]}:" in text}


def store_groups() -> None:
    """Offer every registered part as a Hydra option with all its settings, plug-ins included."""
    store = ConfigStore.instance()
    for group, kind in KINDS.items():
        for name in registry.names(kind):
            store.store(name=name, group=group, node=_node(group, name, registry.defaults(kind, name)))
    for name, size in SIZES.items():
        node = asdict(size)
        del node["heads"], node["sensors"]  # the objective says which; they come from the data
        store.store(name=name, group="model", node=_node("model", None, node))


def _node(group: str, name: str | None, settings: dict[str, Any]) -> dict[str, Any]:
    """A Hydra option: settings that are parts with a group of their own can be chosen and set one by one."""
    chosen = []
    for key in [key for key, value in settings.items() if f"{group}/{key}" in KINDS and value]:
        part = settings.pop(key)
        chosen.append({key: part if isinstance(part, str) else part["name"]})
        own = {} if isinstance(part, str) else {k: v for k, v in part.items() if k != "name"}
        settings |= {key: own} if own else {}
    node = settings if name is None else {"name": name, **settings}
    return {"defaults": [*chosen, "_self_"], **node} if chosen else node


def plugins_of(overrides: Sequence[str]) -> list[str]:
    """The packages that `plugins=[a,b]` names; they must be imported before anything can be composed."""
    given = [o.partition("=")[2] for o in overrides if o.partition("=")[0] == "plugins"]
    return [name.strip() for name in given[-1].strip("[]").split(",") if name.strip()] if given else []


def with_preset(verb: str, overrides: Sequence[str]) -> list[str]:
    """Overrides, with the settings of the preset they name in front of them."""
    scopes = {"collect": "", "demo": "collect."}
    if verb not in scopes:
        return list(overrides)
    (env,) = (default["env"] for default in OmegaConf.create(_yaml("collect")).defaults if "env" in default)
    return expand(overrides, choices(verb), env, scopes[verb])


def compose(verb: str, overrides: Sequence[str]) -> dict[str, Any]:
    """The configuration of a verb as plain data.

    Raises:
        InputError: an unknown key or name (with the nearest valid one), or a setting that must be given.
    """
    registry.load_plugins(plugins_of(overrides))
    store_groups()
    overrides = with_preset(verb, overrides)
    checked = check(verb, overrides)
    swept = any(_is_sweep(override) for override in overrides)  # Hydra says what is wrong with that
    return resolve(verb, _compose(verb, overrides) if swept else checked)


def resolve(verb: str, config: DictConfig) -> dict[str, Any]:
    """A composed configuration as plain data; what must be given and is not is an `InputError`."""
    missing = _missing(OmegaConf.to_container(config, resolve=False))
    if missing:
        raise InputError(f"{missing[0]}=... must be given (lewm {spoken(verb)} --help)")
    try:
        plain = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise InputError(str(error)) from None
    return plain | {key: str(plain[key]) for key in ("out", "run", "data") if plain.get(key) is not None}


def check(verb: str, overrides: Sequence[str]) -> DictConfig:
    """Raise an `InputError` for overrides that Hydra would reject; sweeps (`seed=0,1`) are left to Hydra.

    Returns:
        the configuration, but for the sweeps.
    """
    single = [override for override in overrides if not _is_sweep(override)]
    options = choices(verb)
    chosen = []
    for override in single:
        key, _, value = override.lstrip("+").partition("=")
        if key in options:
            known = groups()[options[key]]
            if value not in [*known, "null"]:
                raise InputError(f"unknown {options[key]} '{value}': {nearest(value, known)}")
            chosen.append(override)
        elif key in groups() or "@" in key:
            raise InputError(f"lewm {spoken(verb)} has no choice '{key}'; it has: {', '.join(sorted(options))}")
    defaults = OmegaConf.to_container(_compose(verb, chosen), resolve=False)
    for override in single:
        _check_key(verb, override, _keys(defaults), options)
    composed = _compose(verb, single)
    _check_types(defaults, OmegaConf.to_container(composed, resolve=False))
    return composed


def help_text(verb: str, what: str) -> str:
    """A verb's settings (its commented YAML file) and what can be chosen for each group."""
    listed = [f"  {key}={' | '.join(groups()[group])}" for key, group in sorted(choices(verb).items())]
    name = f"lewm {spoken(verb)}"
    if "\npreset:" in _yaml(verb):
        listed += ["\nPresets:\n"]
        listed += [f"  env={env} preset={' | '.join(names)}" for env, names in presets().items()]
    chosen = ["Choices; each has settings of its own (--cfg job shows them):\n", *listed, ""] if listed else []
    return "\n".join(
        [
            f"{name}: {what}\n\n{_yaml(verb).rstrip()}\n",
            *chosen,
            f"{name} ... --cfg job    print the whole configuration of a call instead of running it",
            f"{name} ... -m seed=0,1  one run after another (Hydra multirun)" if "\nseed:" in _yaml(verb) else "",
        ]
    )


def _yaml(verb: str) -> str:
    return resources.files("configs").joinpath(f"{verb}.yaml").read_text(encoding="utf-8")


def _compose(verb: str, overrides: Sequence[str]) -> DictConfig:
    hydra = GlobalHydra.instance()
    outer, hydra.hydra = hydra.hydra, None  # a verb that calls others composes inside Hydra's own run
    try:
        with initialize_config_module("configs", version_base="1.3"):
            return hydra_compose(verb, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(" ".join(str(error).split())) from None
    finally:
        hydra.hydra = outer


def _check_key(verb: str, override: str, known: list[str], options: Mapping[str, str]) -> None:
    key = override.lstrip("+~").partition("=")[0]
    if key in known or key in options:
        return
    parent, _, leaf = key.rpartition(".")
    siblings = [k.rpartition(".")[2] for k in known if k.rpartition(".")[0] == parent]
    hint = nearest(leaf, siblings) if siblings else f"nothing is chosen for '{parent}'; choose {parent}=... first"
    raise InputError(f"unknown setting '{key}' of lewm {spoken(verb)}: {hint}")


def _is_sweep(override: str) -> bool:
    try:
        return OverridesParser.create().parse_override(override).is_sweep_override()
    except HydraException as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"cannot read the setting {override} ({reason}); quote special characters") from None


def _check_types(default: Any, given: Any, key: str = "") -> None:
    """A setting must be of its default's type; an integer also serves as a number. A default of null is open."""
    if isinstance(default, dict) and isinstance(given, dict):
        for name in default.keys() & given.keys():
            _check_types(default[name], given[name], f"{key}.{name}" if key else name)
    elif isinstance(default, list) and isinstance(given, list):
        for element in given if default else []:
            if isinstance(element, dict) and "name" in element:
                continue  # a part with its settings, where a bare name would do
            _check_types(default[0], element, key)
    elif default is not None:
        place = isinstance(default, str) and isinstance(given, int | float) and key.rpartition(".")[2] in PLACES
        number = isinstance(default, float) and isinstance(given, int) and not isinstance(given, bool)
        reference = isinstance(default, str) and default.startswith("${")
        part = isinstance(default, str) and isinstance(given, dict) and "name" in given  # with settings of its own
        chooses = given == "auto" and key.rpartition(".")[2] == "workers"
        if not (
            type(given) is type(default) or number or place or part or chooses or (reference and given is not None)
        ):
            kind = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false"}
            expected = kind.get(type(default).__name__, f"like {default}")
            raise InputError(f"setting '{key}' must be {expected}, got '{given}'")


def _missing(config: Mapping[str, Any]) -> list[str]:
    """Keys whose value must be given; OmegaConf's own list ends in an error where another value refers to one."""
    found = [key for key, value in config.items() if value == "???"]
    for key, value in config.items():
        found += [f"{key}.{name}" for name in (_missing(value) if isinstance(value, dict) else ())]
    return sorted(found)


def _keys(config: Any, prefix: str = "") -> list[str]:
    if not isinstance(config, dict):
        return []
    found = []
    for key, value in config.items():
        found += [f"{prefix}{key}", *_keys(value, f"{prefix}{key}.")]
    return found
