"""The latents of a frozen encoder as a column of the data set: a frame is encoded once, when it is first read."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import torch

from lewm.data import Column, EpisodeReader
from lewm.data.shard_reader import available_memory
from lewm.models import WorldModel
from lewm.types import InputError

LATENT = "__latent__"


class LatentReader:
    """Some episodes of a data set with one column more, `LATENT`: what `model.encode` makes of its observations.

    `lewm.data.Windows` reads it as it reads a data set. The model encodes in evaluation, so that a row has the same
    bits whenever it is read, and as a planner will see it. Its memory is frames x D x 4 bytes once all were read.

    Args:
        model: encoder and projector as they will stay; a copy of it is kept.
        episodes: positions of those that will be read; most: how many of their frames, at most.

    Raises:
        InputError: so much memory is not free.
    """

    def __init__(
        self,
        reader: EpisodeReader,
        model: WorldModel,
        episodes: np.ndarray,
        *,
        device: torch.device | str = "cpu",
        most: int | None = None,
    ) -> None:
        self._reader, self._model = reader, copy.deepcopy(model).to(device).eval()
        self._strides = {name: reader.info.columns[name].stride for name in model.columns}
        self._column = Column("float32", (model.config.latent_dim,), math.lcm(*self._strides.values()))
        self.info = replace(reader.info, columns={**reader.info.columns, LATENT: self._column})
        self.ids, self.steps = reader.ids, reader.steps
        self._rows = np.zeros(len(self.steps), np.int64)
        self._rows[episodes] = self.steps[episodes] // self._column.stride + 1
        self._first, count = np.cumsum(self._rows) - self._rows, int(self._rows.sum())
        needed, free = min(count, most or count) * self._column.row_bytes, available_memory()
        if free is not None and needed > free:
            raise InputError(
                f"the latents of {count:,} frames need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; "
                "train on fewer episodes (validation=... holds some out)"
            )
        # Of zeros, pages are taken as they are filled.
        self._latents, self._known = np.zeros((count, *self._column.shape), np.float32), np.zeros(count, bool)

    def gather(
        self, name: str, positions: np.ndarray, rows: np.ndarray, out: np.ndarray | None = None
    ) -> np.ndarray:
        """As `EpisodeReader.gather`."""
        if name != LATENT:
            return self._reader.gather(name, positions, rows, out)
        if ((rows < 0) | (rows >= self._rows[positions])).any():
            raise IndexError(f"column '{LATENT}': a row outside of the episodes that were asked for")
        places = self._first[positions] + rows
        unknown, first = np.unique(places[~self._known[places]], return_index=True)
        if len(unknown):
            missing = np.flatnonzero(~self._known[places].ravel())[first]
            self._latents[unknown] = self._encode(positions.ravel()[missing], rows.ravel()[missing])
            self._known[unknown] = True
        found = self._latents[places]
        if out is None:
            return found
        filled = out.view(np.float32).reshape(found.shape)
        filled[...] = found
        return filled

    @torch.no_grad()
    def _encode(self, positions: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Latents (n, D) of these rows of the column."""
        steps = rows * self._column.stride
        seen = {
            name: torch.from_numpy(self._reader.gather(name, positions, steps // stride))
            for name, stride in self._strides.items()
        }
        return self._model.encode(seen).cpu().numpy()
