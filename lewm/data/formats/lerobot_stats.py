"""Statistics as LeRobot keeps them: per episode in meta/episodes, over the set in stats.json.

Keys and shapes as in lerobot 0.4 to 0.6, compute_stats.py: min, max, mean, std, count and five quantiles of
each feature; images per channel, of shape (3, 1, 1) and divided by 255. Where LeRobot samples frames of an episode,
these are of all. Over the set, quantiles are the episodes' own, weighted by their lengths, as LeRobot's are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
LEVELS = np.arange(256) / 255


def of_feature(rows: np.ndarray) -> dict[str, Any]:
    """Statistics of one feature of one episode, as nested lists of floats; images are uint8 (N, h, w, C)."""
    if rows.dtype == np.uint8 and rows.ndim == 4:
        channels = [_of_levels(np.bincount(rows[..., c].reshape(-1), minlength=256)) for c in range(rows.shape[3])]
        channels = channels * (3 // len(channels))  # grey is written as three equal channels
        found = {key: [[[channel[key]]] for channel in channels] for key in channels[0]}
    else:
        values = rows.reshape(len(rows), -1).astype(np.float64)
        found = {"min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0)}
        found |= dict(zip(QUANTILES, np.quantile(values, list(QUANTILES.values()), axis=0), strict=True))
        found = {key: value.tolist() for key, value in found.items()}
    return {**found, "count": [len(rows)]}


def flat(stats: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """`{feature: {statistic: value}}` as `{"stats/feature/statistic": value}`."""
    return {f"stats/{key}/{name}": value for key, found in stats.items() for name, value in found.items()}


def _of_levels(counts: np.ndarray) -> dict[str, float]:
    """Statistics of a channel from how often each of the 256 levels occurs; levels are divided by 255."""
    present, share = np.flatnonzero(counts), counts / counts.sum()
    mean = float(share @ LEVELS)
    found = {"min": LEVELS[present[0]], "max": LEVELS[present[-1]], "mean": mean}
    found["std"] = np.sqrt(share @ (LEVELS - mean) ** 2)
    below = np.cumsum(counts)
    for name, quantile in QUANTILES.items():
        found[name] = LEVELS[np.searchsorted(below, quantile * below[-1])]
    return {key: float(value) for key, value in found.items()}


class Total:
    """Statistics of all episodes out of those of each, one at a time."""

    def __init__(self) -> None:
        self._features: dict[str, dict[str, np.ndarray]] = {}

    def add(self, record: Mapping[str, Any]) -> None:
        """Take in an episode's `stats/...` columns (parallel variance: Chan, Golub and LeVeque 1979)."""
        episode: dict[str, dict[str, np.ndarray]] = {}
        for key, value in record.items():
            feature, name = key.removeprefix("stats/").rsplit("/", 1)
            episode.setdefault(feature, {})[name] = np.asarray(value)
        for feature, new in episode.items():
            old = self._features.get(feature)
            self._features[feature] = new if old is None else _joined(old, new)

    def result(self) -> dict[str, dict[str, Any]]:
        """As stats.json holds them."""
        return {key: {k: v.tolist() for k, v in found.items()} for key, found in self._features.items()}


def _joined(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    count = a["count"] + b["count"]
    share = b["count"][0] / count[0]
    between = (b["mean"] - a["mean"]) ** 2 * share * (1 - share)
    return {
        "min": np.minimum(a["min"], b["min"]),
        "max": np.maximum(a["max"], b["max"]),
        "std": np.sqrt(a["std"] ** 2 * (1 - share) + b["std"] ** 2 * share + between),
        "count": count,
        **{key: a[key] * (1 - share) + b[key] * share for key in ("mean", *QUANTILES)},
    }
