"""Workers of an evaluation: each runs its share of the episodes and appends them to a log of its own.

A worker reports to nobody: what it has written to the folder is what the others know of it. At the end all logs
become one, in one order, so that the file is the same whoever ran what.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from experiments import records
from experiments.collect.executors import Died, Executor
from experiments.evaluate.agents import Agent, Trained
from experiments.evaluate.episodes import run_pairs
from experiments.pairs import Pairs
from experiments.runs import say
from lewm import registry
from lewm.types import InputError

LOOK_EVERY = 0.2  # seconds between two looks at what the workers have written
Plan = list[tuple[str, int, range]]
ATTEMPTS = 3  # workers that may die in a row over the same episodes


@dataclass(frozen=True)
class Chunk:
    """Pairs that are run at once, under one agent with one seed."""

    agent: str
    seed: int
    pairs: tuple[int, ...]


@dataclass(frozen=True)
class Setting:
    """What every episode of an evaluation shares: the task and its pairs, and how long an episode is."""

    env: Mapping[str, Any]
    pairs: Pairs
    budget: int


@dataclass(frozen=True)
class Share:
    """The work of one worker: a function of no arguments that loads what it needs, and what to run.

    Attributes:
        load: gives the trained model, in the worker's process.
        specs: settings of the agents, by name.
        folder, writer: it appends to the log of this name there; barren: workers in a row that died over this
            share without finishing a chunk.
    """

    load: Callable[[], Trained]
    specs: Mapping[str, Mapping[str, Any]]
    setting: Setting
    chunks: tuple[Chunk, ...]
    folder: Path
    writer: str
    threads: int
    barren: int = 0

    @property
    def log(self) -> Path:
        """Where it appends."""
        return self.folder / f"episodes-{self.writer}.jsonl"


def chunks(whole: Plan, rows: int, done: Collection[tuple[str, int, int]]) -> list[Chunk]:
    """The part of a plan that is not `done`, by (agent, seed, pair), in its order."""
    found = []
    for name, seed, pairs in whole:
        missing = [pair for pair in pairs if (name, seed, pair) not in done]
        found += [Chunk(name, seed, tuple(missing[k : k + rows])) for k in range(0, len(missing), rows)]
    return found


def plan(agents: Mapping[str, Agent], seeds: Sequence[int], count: int) -> Plan:
    """Which pairs each agent runs with each seed: agents, then seeds."""
    return [
        (name, seed, range(count if agent.pairs is None else min(count, agent.pairs)))
        for name, agent in agents.items()
        for seed in (seeds if agent.seeded else seeds[:1])
    ]


def run(
    missing: Sequence[Chunk],
    agents: Mapping[str, Agent],
    setting: Setting,
    log: Path,
    moved: Callable[[int], Any] = lambda episodes: None,
    finished: Callable[[], Any] = lambda: None,
) -> None:
    """Run chunks in this process, and append each to the log when it is done.

    Args:
        moved: called with episodes' worth of steps; finished: called after each chunk.
    """
    for chunk in missing:
        where = (setting.env, setting.pairs, chunk.pairs, chunk.agent, agents[chunk.agent])
        records.append(log, run_pairs(*where, seed=chunk.seed, budget=setting.budget, tick=moved))
        finished()


def work(share: Share) -> None:
    """What a worker does."""
    torch.set_num_threads(share.threads)
    trained = share.load()
    agents = {name: registry.build("agent", spec, trained=trained) for name, spec in share.specs.items()}
    records.repair(share.log)
    run(share.chunks, agents, share.setting, share.log)


def run_elsewhere(executor: Executor, shares: Sequence[Share], tick: Callable[[], Any]) -> None:
    """Have workers run their shares; one that dies is replaced by another that does what is left.

    Raises:
        InputError: workers die again and again over the same episodes; what is written stays.
    """
    running = {executor.start(work, share): share for share in shares}
    try:
        while running:
            for handle in executor.wait(list(running), LOOK_EVERY):
                share = running.pop(handle)
                try:
                    executor.result(handle)
                except Died as death:
                    left = _what_is_left(share, str(death), executor)
                    if left.chunks:
                        running[executor.start(work, left)] = left
            tick()
    finally:
        for handle in running:
            executor.stop(handle)


def _what_is_left(share: Share, how: str, executor: Executor) -> Share:
    done = {line.key for line in records.read(share.log)}
    left = []
    for chunk in share.chunks:
        pairs = tuple(pair for pair in chunk.pairs if (chunk.agent, chunk.seed, pair) not in done)
        left += [replace(chunk, pairs=pairs)] if pairs else []
    barren = 0 if len(left) < len(share.chunks) else share.barren + 1
    if barren == ATTEMPTS:
        raise InputError(
            f"{ATTEMPTS} evaluating processes in a row died over the same episodes; the last one {how} (out of "
            "memory?). What is done is kept: run the same command again to go on, with fewer rows or workers"
        )
    if left:
        say(f"          worker {share.writer} {how}; what is left of its work is done by a new one")
    return replace(share, chunks=tuple(left), barren=barren, writer=executor.successor(share.writer))
