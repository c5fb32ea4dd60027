"""The episode store: an append-only folder of recorded episodes, training windows over it, other formats beside
it."""

from lewm.data.loader import Loader
from lewm.data.reader import EpisodeReader
from lewm.data.recording import Recording
from lewm.data.sampling import split_episodes
from lewm.data.schema import Column, DatasetInfo
from lewm.data.statistics import Statistics
from lewm.data.verify import Fault
from lewm.data.windows import Batch, Windows
from lewm.data.writer import EpisodeWriter

__all__ = [
    "Batch",
    "Column",
    "DatasetInfo",
    "EpisodeReader",
    "EpisodeWriter",
    "Fault",
    "Loader",
    "Recording",
    "Statistics",
    "Windows",
    "split_episodes",
]
