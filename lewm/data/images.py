"""Encoded images out of files that nobody vouches for: no kind but the ones expected, sizes before pixels."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

KINDS = ("JPEG", "PNG")  # Pillow knows many more, and some of them run other programs (EPS: Ghostscript)
MAX_PIXELS = 1 << 26
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def decode_image(
    data: bytes | memoryview,
    shape: Sequence[int] | None = None,
    *,
    kinds: Sequence[str] = KINDS,
    convert: bool = True,
) -> np.ndarray:
    """An encoded image as uint8 (h, w, C) of `shape`; without it as (h, w, 3) or, where it is grey, (h, w, 1).

    Channels that differ from `shape` are converted, or with `convert=False` an error.

    Raises:
        ValueError: damaged, of another kind or size, or without `shape` of more than MAX_PIXELS.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=kinds) as image:
            size = image.height, image.width
            expected = tuple(shape) if shape else (*size, 1 if image.mode in ("1", "L") else 3)
            mode = MODES[expected[2]]
            if not shape and size[0] * size[1] > MAX_PIXELS:
                raise ValueError(f"an image of {size[0]} x {size[1]}, at most {MAX_PIXELS} pixels are decoded")
            wrong = size != expected[:2] or image.mode.startswith("I")  # 16 bits would be cut to 8
            if wrong or (image.mode != mode and not convert):
                raise ValueError(f"an image of {size[0]} x {size[1]} {image.mode}, expected {expected}")
            return np.asarray(image if image.mode == mode else image.convert(mode)).reshape(expected)
    except Exception as error:  # of a damaged file Pillow raises SyntaxError, struct.error, bombs, ...
        raise ValueError(str(error)) from None
