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
        images: (B, size, size, 3) uint8, contiguous: of a slice or a transposed view a copy would be drawn into.
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
    distance = sdf(dx, dy)
    row, line, column = np.nonzero(distance < 0.5)  # a shape covers a small part of its square
    alpha = np.minimum(0.5 - distance[row, line, column], 1)[:, None]
    colours = np.broadcast_to(np.reshape(colours, (-1, 3)), (len(images), 3)).astype(np.float32)
    flat, place = images.reshape(-1, 3), (row * size + lines[row, line]) * size + columns[row, column]
    patch = flat[place].astype(np.float32)
    patch += alpha * (colours[row] - patch)
    flat[place] = (patch + 0.5).astype(np.uint8)


def disc(radius: float | np.ndarray) -> Sdf:
    """A disc around the centre."""
    return lambda dx, dy: np.sqrt(dx * dx + dy * dy) - np.float32(radius)


def boxes(angles: np.ndarray, parts: list[tuple[float, float, float, float]], true: bool = False) -> Sdf:
    """A union of boxes (centre x, centre y, half width, half height), turned by `angles` (B,) about the centre.

    Outside of a corner the distance is that of the nearer edge's line, which draws it sharp at a tenth of the cost;
    `true` gives the distance to the corner.
    """
    cos, sin = (f(angles).astype(np.float32)[:, None, None] for f in (np.cos, np.sin))

    def sdf(dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
        x, y = cos * dx + sin * dy, cos * dy - sin * dx
        return np.minimum.reduce([_box(x - px, y - py, width, height, true) for px, py, width, height in parts])

    return sdf


def _box(x: np.ndarray, y: np.ndarray, width: float, height: float, true: bool) -> np.ndarray:
    beside, above = np.abs(x) - np.float32(width), np.abs(y) - np.float32(height)
    edge = np.maximum(beside, above)
    if not true:
        return edge
    return np.hypot(np.maximum(beside, 0), np.maximum(above, 0)) + np.minimum(edge, 0)
