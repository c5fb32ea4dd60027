"""Training: the one loop, its schedule, what it writes down, and how it is shared between processes."""

from lewm.training.distributed import Processes, join
from lewm.training.schedule import warmup_cosine
from lewm.training.start import freeze, start_from
from lewm.training.step import Diverged
from lewm.training.stopping import Stopped
from lewm.training.trainer import Trainer

__all__ = ["Diverged", "Processes", "Stopped", "Trainer", "freeze", "join", "start_from", "warmup_cosine"]
