"""Rows to bytes and back, one by one."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lewm.data import Column
from lewm.data.codecs import Digest, decoder, encoder

DTYPES = [np.dtype(name) for name in np.typecodes["AllInteger"] + "?efd"]
rows = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        hnp.array_shapes(min_dims=0, max_dims=3, max_side=5),
        elements=hnp.from_dtype(dtype, allow_nan=False, allow_infinity=False),
    )
)


def decode(column, stored):
    out = np.full(column.row_bytes, 0xA5, np.uint8)
    decoder(column)(memoryview(stored), out)
    return out.view(column.dtype).reshape(column.shape)


@settings(max_examples=200, deadline=None)
@given(row=rows, level=st.integers(1, 22))
def test_zstd_gives_back_every_bit(row, level):
    column = Column(row.dtype.name, row.shape, codec=f"zstd:{level}")
    assert decode(column, encoder(column)(row)).tobytes() == row.tobytes()


@settings(max_examples=50, deadline=None)
@given(row=rows, other=rows, levels=st.tuples(st.integers(0, 22), st.integers(0, 22)))
def test_the_digest_of_content_does_not_depend_on_codec_and_level(row, other, levels):
    def digest(level, *rows):
        codec = f"zstd:{level}" if level else "raw"
        made = Digest(column := Column(row.dtype.name, row.shape, codec=codec))
        for each in rows:
            made.update(each, encoder(column)(each))
        return made.hexdigest()

    first, second = levels
    assert digest(first, row, row) == digest(second, row, row)
    if other.tobytes() != row.tobytes():
        assert digest(first, row, other) != digest(first, row, row)
        assert digest(first, row, other) != digest(first, other, row)


def image(size, channels, seed=0):
    """Smooth, as cameras see it."""
    grid = np.stack(np.meshgrid(*[np.linspace(0, 3, size)] * 2, indexing="ij"), -1) @ np.full((2, channels), 0.7)
    return (127 + 120 * np.sin(grid + seed + np.arange(channels))).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("quality", "tolerance"), [(95, 2), (60, 8)])
def test_jpeg_comes_back_nearly_and_always_the_same(channels, quality, tolerance):
    column = Column("uint8", (32, 32, channels), codec=f"jpeg:{quality}")
    row = image(32, channels)
    stored = encoder(column)(row)
    found = decode(column, stored)
    assert np.abs(found.astype(int) - row).mean() < tolerance
    assert len(stored) < row.nbytes
    assert encoder(column)(row.copy()) == stored
    assert np.array_equal(decode(column, stored), found)


def test_jpeg_of_higher_quality_is_nearer():
    row, off = image(64, 3), []
    for quality in (30, 60, 95):
        column = Column("uint8", (64, 64, 3), codec=f"jpeg:{quality}")
        off.append(np.abs(decode(column, encoder(column)(row)).astype(int) - row).mean())
    assert off[0] > off[1] > off[2]


@pytest.mark.parametrize("codec", ["zstd:3", "jpeg:80"])
@pytest.mark.parametrize("cut", [0, 1, 10, -9])
def test_what_is_cut_short_is_a_value_error(codec, cut):
    column = Column("uint8", (16, 16, 3), codec=codec)
    stored = encoder(column)(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))
    with pytest.raises(ValueError, match=r"."):
        decode(column, stored[:cut])


@pytest.mark.parametrize("codec", ["zstd:3", "jpeg:80"])
@pytest.mark.parametrize("shape", [(8, 8, 3), (16, 16, 1), (32, 32, 3)])
def test_a_row_of_another_size_is_a_value_error(codec, shape):
    stored = encoder(Column("uint8", shape, codec=codec))(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match=r"expected|bytes decoded|row has"):
        decode(Column("uint8", (16, 16, 3), codec=codec), stored)


def test_no_flipped_byte_of_a_jpeg_raises_anything_but_a_value_error():
    column = Column("uint8", (16, 16, 3), codec="jpeg:80")
    stored = encoder(column)(image(16, 3))
    for k in range(len(stored)):
        for mask in (0x01, 0x80, 0xFF):
            data = bytearray(stored)
            data[k] ^= mask
            with suppress(ValueError):
                assert decode(column, bytes(data)).shape == (16, 16, 3)
