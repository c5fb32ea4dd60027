"""Start/goal pairs, pre-solved ones removed: the `free` track draws them from the task, half of them `detour`; the
`heldout` track takes them from recorded episodes, the goal some steps after the start."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from envs import GoalTask
from lewm.data import EpisodeReader
from lewm.types import InputError

MAX_DRAWS = 20_000


@dataclass(frozen=True)
class Pairs:
    """Frozen evaluation pairs: `starts` and `goals` (n, s), `detour` (n,) bool; what was left out, and why.

    `presolved` counts drawn pairs that were already solved at the start.
    """

    starts: np.ndarray
    goals: np.ndarray
    detour: np.ndarray
    presolved: int

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def fingerprint(self) -> str:
        """A hash of the pairs."""
        return hashlib.sha256(self.starts.tobytes() + self.goals.tobytes()).hexdigest()[:16]


def draw_pairs(task: GoalTask, count: int, seed: int) -> Pairs:
    """Draw `count` unsolved pairs; half `detour` and half not, interleaved, where the task knows detours.

    Args:
        task: with one row; its state is overwritten.
        seed: of the pairs, independent of every training and planning seed.
    """
    rng = np.random.default_rng([seed, 0x9A125])
    kinds: dict[bool, list[tuple[np.ndarray, np.ndarray]]] = {False: [], True: []}
    presolved = 0
    detours = type(task).detour is not GoalTask.detour
    for draw in range(MAX_DRAWS):
        start = task.sample_state(rng)
        start, goal = start[None], task.sample_goal(rng, start)[None]
        task.reset(start, goal)
        if task.success()[0]:
            presolved += 1
        else:
            kinds[bool(task.detour(start, goal)[0])].append((start[0], goal[0]))
        enough = len(kinds[False]) >= count - count // 2 and len(kinds[True]) >= count // 2
        if enough or (not kinds[True] and len(kinds[False]) >= count and (draw >= 20 * count or not detours)):
            break
    detour_count = count // 2 if kinds[True] else 0
    plain, around = kinds[False][: count - detour_count], kinds[True][:detour_count]
    if len(plain) + len(around) < count:
        raise InputError(
            f"found only {len(plain) + len(around)} unsolved pairs in {MAX_DRAWS} draws; check the task"
        )
    order = np.argsort(np.r_[np.arange(len(plain)) * 2 + 1, np.arange(len(around)) * 2], kind="stable")
    starts, goals = (np.array([pair[k] for pair in plain + around])[order] for k in (0, 1))
    return Pairs(starts, goals, (np.arange(count) >= len(plain))[order], presolved)


def heldout_pairs(
    task: GoalTask, reader: EpisodeReader, episodes: np.ndarray, count: int, offset: int, seed: int
) -> Pairs:
    """Draw `count` unsolved pairs from recorded states: any state of these episodes, and that `offset` steps later.

    Args:
        task: with one row; its state is overwritten.
        episodes: positions in the data set, none of them trained on.

    Raises:
        InputError: the set holds no states of this task, or too few pairs.
    """
    column = reader.info.columns.get("state")
    if column is None or column.shape != (task.state_dim,) or column.stride != 1:
        raise InputError(
            f"{reader.folder} does not hold the states of {type(task).__name__} at every step (columns "
            f"{sorted(reader.info.columns)}); collect with the same environment settings"
        )
    episodes = episodes[reader.steps[episodes] >= offset]
    if not len(episodes):
        raise InputError(f"{reader.folder} has no held-out episode of {offset} steps; choose a smaller offset")
    rng = np.random.default_rng([seed, offset, 0x4E1D])
    found: list[tuple[np.ndarray, np.ndarray]] = []
    presolved = 0
    for _ in range(MAX_DRAWS):
        if len(found) == count:
            break
        episode = rng.choice(episodes)
        first = rng.integers(0, reader.steps[episode] - offset + 1)
        start, goal = reader.gather("state", np.full(2, episode), first + np.array([0, offset]))
        if task.distance(start[None], goal[None])[0] <= 1:
            presolved += 1
        else:
            found.append((start, goal))
    if len(found) < count:
        raise InputError(f"found only {len(found)} unsolved pairs {offset} steps apart in {reader.folder}")
    starts, goals = (np.array([pair[k] for pair in found]) for k in (0, 1))
    return Pairs(starts, goals, task.detour(starts, goals), presolved)
