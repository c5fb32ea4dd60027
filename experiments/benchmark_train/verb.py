"""The verb: cells that are measured where the log lacks them, and the page made of the log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from experiments.benchmark_train import page, turns
from experiments.cells import Cell, Rows, complete
from experiments.collect import collect
from experiments.config import compose
from experiments.runs import at_least, exclusive, say
from experiments.workers import peer_python
from lewm.types import InputError

PARTS = ("steps", "sigreg", "frames")
SETUP = Path(__file__).parents[1] / "peers" / "setup_lewm.sh"


def benchmark_train(config: Mapping[str, Any]) -> None:
    """Measure what is asked for and missing; see `configs/benchmark_train.yaml`."""
    _check(config)
    out, run = Path(config["out"]), Path(config["run"])
    with exclusive(out), exclusive(run):
        complete(out / "training.jsonl", _Benchmark(config, run).cells())
        page.write(out)
    say(f"benchmark {out / 'training.md'}")


def _check(config: Mapping[str, Any]) -> None:
    at_least(config, rounds=1, episodes=1, batch_small=2)
    unknown = [name for name in config["parts"] if name not in PARTS]
    if unknown:
        raise InputError(f"parts are {', '.join(PARTS)}; got '{unknown[0]}'")
    if not len(config["sizes"]) == len(config["patches"]) == len(config["batches"]) > 0:
        raise InputError(
            "sizes, patches and batches go together, one of each or more; got "
            f"{config['sizes']}, {config['patches']} and {config['batches']}"
        )
    if any(size % patch for size, patch in zip(config["sizes"], config["patches"], strict=True)):
        raise InputError(f"patches must divide sizes, got {config['patches']} and {config['sizes']}")
    if min(config["batches"]) < 2 or len(config["layers"]) != 2 or min(config["layers"]) < 1:
        raise InputError(f"need batches >= 2 and two layers >= 1, got {config['batches']} and {config['layers']}")
    if not config["seconds"] > 0:
        raise InputError(f"seconds must be above 0, got {config['seconds']}")


class _Benchmark:
    """The cells of a configuration."""

    def __init__(self, config: Mapping[str, Any], run: Path) -> None:
        self._config, self._run, self._beside = config, run, config["peer"] != ""

    def cells(self) -> Iterator[Cell]:
        """What `parts` asks for: steps at each size and number of threads, regularisers, frames per second."""
        c = self._config
        turns_ = {"rounds": c["rounds"], "seconds": c["seconds"]}
        problems = [
            {"size": size, "patch": patch, "batch": batch, "layers": c["layers"]}
            for size, patch, batch in zip(c["sizes"], c["patches"], c["batches"], strict=True)
        ]
        if "steps" in c["parts"]:
            for problem in problems:
                for threads in c["threads"]:
                    given = {**problem, "threads": threads}
                    yield self._cell(f"steps at {problem['size']} pixels, {threads} threads", given, turns.steps)
        if "sigreg" in c["parts"]:
            yield self._cell("regularisers", c["latents"], turns.sigreg)
        if "frames" in c["parts"]:
            given = {**problems[0], "threads": 1}
            more = {"episodes": c["episodes"], "batch_small": c["batch_small"]}
            name = f"frames at {given['size']} pixels"
            measure = partial(self._frames, given, **turns_)
            yield Cell(name, {**given, **more, **turns_, "peer": self._beside}, measure)

    def _cell(self, name: str, problem: Mapping[str, Any], measure: Any) -> Cell:
        asked = {"rounds": self._config["rounds"], "seconds": self._config["seconds"]}
        settings = {**problem, **asked, "peer": self._beside}
        return Cell(name, settings, lambda: measure(problem, self._run, self._peer, **asked))

    def _frames(self, problem: Mapping[str, Any], **asked: Any) -> Rows:
        """On episodes of Two-Room as the demo collects them, but fewer."""
        size, episodes = problem["size"], self._config["episodes"]
        data = self._run / f"data-{size}-{episodes}"
        settings = [f"env.image_size={size}", f"episodes={episodes}", f"out={data}"]
        collect(compose("collect", ["env=two_room", *settings]))
        return turns.frames(problem, data, self._config["batch_small"], self._peer, **asked)

    @cached_property
    def _peer(self) -> Path | None:
        """The peer's Python, set up if need be; None where it is not wanted."""
        return peer_python(Path(self._config["peer"] or self._run / "peer"), SETUP) if self._beside else None
