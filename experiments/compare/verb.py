"""The command line of `lewm compare`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from experiments.compare.comparison import Comparison, compare
from experiments.compare.words import describe, verdict
from experiments.runs import say, write_json
from lewm.types import InputError

EPILOG = """A and B are folders that `lewm evaluate` filled. Several training runs of one thing make one side:
folders joined by commas, or a glob in quotes. `:NAME` behind a side picks an agent other than `model`.
Compared are the pairs that both have run, and only evaluations under the same conditions.

examples:
  lewm compare runs/new runs/old                      two models
  lewm compare 'runs/new-*' 'runs/old-*'              two recipes, with several training seeds each
  lewm compare runs/new runs/new:oracle_latent        a model, and the true simulator in its place
  lewm compare runs/new runs/new:random --rule ever   a model and the random floor, success at any step
  lewm compare runs/a,runs/b runs/c --margin 5 --json comparison.json

how to read it:
  A - B            paired difference in points; the interval is a bootstrap over pairs, and over training
                   runs where there are several
  only A, only B   pairs on which one side had more success; the others say nothing about a difference
  p                McNemar's exact test, one run each; else '-', and the interval decides
  no less success  the one-sided 95 % bound of A - B is above minus the margin
  pairs to decide  for a test at 5 % with 80 % power, were the true difference the one seen"""


def run(arguments: Sequence[str]) -> Comparison:
    """Compare, print, and write JSON if asked to."""
    options = _parser().parse_args(arguments or ["--help"])
    if len(options.sides) != 2:
        raise InputError(
            f"compare takes two sides, A and B, got {len(options.sides)}: join the folders of a side with commas, "
            "or put a glob in quotes (lewm compare --help)"
        )
    plugins = [name for name in options.plugins.split(",") if name]
    chosen = {"rule": options.rule, "detour": options.detour, "margin": options.margin}
    found = compare(*options.sides, **chosen, plugins=plugins)
    say(describe(found))
    if options.json is not None:
        write_json(options.json, asdict(found) | {"verdicts": [verdict(found, c) for c in found.contrasts]})
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "lewm compare",
        description="Compare two evaluations pair by pair: which is better, or what it would take to tell.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sides", nargs="+", metavar="A B", help="folders, joined by commas, or a glob; then :AGENT")
    text = "final, ever, or another success rule of the task (default: final and ever)"
    parser.add_argument("--rule", metavar="NAME", help=text)
    parser.add_argument("--detour", action="store_true", help="look at the detour pairs alone")
    parser.add_argument("--margin", type=float, default=3, metavar="POINTS", help="of 'no less success' (3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers, too")
    parser.add_argument("--plugins", default="", help="packages with the task, separated by commas")
    return parser
