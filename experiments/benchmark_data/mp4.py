"""MP4 after LeRobot v3's defaults, read and written with PyAV: ours, for lerobot itself pins another torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from experiments.peers.data_worker import Episodes, Read, Windows

FPS = 30
PRESETS = {"libsvtav1": "12", "libx264": "medium"}


def prepare_mp4() -> Callable[[Path, Windows], Read]:
    """Seek and decode frame by frame (with a key frame every second one, the least work); actions in memory."""
    import av

    def open_store(path: Path, windows: Windows) -> Read:
        container = av.open(str(path / "file-000.mp4"))
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        ticks = round(1 / (FPS * stream.time_base))
        actions = np.load(path / "action.npy")
        blocks = np.arange(windows.frames * windows.stride)

        def frame(number: int) -> np.ndarray:
            container.seek(number * ticks, stream=stream)
            for decoded in container.decode(stream):
                if decoded.pts >= number * ticks:
                    return decoded.to_ndarray(format="rgb24")
            raise RuntimeError(f"{path} has no frame {number}")

        def read(episodes: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            rows = episodes[:, None] * windows.rows + windows.steps(starts)
            frames = np.stack([frame(number) for number in rows.ravel().tolist()])
            acts = actions[episodes[:, None], starts[:, None] + blocks]
            return frames.reshape(*rows.shape, *frames.shape[1:]), acts.reshape(*rows.shape, -1)

        return read

    return open_store


def write_mp4(path: Path, episodes: Episodes, codec: str) -> None:
    """Episode after episode in one file, a key frame every second frame, CRF 30: LeRobot v3's defaults."""
    import av

    actions = []
    with av.open(str(path / "file-000.mp4"), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options={"g": "2", "crf": "30", "preset": PRESETS[codec]})
        stream.pix_fmt = "yuv420p"
        for one in episodes:
            actions.append(np.stack(one["action"]))
            if len(actions) == 1:
                stream.height, stream.width = one["pixels"][0].shape[:2]
            for image in one["pixels"]:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")))
        container.mux(stream.encode())
    np.save(path / "action.npy", np.stack(actions))
