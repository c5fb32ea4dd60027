"""`lewm manifest`: draw start/goal pairs and freeze them in a file."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from envs import GoalTask, rollout
from experiments.build import build_task
from experiments.collect.worker import build_policy
from experiments.config import compose
from experiments.frozen import Draw, Manifest
from experiments.origins import check_recorded_world
from experiments.pairs import Pairs, Supply, check_track, drawn, recorded, rule, select
from experiments.presets import presets
from experiments.runs import at_least, progress, say
from lewm import registry
from lewm.data import EpisodeReader, split_episodes
from lewm.types import InputError

ROWS = 50  # episodes rolled out at once; changes no pair
EPISODES = 5000  # after so many too few pairs are an error
APART = 2**62  # added to the seed of episodes made for a manifest: no training set is collected with such a seed
SIMULATORS = ("mujoco", "ogbench")  # whose versions a task's `rendering` says


def manifest(config: Mapping[str, Any]) -> Path:
    """Draw pairs and write them; see `configs/manifest.yaml`.

    Raises:
        InputError: settings that do not fit each other or the task, too few pairs, or a file that holds others.
    """
    at_least(config, pairs=1, offset=1, seed=0)
    check_track(config["track"], config["detours"])
    out, free = Path(config["out"]), config["track"] == "free"
    if not out.name.endswith((".json", ".json.gz")):
        raise InputError(f"out=... is to be a file called .json or .json.gz, got {out}")
    if free and config["data"]:
        raise InputError("track=free draws its pairs from the task and takes no data=...; say track=heldout")
    reader = EpisodeReader(config["data"]) if config["data"] else None
    env = config.get("env") or (reader and reader.info.source.get("env"))
    if not isinstance(env, Mapping):
        raise InputError("env=... must be given: which environment the pairs are for")
    with closing(build_task(env, ROWS)) as task:
        if free:
            supply, origin = drawn(task, config["seed"]), {"source": None, "data": None}
        elif reader:
            check_recorded_world(reader, env)
            supply = recorded(task, reader, _episodes(reader, config), config["offset"], config["seed"])
            origin = {"source": reader.info.source, "data": reader.fingerprint}
        else:
            work = _work(env, config)
            supply, origin = rolled(task, work, config["offset"], config["seed"]), {"source": work, "data": None}
        draws: list[Draw] = []
        noted = replace(supply, draws=_noted(supply.draws, draws, config["pairs"]))
        pairs = select(task, noted, config["pairs"], **rule(config["track"], config["detours"]))
        frozen = _freeze(task, env, config, draws, pairs, origin)
    frozen.write(out)
    say(f"manifest  {_headline(pairs, frozen)} in {out}")
    return out


def rolled(task: GoalTask, work: Mapping[str, Any], offset: int, seed: int) -> Supply:
    """Any state of an episode and that `offset` steps later, one pair from each; episodes without end or pictures.

    Args:
        work: that makes the episodes, `env`, `policy`, `seed`, `steps`, `plugins`, as a data set records it.
    """
    policy, steps = build_policy(work), work["steps"]

    def draws() -> Iterator[Draw]:
        for first in itertools.count(0, task.rows):
            ids = range(first, first + task.rows)
            for episode in rollout(task, policy, ids, seed=work["seed"], steps=steps, frame_stride=None):
                step = int(np.random.default_rng([seed, offset, episode.id, 0x4E1D]).integers(steps - offset + 1))
                states = episode.columns["state"]
                yield Draw(states[step], states[step + offset], (episode.id, step))

    where, advice = f"{offset} steps apart in {EPISODES} episodes", "choose a larger offset, or another policy"
    return Supply(itertools.islice(draws(), EPISODES), where, advice, {})


def _work(env: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """What makes the episodes: env, policy and steps as `lewm collect` has them, and a seed it never has."""
    policy, steps = config.get("policy"), config["steps"]
    if policy is None or steps is None:
        preset = "standard" if "standard" in presets().get(env["name"], ()) else None
        usual = compose("collect", [f"env={env['name']}", f"preset={preset or 'null'}", "out=-"])
        expert = {"name": "expert", **registry.defaults("policy", "expert")}
        policy = policy or (usual["policy"] if preset else expert)
        steps = steps or max(usual["steps"], 2 * config["offset"])
    if steps < config["offset"]:
        raise InputError(f"episodes of steps={steps} have no states offset={config['offset']} steps apart")
    seed = APART + config["seed"]
    return {"env": dict(env), "policy": policy, "seed": seed, "steps": steps, "plugins": config["plugins"]}


def _episodes(reader: EpisodeReader, config: Mapping[str, Any]) -> np.ndarray:
    """Positions of the episodes to take pairs from."""
    if config["validation"] is None:
        return np.arange(len(reader))
    return split_episodes(reader, config["validation"])[1]


def _noted(draws: Iterator[Draw], into: list[Draw], about: int) -> Iterator[Draw]:
    """The draws, each noted when it is asked for, with a progress bar."""
    with progress(about, "manifest", "draws") as bar:
        for draw in draws:
            into.append(draw)
            bar.update()
            yield draw


def _freeze(
    task: GoalTask,
    env: Mapping[str, Any],
    config: Mapping[str, Any],
    draws: list[Draw],
    pairs: Pairs,
    origin: Mapping[str, Any],
) -> Manifest:
    """All draws that it took to get the pairs."""
    starts, goals = np.array([draw.start for draw in draws]), np.array([draw.goal for draw in draws])
    presolved = pairs.presolved + int(pairs.solved.sum())
    return Manifest(
        track=config["track"],
        offset=None if config["track"] == "free" else config["offset"],
        seed=config["seed"],
        env=dict(env),
        task={"version": task.version, **{k: v for k, v in task.rendering.items() if k in SIMULATORS}},
        counts={"pairs": len(pairs), "presolved": presolved, "impossible": pairs.impossible},
        starts=starts,
        goals=goals,
        detour=task.detour(starts, goals),
        solved=task.distance(starts, goals) <= 1,
        episodes=np.array([draw.origin for draw in draws]) if origin["source"] is not None else None,
        **origin,
    )


def _headline(pairs: Pairs, frozen: Manifest) -> str:
    """One line about it."""
    kept, left = ("kept", "left out") if pairs.solved.any() else ("", "left out")
    solved = f"{frozen.counts['presolved']} solved at the start {kept or left}"
    return f"{len(pairs)} pairs, {pairs.detour.sum()} of them detours; {solved}, {pairs.impossible} impossible"
