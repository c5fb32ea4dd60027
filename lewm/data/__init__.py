"""The episode store: an append-only folder of recorded episodes, and training windows over it."""

from lewm.data.reader import EpisodeReader
from lewm.data.schema import Column, DatasetInfo
from lewm.data.windows import Batch, Windows, split_episodes
from lewm.data.writer import EpisodeWriter

__all__ = ["Batch", "Column", "DatasetInfo", "EpisodeReader", "EpisodeWriter", "Windows", "split_episodes"]
