"""Images out of files that nobody vouches for."""

import io
import subprocess
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from lewm.data.images import decode_image


def encoded(kind, mode="RGB", size=(6, 4), **options):
    file = io.BytesIO()
    Image.new(mode, size, **options).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_size_and_channels_are_those_of_the_image(kind, mode, channels):
    assert decode_image(encoded(kind, mode)).shape == (4, 6, channels)
    for shape in [(4, 6, 1), (4, 6, 3), (4, 6, 4)]:
        assert decode_image(encoded(kind, mode), shape).shape == shape


def test_pixels_are_exact_and_grey_as_three_channels_is_grey_again():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    grey = np.repeat(pixels[..., :1], 3, axis=2)
    for frame, shape in ((pixels, (4, 6, 3)), (grey, (4, 6, 1))):
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "PNG")
        assert np.array_equal(decode_image(file.getvalue(), shape), frame[..., : shape[2]])


def test_a_kind_that_runs_another_program_is_not_even_opened(monkeypatch):
    images = [encoded("GIF", "L"), encoded("TIFF"), encoded("BMP")]
    monkeypatch.setattr(subprocess, "Popen", None)
    monkeypatch.setattr(Image, "init", lambda: pytest.fail("asked every decoder Pillow has"))
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 4\n%%EndComments\nshowpage\n"
    for data in (postscript, *images):
        with pytest.raises(ValueError, match="cannot identify"):
            decode_image(data, (4, 6, 3))


@pytest.fixture(scope="module")
def bomb():
    """20 000 x 20 000 pixels in 49 kB."""
    return encoded("PNG", "1", (20_000, 20_000))


def test_sizes_are_compared_before_pixels_are_decoded(bomb, monkeypatch):
    large = encoded("PNG", "L", (9000, 8000))
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("decoded"))
    for data, shape, message in (
        (bomb, None, "decompression bomb"),
        (bomb, (8, 8, 3), "decompression bomb"),
        (large, None, "8000 x 9000, at most"),
        (large, (8, 8, 3), r"8000 x 9000 L, expected \(8, 8, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            decode_image(data, shape)


def test_other_channels_are_refused_where_none_are_converted():
    with pytest.raises(ValueError, match=r"4 x 6 L, expected"):
        decode_image(encoded("JPEG", "L"), (4, 6, 3), convert=False)
    with pytest.raises(ValueError, match=r"I;16, expected"):  # a depth map, which 8 bits cannot hold
        decode_image(encoded("PNG", "I;16"), (4, 6, 1))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_no_flipped_or_missing_byte_raises_anything_but_a_value_error(kind):
    data = encoded(kind)
    for k in range(len(data)):
        for broken in (data[:k], data[:k] + b"\xff" + data[k + 1 :], data[:k] + b"\0\0\0\0" + data[k + 4 :]):
            with suppress(ValueError):
                assert decode_image(broken, (4, 6, 3)).shape == (4, 6, 3)
