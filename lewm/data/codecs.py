"""How rows of a column become bytes and come back; and the digest of their content."""

from __future__ import annotations

import hashlib
import io
import threading
import zlib
from collections.abc import Callable

import numpy as np
import zstandard

from lewm.data.images import decode_image
from lewm.data.schema import Column

Encode = Callable[[np.ndarray], bytes]
Decode = Callable[[memoryview, np.ndarray], None]

_LOCAL = threading.local()  # a zstd context serves one thread at a time


def encoder(column: Column) -> Encode:
    """A function from a row (C order) to its stored bytes."""
    kind, _, level = column.codec.partition(":")
    if kind == "zstd":
        return lambda row: _compressor(int(level)).compress(row)
    if kind == "jpeg":
        return lambda row: _encode_jpeg(row, int(level))
    return lambda row: row.tobytes()


def decoder(column: Column) -> Decode:
    """A function that fills a flat uint8 row from its stored bytes; ValueError where they are damaged."""
    return _decode_zstd if column.codec.startswith("zstd") else lambda data, out: _decode_jpeg(data, out, column)


class Digest:
    """A digest of a column's content, row by row; 16 hexadecimal digits. Equal for all lossless codecs."""

    def __init__(self, column: Column) -> None:
        self._hash, self._lossless = hashlib.blake2b(digest_size=8), column.lossless

    def update(self, row: np.ndarray, stored: bytes) -> None:
        """Take in the next row (C order): its own bytes, or what is stored where those are lost."""
        check = zlib.crc32(row if self._lossless else stored)
        self._hash.update(check.to_bytes(4, "little"))

    def hexdigest(self) -> str:
        """The digest so far."""
        return self._hash.hexdigest()


def _compressor(level: int) -> zstandard.ZstdCompressor:
    """This thread's compressor: its tables take over a megabyte, too much for each of 256 recordings."""
    compressors = _LOCAL.__dict__.setdefault("compressors", {})
    if level not in compressors:
        compressors[level] = zstandard.ZstdCompressor(level=level)
    return compressors[level]


def _decode_zstd(data: memoryview, out: np.ndarray) -> None:
    if not hasattr(_LOCAL, "zstd"):
        _LOCAL.zstd = zstandard.ZstdDecompressor()
    try:
        size = zstandard.frame_content_size(data)
        read = _LOCAL.zstd.stream_reader(data).readinto(out) if size == len(out) else size
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from None
    if read != len(out):
        raise ValueError(f"{read} bytes decoded, a row has {len(out)}")


def _encode_jpeg(row: np.ndarray, quality: int) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(row[..., 0] if row.shape[2] == 1 else row).save(file, "JPEG", quality=quality)
    return file.getvalue()


def _decode_jpeg(data: memoryview, out: np.ndarray, column: Column) -> None:
    out[:] = decode_image(data, column.shape, kinds=("JPEG",), convert=False).reshape(-1)
