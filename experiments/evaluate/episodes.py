"""Episodes of an evaluation: what becomes of a pair depends on agent and seed, and on nothing that ran beside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from envs import GoalTask
from experiments.build import build_task
from experiments.evaluate.agents import Agent, Planning, Trained
from experiments.pairs import Pairs
from experiments.records import EpisodeRecord
from planners import MPC


def row_seed(seed: int, pair: int) -> int:
    """The seed of a pair's row, from the seed of the evaluation."""
    return int(np.random.SeedSequence([seed, pair]).generate_state(1)[0])


def run_pairs(
    env: Mapping[str, Any],
    pairs: Pairs,
    rows: Sequence[int],
    name: str,
    agent: Agent,
    *,
    seed: int,
    budget: int,
    tick: Callable[[int], Any] = lambda count: None,
) -> list[EpisodeRecord]:
    """Run some pairs for the whole budget under one agent.

    Args:
        rows: indices into the pairs, run at once.
        name: of the agent, for the records.
        seed: of the evaluation; each pair has its own that follows from it.
        tick: called with the number of episodes' worth of steps done since the last call.
    """
    rows = list(rows)
    with closing(build_task(env, len(rows))) as task:
        task.reset(pairs.starts[rows], pairs.goals[rows])
        act = agent.begin(task, [row_seed(seed, pair) for pair in rows], budget)
        states, successes = [task.get_state()], []
        for t in range(budget):
            task.step(act(t))
            states.append(task.get_state())
            successes.append(task.success())
            tick(len(rows) * (t + 1) // budget - len(rows) * t // budget)
    path, reached = np.stack(states, axis=1), np.stack(successes, axis=1)
    return [
        EpisodeRecord(
            policy=name,
            pair=pair,
            detour=bool(pairs.detour[pair]),
            start=pairs.starts[pair].tolist(),
            goal=pairs.goals[pair].tolist(),
            success_final=bool(reached[k, -1]),
            success_ever=bool(reached[k].any()),
            first_success=int(reached[k].argmax()) + 1 if reached[k].any() else None,
            states=path[k].tolist(),
            seed=seed,
            presolved=bool(pairs.solved[pair]),
        )
        for k, pair in enumerate(rows)
    ]


class Timed(Planning):
    """The model behind its planner, with a clock: milliseconds and model evaluations of every decision."""

    def __init__(self, trained: Trained) -> None:
        super().__init__(trained)
        self.plan_ms: list[float] = []
        self.evaluations: list[int] = []

    def decided(self, t: int, task: GoalTask, agent: MPC, seconds: float) -> None:
        """See `Planning`."""
        self.plan_ms.append(1e3 * seconds)
        self.evaluations.append(agent.last_plan.evaluations)


def time_decisions(
    trained: Trained, pairs: Pairs, batched: Mapping[int, EpisodeRecord], *, count: int, seed: int, budget: int
) -> dict[str, Any]:
    """Time single decisions by running some pairs alone, and hold their outcomes against the batched ones.

    Raises:
        RuntimeError: a pair ended differently alone than in its batch.
    """
    timed = Timed(trained)
    for pair in range(min(count, len(pairs))):
        (alone,) = run_pairs(trained.env, pairs, [pair], "model", timed, seed=seed, budget=budget)
        if alone != batched[pair]:
            raise RuntimeError(
                f"pair {pair} ended differently alone than in its batch: that was run on another machine (evaluate "
                "into another out=...), or row independence is broken"
            )
    return {
        "plan_ms_p50": round(float(np.percentile(timed.plan_ms, 50)), 2),
        "plan_ms_p95": round(float(np.percentile(timed.plan_ms, 95)), 2),
        "decisions_timed": len(timed.plan_ms),
        "model_evaluations_per_decision": float(np.mean(timed.evaluations)),
    }
