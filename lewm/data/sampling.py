"""Which windows a training step sees: functions of (seed, step) alone, in constant memory."""

from __future__ import annotations

import math
import zlib

import numpy as np

from lewm.data.reader import EpisodeReader
from lewm.types import InputError

ROUNDS = 6


def split_episodes(reader: EpisodeReader, validation: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Positions of (training, validation) episodes, decided by a hash of each id: stable as the set grows.

    Neither side is left empty: the lowest hash is always held out, the highest never. A single episode serves as
    both.
    """
    if not 0 <= validation < 1:
        raise InputError(f"the share held out for validation must be in [0, 1), got {validation}")
    hashes = np.array([zlib.crc32(b"split %d" % i) / 2**32 for i in reader.ids.tolist()])
    held = hashes < validation
    if len(held) == 1:
        return np.zeros(1, int), np.zeros(int(validation > 0), int)
    if validation > 0:  # each side gets at least one: those that are last to leave it as the set grows
        held[np.argmin(hashes)], held[np.argmax(hashes)] = True, False
    return np.flatnonzero(~held), np.flatnonzero(held)


class Shuffle:
    """A random permutation of 0..n-1 that is computed where it is asked for, and stored nowhere.

    A Feistel network over pairs (left, right) with left < a, right < b, a * b >= n, as in format-preserving
    encryption (Black and Rogaway 2002, generalised Feistel and cycle walking): each round adds a hash of one half
    to the other, which can be undone, so that no number comes twice; what lands at n or above goes through once
    more.
    """

    def __init__(self, n: int, seed: int, epoch: int = 0) -> None:
        self._n = n
        self._a = max(1, math.isqrt(max(n - 1, 0)) + 1)
        self._b = max(1, -(-n // self._a))
        self._keys = np.random.SeedSequence([seed, epoch]).generate_state(ROUNDS, np.uint64)

    def __call__(self, places: np.ndarray) -> np.ndarray:
        """The numbers at these places, each in [0, n)."""
        out = self._once(np.asarray(places, np.int64))
        while (again := out >= self._n).any():
            out[again] = self._once(out[again])
        return out

    def _once(self, places: np.ndarray) -> np.ndarray:
        left, right = places // self._b, places % self._b
        for number, key in enumerate(self._keys):
            if number % 2:
                right = (right + _hash(left, key, self._b)) % self._b
            else:
                left = (left + _hash(right, key, self._a)) % self._a
        return left * self._b + right


def _hash(values: np.ndarray, key: np.uint64, below: int) -> np.ndarray:
    """Well-mixed numbers in [0, below): the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    x = values.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + key
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) % np.uint64(below)).astype(np.int64)
