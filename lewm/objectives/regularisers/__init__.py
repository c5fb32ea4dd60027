"""Regularisers against collapse: how far a batch of latents is from a law that fills the space."""

from lewm.objectives.regularisers.base import Regulariser
from lewm.objectives.regularisers.directions import Independent
from lewm.objectives.regularisers.sliced import Sliced
from lewm.objectives.regularisers.statistics import EppsPulley

__all__ = ["EppsPulley", "Independent", "Regulariser", "Sliced"]
