"""`lewm VERB ...`: one console script. Hydra behind all verbs but import, report, data and doctor."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

from lewm.types import InputError, nearest

PACKAGES = ("lewm", "envs", "planners", "configs", "experiments")
VERBS = {
    "collect": "record episodes into a data set",
    "train": "train a world model from a data set",
    "manifest": "freeze start/goal pairs in a file, for evaluations to share",
    "evaluate": "score a model by planning, beside the random and greedy floors",
    "compare": "hold two evaluations against each other, pair by pair: lewm compare runs/a runs/b",
    "demo": "all of it on Two-Room, from nothing to a report",
    "report": "write one HTML page about a run, or several side by side",
    "diagnose": "look into a model: health, probes, imagination, surprise",
    "audit": "say why planning fails: for the model, for the cost, or for the search",
    "pretrain": "pretrain an encoder on pictures, without actions (LeJEPA)",
    "import": "make a run of published LeWM weights: lewm import weights.pt runs/pusht",
    "data": "look at, check, convert, merge and view data sets: lewm data info data/two-room",
    "doctor": "say what works on this machine, how fast, and what to install for the rest",
    "ablation": "compare objectives and predictors: train, plan, diagnose, one line per cell",
    "benchmark": "measure a part beside its peers and limits: lewm benchmark planner",
}
BENCHMARKS = {
    "planner": "measure the planners beside stable-worldmodel, deadlines and compute",
    "data": "measure the episode store beside stable-worldmodel's, MP4 and its own limits",
    "train": "measure training steps, SIGReg and the CPU default beside stable-worldmodel",
    "envs": "measure the tasks beside stable-worldmodel's: stepping, drawing, collecting",
}
USAGE = f"""lewm: latent world models from pixels, and planning with them.

  lewm VERB [key=value ...]

{chr(10).join(f"  {verb:<10}{text}" for verb, text in VERBS.items())}

`lewm VERB --help` tells a verb's settings. A first run, start to end:

  lewm collect env=two_room episodes=2000 out=data/two-room
  lewm train data=data/two-room out=runs/two-room
  lewm evaluate run=runs/two-room
  lewm report runs/two-room
"""
QUIET_HYDRA = [
    "hydra.run.dir=.",
    "hydra.sweep.subdir=.",
    "hydra.output_subdir=null",
    "hydra/job_logging=disabled",
    "hydra/hydra_logging=disabled",
]


def main() -> None:
    """Entry point. What the user can mend is one line on stderr and exit code 2."""
    try:
        _check_packages()
        verb, arguments = (sys.argv[1:2] or ["--help"])[0], sys.argv[2:]
        if verb in ("-h", "--help", "help"):
            print(USAGE)
        elif verb == "report":
            _report(arguments)
        elif verb == "compare":
            _compare(arguments)
        elif verb == "import":
            _import(arguments)
        elif verb == "data":
            sys.exit(_data(arguments))
        elif verb == "doctor":
            sys.exit(_doctor(arguments))
        elif verb == "benchmark":
            _benchmark(arguments)
        elif verb in VERBS:
            _hydra_verb(verb, VERBS[verb], arguments)
        else:
            raise InputError(f"unknown verb '{verb}': {nearest(verb, list(VERBS))} (lewm --help)")
    except BrokenPipeError:  # `lewm data info ... | head`: nobody is listening any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        _fail(error)
    except KeyboardInterrupt:
        print("\nstopped; the same command continues where this one left off", file=sys.stderr)
        sys.exit(130)


def _benchmark(arguments: list[str]) -> None:
    what = (arguments[:1] or ["--help"])[0]
    if what in ("-h", "--help"):
        listed = "\n".join(f"  lewm benchmark {name} [key=value ...]   {text}" for name, text in BENCHMARKS.items())
        print(f"{listed}\n\n`lewm benchmark {next(iter(BENCHMARKS))} --help` tells its settings.")
    elif what in BENCHMARKS:
        _hydra_verb(f"benchmark_{what}", BENCHMARKS[what], arguments[1:])
    else:
        raise InputError(f"unknown benchmark '{what}': {nearest(what, list(BENCHMARKS))} (lewm benchmark --help)")


def _hydra_verb(verb: str, what: str, arguments: list[str]) -> None:
    from experiments import config
    from lewm.registry import load_plugins

    overrides = [a for a in arguments if a.startswith("~") or ("=" in a and not a.startswith("-"))]
    load_plugins(config.plugins_of(overrides))
    config.store_groups()
    if "--help" in arguments or "-h" in arguments:
        print(config.help_text(verb, what))
        return
    stray = [
        a for a in arguments if a not in overrides and not a.startswith("-") and a not in ("job", "all", "hydra")
    ]
    if stray:
        raise InputError(
            f"'{stray[0]}' is not key=value; did you mean out={stray[0]}? (lewm {config.spoken(verb)} --help)"
        )
    typed, overrides = overrides, config.with_preset(verb, overrides)
    config.check(verb, [o for o in overrides if not o.startswith("hydra")])

    import hydra
    from omegaconf import DictConfig

    run: Callable[[Mapping[str, Any]], Any] = getattr(importlib.import_module(f"experiments.{verb}"), verb)

    @hydra.main(config_path="pkg://configs", config_name=verb, version_base="1.3")
    def job(composed: DictConfig) -> None:
        try:
            run(config.resolve(verb, composed))
        except Exception as error:  # Hydra would print its own account and exit with 1
            _fail(error)

    flags = [a for a in arguments if a not in typed]  # argparse wants the overrides in one piece
    original = sys.argv
    with tempfile.TemporaryDirectory() as scratch:  # where Hydra keeps its account of a multirun
        sys.argv = [f"lewm {config.spoken(verb)}", *flags, *QUIET_HYDRA, f"hydra.sweep.dir={scratch}", *overrides]
        try:
            job()
        finally:
            sys.argv = original


def _report(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "lewm report", description="Write one HTML page, self-contained, about a run or about several side by side."
    )
    parser.add_argument("runs", nargs="+", help="folders that `lewm evaluate` or `lewm demo` filled")
    parser.add_argument(
        "--out", help="the page; by default report.html in the run's folder, of several runs ./comparison.html"
    )
    parser.add_argument("--plugins", default="", help="packages the runs need, separated by commas")
    options = parser.parse_args(arguments)
    from experiments.report import report

    report(options.runs, [name for name in options.plugins.split(",") if name], options.out)


def _compare(arguments: list[str]) -> None:
    from experiments.compare.verb import run

    run(arguments)


def _import(arguments: list[str]) -> None:
    from experiments.import_weights import import_weights

    import_weights(arguments)


def _data(arguments: list[str]) -> int:
    from experiments.data import data

    return data(arguments)


def _doctor(arguments: list[str]) -> int:
    from experiments.doctor import doctor

    return doctor(arguments)


def _fail(error: Exception) -> None:
    """Exit with code 2 and one line if the user can mend it; a defect of ours keeps its traceback."""
    message = _users_fault(error)
    if message is None:
        raise error
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def _users_fault(error: Exception) -> str | None:
    from planners import InputError as PlannerInputError
    from planners import PlannerFailure

    if isinstance(error, InputError | PlannerInputError | PlannerFailure):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"no space left on the device ({error.filename or 'output folder'}): free some and run the same again"
        )
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.strerror}: {error.filename}"
    return None


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
