"""Pictures without time: the files of a folder, or single frames of an episode store, read by number."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from lewm.data.images import decode_image
from lewm.data.reader import EpisodeReader
from lewm.data.windows import Windows
from lewm.types import InputError, nearest

KINDS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP", ".webp": "WEBP"}
CACHES = ("none", "ram")


class Pictures(Protocol):
    """Numbered pictures of any sizes; may be pickled."""

    def __len__(self) -> int:
        """How many there are."""

    def read(self, numbers: np.ndarray) -> Sequence[np.ndarray]:
        """Those with these numbers, each uint8 (h, w, 3)."""

    def truth(self, numbers: np.ndarray) -> np.ndarray | None:
        """(N, P): what is known of them, for a probe to read off; None if nothing is."""


class Frames:
    """All frames of some episodes of a store, numbered in their order.

    Their truth is the recorded `pose` where there is one, what a picture can show of the state, else the `state`.
    """

    def __init__(self, reader: EpisodeReader, episodes: np.ndarray) -> None:
        stride = reader.info.columns["pixels"].stride
        self._windows = Windows(reader, episodes, frames=1, block=stride)
        self._truth = next((name for name in ("pose", "state") if name in reader.info.columns), None)

    def __len__(self) -> int:
        return len(self._windows)

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """uint8 (N, h, w, 3)."""
        return self._windows.batch(numbers).pixels[:, 0]

    def truth(self, numbers: np.ndarray) -> np.ndarray | None:
        """The state of the simulator at each frame."""
        if self._truth is None:
            return None
        batch, reader = self._windows.batch(numbers), self._windows.reader
        rows = reader.gather(self._truth, batch.episodes, batch.starts // reader.info.columns[self._truth].stride)
        return rows.reshape(len(rows), -1)


class ImageFolder:
    """JPEG, PNG, BMP and WebP files anywhere below a folder, in the order of their paths.

    Where they lie in folders of at least two different names, the name of a file's own folder is its class:
    `train/cat/1.png` and `test/cat/2.png` are both of class `cat`.

    Args:
        folder: to look in; hidden files and folders are passed over.
        cache: `none`, or `ram` to keep each picture, decoded, once it was read.

    Attributes:
        classes: names in order, empty without classes; labels: (N,) positions in `classes`, or zeros.
    """

    def __init__(self, folder: Path | str, *, cache: str = "none") -> None:
        self.folder = Path(folder)
        if cache not in CACHES:
            raise InputError(f"an image folder has no cache '{cache}': {nearest(cache, list(CACHES))}")
        if not self.folder.is_dir():
            raise InputError(f"{self.folder} is no folder; expected one of pictures, or a data set")
        found = (p.relative_to(self.folder) for p in self.folder.rglob("*") if p.suffix.lower() in KINDS)
        self.paths = sorted(p.as_posix() for p in found if not any(part.startswith(".") for part in p.parts))
        if not self.paths:
            raise InputError(f"{self.folder} holds no picture ({', '.join(KINDS)}), nor does a folder in it")
        parents = [Path(path).parent.name for path in self.paths]
        names = sorted(set(parents))
        self.classes = names if len(names) > 1 and all(parents) else []
        self.labels = np.array([names.index(name) if self.classes else 0 for name in parents])
        self._cached: dict[int, np.ndarray] | None = {} if cache == "ram" else None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def fingerprint(self) -> str:
        """A hash of all paths and sizes."""
        sizes = [f"{path} {(self.folder / path).stat().st_size}\n" for path in self.paths]
        return hashlib.sha256("".join(sizes).encode()).hexdigest()[:16]

    def split(self, held_out: float) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of (training, held-out) pictures, decided by a hash of each path: stable as the folder grows."""
        if not 0 <= held_out < 1:
            raise InputError(f"the share held out for validation must be in [0, 1), got {held_out}")
        held = np.array([zlib.crc32(path.encode()) / 2**32 < held_out for path in self.paths])
        if held.all():
            raise InputError(f"{self.folder} holds {len(self)} pictures, too few to hold {held_out} of them out")
        return np.flatnonzero(~held), np.flatnonzero(held)

    def read(self, numbers: np.ndarray) -> list[np.ndarray]:
        """uint8 (h, w, 3) each."""
        return [self._read(int(number)) for number in numbers]

    def truth(self, numbers: np.ndarray) -> np.ndarray | None:
        """(N, classes): one at the class, else zero."""
        return np.eye(len(self.classes))[self.labels[numbers]] if self.classes else None

    def _read(self, number: int) -> np.ndarray:
        if self._cached is not None and number in self._cached:
            return self._cached[number]
        path = self.folder / self.paths[number]
        try:
            picture = decode_image(path.read_bytes(), kinds=tuple(set(KINDS.values())))
        except ValueError as error:
            raise InputError(f"{path} cannot be decoded ({error}); replace or remove it") from None
        picture = np.repeat(picture, 3, axis=-1) if picture.shape[-1] == 1 else picture
        if self._cached is not None:
            self._cached[number] = picture
        return picture


class Subset:
    """Some pictures of others, numbered anew."""

    def __init__(self, pictures: Pictures, numbers: np.ndarray) -> None:
        self.pictures, self.numbers = pictures, np.asarray(numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, numbers: np.ndarray) -> Sequence[np.ndarray]:
        """uint8 (h, w, 3) each."""
        return self.pictures.read(self.numbers[numbers])

    def truth(self, numbers: np.ndarray) -> np.ndarray | None:
        """See `Pictures`."""
        return self.pictures.truth(self.numbers[numbers])
