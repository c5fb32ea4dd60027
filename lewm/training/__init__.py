"""Training: the one loop, its schedule, what it writes down, and how it is shared between processes."""

from lewm.training.distributed import Processes, join
from lewm.training.latents import LATENT, LatentReader
from lewm.training.schedule import warmup_cosine
from lewm.training.start import freeze, settled, start_from, whiten
from lewm.training.step import Diverged
from lewm.training.stopping import Stopped
from lewm.training.trainer import Trainer

__all__ = [
    "LATENT",
    "Diverged",
    "LatentReader",
    "Processes",
    "Stopped",
    "Trainer",
    "freeze",
    "join",
    "settled",
    "start_from",
    "warmup_cosine",
    "whiten",
]
