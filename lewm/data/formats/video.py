"""MP4 in and out with PyAV: H.264, yuv420p, frame by frame, so that memory holds one frame when writing."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import numpy as np

from lewm.data.formats.common import check_size, guarded
from lewm.extras import need
from lewm.types import InputError

CRF = 18  # of 0 (lossless) to 51; 18 is hard to tell from the source by eye
THREADS = 4  # fixed, because x264 gives other bytes for another number of threads
SLACK = 0.25  # of a frame: further off than this, which frame was meant is a guess


def frame_rate(fps: float, where: str) -> Fraction:
    """Frames per second as MP4 files count them.

    Raises:
        InputError: not a number from 1e-4 to 1e5.
    """
    if not 1e-4 <= fps <= 1e5:
        raise InputError(f"{where}: fps must be positive, a number from 0.0001 to 100000, got {fps}")
    return Fraction(fps).limit_denominator(100_000)


def rgb(frames: np.ndarray, place: str) -> np.ndarray:
    """Frames (..., h, w, 1 or 3) as RGB; grey is repeated."""
    if frames.dtype != np.uint8 or frames.shape[-1] not in (1, 3):
        raise InputError(
            f"{place}: video needs uint8 frames with 1 or 3 channels, got {frames.dtype} {frames.shape}"
        )
    return np.repeat(frames, 3, axis=-1) if frames.shape[-1] == 1 else frames


def even(frames: np.ndarray) -> np.ndarray:
    """Frames (..., h, w, C) with odd sizes made even by repeating the last row or column, as yuv420p needs."""
    h, w = frames.shape[-3:-1]
    edges = [(0, 0)] * (frames.ndim - 3) + [(0, h % 2), (0, w % 2), (0, 0)]
    return np.pad(frames, edges, mode="edge") if h % 2 or w % 2 else frames


class VideoWriter:
    """One H.264 MP4 file; frame i is shown at i / fps seconds.

    `gop` is the distance of key frames (None: the encoder's own): short for random access, long for small files.
    """

    def __init__(self, path: Path, size: tuple[int, int], fps: float, gop: int | None = None) -> None:
        av = need("av", "video")
        self._av, self._rate, self._next = av, frame_rate(fps, str(path)), 0
        path.parent.mkdir(parents=True, exist_ok=True)
        options = {"crf": str(CRF), "bf": "0", "preset": "medium"} | ({"g": str(gop)} if gop else {})
        self._file = av.open(str(path), "w", format="mp4")
        self._stream = self._file.add_stream("libx264", rate=self._rate, options=options)
        self._stream.height, self._stream.width = size
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = 1 / self._rate
        self._stream.codec_context.thread_count = THREADS

    def add(self, frames: np.ndarray) -> None:
        """Append frames (N, h, w, 3); the first of them is a key frame."""
        for number, pixels in enumerate(frames):
            frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = self._next, 1 / self._rate
            if number == 0:
                frame.pict_type = self._av.video.frame.PictureType.I
            self._file.mux(self._stream.encode(frame))
            self._next += 1

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._file.mux(self._stream.encode(None))
        finally:
            self._file.close()


def frame_size(path: Path, extra: str = "video") -> tuple[int, int]:
    """Height and width of a video's frames."""
    av = need("av", extra)
    with guarded(str(path)), av.open(str(path)) as file:
        stream = file.streams.video[0]
        return stream.height, stream.width


def read_frames(
    path: Path,
    count: int,
    size: tuple[int, int],
    *,
    start: float = 0.0,
    fps: float | None = None,
    extra: str = "video",
) -> np.ndarray:
    """`count` frames (N, h, w, 3) of `size` out of a video, decoded in order from the key frame before the first.

    With `fps`, frame k is the one shown at `start + k / fps` seconds, and one that is missing is an error; without,
    the file's first frames are taken, whatever their times.

    Raises:
        InputError: no such video, damaged, too short, or a frame more than SLACK of a frame away from its time.
    """
    av = need("av", extra)
    if not path.is_file():
        raise InputError(f"{path} is missing; restore the file")
    check_size(count * size[0] * size[1] * 3, str(path))
    frames: list[np.ndarray] = []
    with guarded(str(path)), av.open(str(path)) as file:
        for frame in _from(file, start - SLACK / fps if fps else None):
            expected = start + len(frames) / fps if fps else 0.0
            if fps and frame.time < expected - SLACK / fps:
                continue  # between the key frame and the first frame wanted
            if fps and frame.time > expected + SLACK / fps:
                raise InputError(
                    f"{path}: no frame at {expected:.4f} s, the next is at {frame.time:.4f} s; the video does "
                    "not match its rows: restore it, or record the data set again"
                )
            if (frame.height, frame.width) != size:
                raise InputError(f"{path}: a frame of {frame.height} x {frame.width}, expected {size}; restore it")
            frames.append(frame.to_ndarray(format="rgb24"))
            if len(frames) == count:
                return np.stack(frames)
    raise InputError(f"{path} ends after {len(frames)} of {count} frames from {start:.4f} s; restore the file")


def _from(file: object, seconds: float | None) -> Iterator[object]:
    """Decoded frames from the key frame at or before a time."""
    stream = file.streams.video[0]
    if seconds is not None and seconds > 0:
        file.seek(int(seconds / stream.time_base), stream=stream)
    return file.decode(stream)
