"""`lewm VERB ...`: one console script. Hydra behind collect, train, evaluate and demo; plain options elsewhere."""

from __future__ import annotations

import argparse
import errno
import importlib
import sys
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

from lewm.types import InputError, nearest

PACKAGES = ("lewm", "envs", "planners", "configs", "experiments")
VERBS = {
    "collect": "record episodes into a data set",
    "train": "train a world model from a data set",
    "evaluate": "score a model by planning, beside the random and greedy floors",
    "demo": "all of it on Two-Room, from nothing to a report",
    "report": "write the HTML report of a run",
}
USAGE = f"""lewm: latent world models from pixels, and planning with them.

  lewm VERB [key=value ...]

{chr(10).join(f"  {verb:<10}{text}" for verb, text in VERBS.items())}

  lewm VERB --help tells a verb's settings. A first run, start to end:

  lewm collect env=two_room episodes=2000 out=data/two-room
  lewm train data=data/two-room out=runs/two-room
  lewm evaluate run=runs/two-room
  lewm report runs/two-room
"""
QUIET_HYDRA = [
    "hydra.run.dir=.",
    "hydra.sweep.dir=.",
    "hydra.sweep.subdir=.",
    "hydra.output_subdir=null",
    "hydra/job_logging=disabled",
    "hydra/hydra_logging=disabled",
]


def main() -> None:
    """Entry point. Errors of the user's making are one line on stderr and exit code 2."""
    try:
        _check_packages()
        verb, arguments = (sys.argv[1:2] or ["--help"])[0], sys.argv[2:]
        if verb in ("-h", "--help", "help"):
            print(USAGE)
        elif verb == "report":
            _report(arguments)
        elif verb in VERBS:
            _hydra_verb(verb, arguments)
        else:
            raise InputError(f"unknown verb '{verb}': {nearest(verb, list(VERBS))} (lewm --help)")
    except Exception as error:
        message = _users_fault(error)
        if message is None:
            raise
        _fail(message)
    except KeyboardInterrupt:
        print("\nstopped; the same command continues where this one left off", file=sys.stderr)
        sys.exit(130)


def _hydra_verb(verb: str, arguments: list[str]) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from experiments.build import store_groups
    from lewm.registry import load_plugins

    overrides = [a for a in arguments if not a.startswith("-") and ("=" in a or a.startswith("~"))]
    load_plugins(_plugins(overrides))
    store_groups()
    if "--help" in arguments or "-h" in arguments:
        print(_help(verb))
        return
    parsed = OverridesParser.create().parse_overrides(overrides)
    _check_overrides(verb, [text for text, o in zip(overrides, parsed, strict=True) if not o.is_sweep_override()])

    import hydra
    from omegaconf import DictConfig, OmegaConf

    run: Callable[[Mapping[str, Any]], Any] = getattr(importlib.import_module(f"experiments.{verb}"), verb)

    @hydra.main(config_path="pkg://configs", config_name=verb, version_base="1.3")
    def job(config: DictConfig) -> None:
        try:
            missing = sorted(OmegaConf.missing_keys(config))
            if missing:
                raise InputError(f"{missing[0]}=... must be given (lewm {verb} --help)")
            run(OmegaConf.to_container(config, resolve=True))
        except Exception as error:
            message = _users_fault(error)
            if message is None:
                raise
            _fail(message)

    sys.argv[1:] = [*arguments, *QUIET_HYDRA]
    program, sys.argv[0] = sys.argv[0], f"lewm {verb}"
    try:
        job()
    finally:
        sys.argv[0] = program


def _report(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser("lewm report", description="Write report.html, self-contained, into each run.")
    parser.add_argument("runs", nargs="+", help="folders that `lewm evaluate` or `lewm demo` filled")
    from experiments.report import report

    for run in parser.parse_args(arguments).runs:
        report(run)


def _check_overrides(verb: str, overrides: list[str]) -> None:
    """Compose once, so that a wrong key or name becomes one line that offers the nearest."""
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    known = [o for o in overrides if not o.lstrip("+~").startswith("hydra")]
    with initialize_config_module("configs", version_base="1.3"):
        try:
            compose(verb, overrides=known)
        except (HydraException, OmegaConfBaseException) as error:
            keys = _keys(OmegaConf.to_container(compose(verb, overrides=_groups_only(known)), resolve=False))
            raise InputError(_explain(str(error), known, keys)) from None
        finally:
            GlobalHydra.instance().clear()


def _explain(text: str, overrides: list[str], keys: list[str]) -> str:
    """Turn Hydra's report on a bad override into one line."""
    from experiments.build import GROUPS, MODELS
    from lewm import registry

    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        group = key.partition("@")[0].removeprefix("/")
        for verb in ("collect.", "train.", "evaluate."):
            group = group.removeprefix(verb)
        options = MODELS if group == "model" else registry.names(GROUPS[group]) if group in GROUPS else None
        if options is not None and value not in [*options, "null"]:
            return f"unknown {group} '{value}': {nearest(value, options)}"
        if options is None and key not in keys:
            return f"unknown setting '{key}': {nearest(key, keys)}"
    return " ".join(text.split())


def _groups_only(overrides: list[str]) -> list[str]:
    """The overrides that choose a known option of a group, so that its settings appear among the keys."""
    from experiments.build import GROUPS, MODELS
    from lewm import registry

    chosen = []
    for override in overrides:
        key, _, value = override.partition("=")
        if (key == "model" and value in MODELS) or (key in GROUPS and value in registry.names(GROUPS[key])):
            chosen.append(override)
    return chosen


def _keys(config: Any, prefix: str = "") -> list[str]:
    if not isinstance(config, dict):
        return []
    found = []
    for key, value in config.items():
        found += [f"{prefix}{key}", *_keys(value, f"{prefix}{key}.")]
    return found


def _plugins(overrides: list[str]) -> list[str]:
    given = [o.partition("=")[2] for o in overrides if o.partition("=")[0] == "plugins"]
    return [name.strip() for name in given[-1].strip("[]").split(",") if name.strip()] if given else []


def _help(verb: str) -> str:
    from experiments.build import GROUPS, MODELS
    from lewm import registry

    text = resources.files("configs").joinpath(f"{verb}.yaml").read_text()
    lines = [f"lewm {verb}: {VERBS[verb]}", "", text.rstrip(), "", "Choices, each with settings of its own:", ""]
    options = {group: registry.names(kind) for group, kind in GROUPS.items()} | {"model": MODELS}
    used = [group for group in sorted(options) if verb == "demo" or f"- {group.partition('/')[0]}:" in text]
    lines += [f"  {group}={' | '.join(options[group])}" for group in used]
    lines += [
        "",
        f"lewm {verb} --cfg job      print the whole configuration of a call instead of running it",
        f"lewm {verb} -m seed=0,1    one run after another (Hydra multirun)",
    ]
    return "\n".join(lines)


def _users_fault(error: Exception) -> str | None:
    """The message of an error the user can mend; None for a defect of ours."""
    from planners.types import InputError as PlannerInputError
    from planners.types import PlannerFailure

    if isinstance(error, InputError | PlannerInputError | PlannerFailure):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left on the device ({error.filename or 'output folder'}): free some and run the same again"
    if isinstance(error, PermissionError | FileExistsError | NotADirectoryError | IsADirectoryError):
        return f"{error.strerror}: {error.filename}"
    return None


def _fail(message: str) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def _check_packages() -> None:
    """Our package names are not ours alone: refuse to run with somebody else's."""
    for name in PACKAGES:
        module = importlib.import_module(name)
        if not getattr(module, "__lewm__", False):
            raise InputError(
                f"package '{name}' at {getattr(module, '__file__', '?')} is not ours: another distribution of "
                "that name is installed; give lewm an environment of its own"
            )


if __name__ == "__main__":
    main()
