"""Antialiased shapes drawn into batches of images, without a graphics library.

A shape is a signed distance: `sdf(dx, dy)` says how many pixels a point lies outside of it. What is covered is
blended into a square patch around the shape, so the cost is that of the patch and not of the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Sdf = Callable[[np.ndarray, np.ndarray], np.ndarray]


def stamp(images: np.ndarray, centres: np.ndarray, reach: float, sdf: Sdf, colours: np.ndarray) -> None:
    """Blend one shape into each image, in place.

    Args:
        images: (B, size, size, 3) uint8.
        centres: (B, 2) x, y in pixels; the centre of the first pixel is (0.5, 0.5).
        reach: how far the shape extends from its centre, in pixels.
        sdf: signed distance (B, n, n) in pixels of points at offsets `dx` (B, 1, n) and `dy` (B, n, 1).
        colours: (3,), or (B, 3) for one each.
    """
    size = images.shape[1]
    side = min(size, math.ceil(2 * reach) + 2)
    corner = np.clip(np.floor(centres - side / 2 + 0.5), 0, size - side).astype(np.intp)
    columns, lines = (corner[:, axis, None] + np.arange(side) for axis in (0, 1))
    dx = (columns + np.float32(0.5) - centres[:, :1]).astype(np.float32)[:, None, :]
    dy = (lines + np.float32(0.5) - centres[:, 1:]).astype(np.float32)[:, :, None]
    alpha = np.clip(0.5 - sdf(dx, dy), 0, 1)[..., None]
    place = (np.arange(len(images))[:, None, None], lines[:, :, None], columns[:, None, :])
    patch = images[place].astype(np.float32)
    patch += alpha * (np.reshape(colours, (-1, 1, 1, 3)).astype(np.float32) - patch)
    images[place] = (patch + 0.5).astype(np.uint8)


def disc(radius: float | np.ndarray) -> Sdf:
    """A disc around the centre."""
    return lambda dx, dy: np.sqrt(dx * dx + dy * dy) - np.float32(radius)


def boxes(angles: np.ndarray, parts: list[tuple[float, float, float, float]]) -> Sdf:
    """A union of boxes (centre x, centre y, half width, half height), turned by `angles` (B,) about the centre."""
    cos, sin = (f(angles).astype(np.float32)[:, None, None] for f in (np.cos, np.sin))

    def sdf(dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
        x, y = cos * dx + sin * dy, cos * dy - sin * dx
        return np.minimum.reduce([_box(x - px, y - py, width, height) for px, py, width, height in parts])

    return sdf


def _box(x: np.ndarray, y: np.ndarray, width: float, height: float) -> np.ndarray:
    beside, above = np.abs(x) - np.float32(width), np.abs(y) - np.float32(height)
    outside = np.sqrt(np.maximum(beside, 0) ** 2 + np.maximum(above, 0) ** 2)
    return outside + np.minimum(np.maximum(beside, above), 0)
