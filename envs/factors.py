"""Factors of variation: what about a task's looks or physics may differ from episode to episode.

A varied factor is part of the *state*, in the columns after the task's own: an episode keeps its values, a goal
shares those of its start, and an image or a step is still a function of the state alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from lewm.types import InputError, nearest

TRIES = 1000  # draws of what varies until they make a world
CONTRAST = 60  # least difference between colours where some are drawn, in their most telling channel


@dataclass(frozen=True)
class Factor:
    """One factor: its usual value and the range it is drawn from, uniformly, when it varies.

    `value`, `low` and `high` are numbers, or triples for a colour (red, green, blue in 0..255).
    """

    value: float | Sequence[float]
    low: float | Sequence[float]
    high: float | Sequence[float]

    @property
    def size(self) -> int:
        """Numbers it takes."""
        return int(np.size(self.value))


class Factors:
    """The factors of one task, those of `vary` drawn anew for every episode.

    Args:
        known: name -> factor, with the values this task was made with.
        vary: names of those that vary; their values are the last `size` columns of a state, in this order.
    """

    def __init__(self, known: Mapping[str, Factor], vary: Sequence[str] = ()) -> None:
        for name in vary:
            if name not in known:
                raise InputError(f"unknown factor '{name}' in vary: {nearest(name, list(known))}")
        if len(set(vary)) < len(vary):
            raise InputError(f"vary names a factor twice: {list(vary)}")
        self.known, self.vary = dict(known), tuple(vary)
        self.size = sum(known[name].size for name in vary)
        self._usual = {name: np.reshape(factor.value, (1, -1)).astype(float) for name, factor in known.items()}
        for values in self._usual.values():
            values.setflags(write=False)  # handed out again and again

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Values (size,) of what varies; draws nothing where nothing does."""
        drawn = [np.ravel(rng.uniform(self.known[name].low, self.known[name].high)) for name in self.vary]
        return np.concatenate(drawn) if drawn else np.zeros(0)

    def of(self, states: np.ndarray) -> dict[str, np.ndarray]:
        """Every factor's values in `states` (B, s): (B, k) where it varies, else (1, k)."""
        values = dict(self._usual)
        column = states.shape[1] - self.size
        for name in self.vary:
            values[name] = states[:, column : column + self.known[name].size]
            column += self.known[name].size
        return values

    def fits(self, states: np.ndarray) -> np.ndarray:
        """Whether what varies lies within its range in `states` (B, s): bool (B,)."""
        values, known = self.of(states), self.known
        within = [(values[name] >= known[name].low) & (values[name] <= known[name].high) for name in self.vary]
        return np.concatenate([np.ones((len(states), 1), bool), *within], axis=1).all(1)

    def distinct(self, states: np.ndarray, *names: str) -> np.ndarray:
        """Whether the colours of these names can be told from each other in `states` (B, s): bool (B,)."""
        values = self.of(states)
        apart = [np.abs(values[a] - values[b]).max(1) >= CONTRAST for a, b in combinations(names, 2)]
        return np.all(np.broadcast_arrays(np.ones(len(states), bool), *apart), axis=0)

    def facts(self, state: np.ndarray) -> dict[str, list[float]]:
        """What varies, by name, as JSON facts about the episode that `state` (s,) belongs to."""
        values = self.of(state[None])
        return {name: values[name][0].tolist() for name in self.vary}


def check_colours(*colours: Sequence[float]) -> None:
    """Anything that is no colour is an error."""
    if not all(np.shape(colour) == (3,) and 0 <= min(colour) <= max(colour) <= 255 for colour in colours):
        raise InputError(f"a colour is red, green and blue in 0..255, got {colours}")
