"""Training: the one loop, its schedule, and what it writes down."""

from lewm.training.schedule import warmup_cosine
from lewm.training.trainer import Trainer

__all__ = ["Trainer", "warmup_cosine"]
