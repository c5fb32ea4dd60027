"""Auxiliary terms: what else a latent space is asked to hold, and the heads that planners may use later."""

from lewm.objectives.auxiliaries import regularisers  # registers them again, as auxiliary terms
from lewm.objectives.auxiliaries.contrast import WithinEpisode
from lewm.objectives.auxiliaries.inverse import ActionNCE, InverseDynamics, LatentDifference
from lewm.objectives.auxiliaries.motion import Straightening, TemporalSimilarity
from lewm.objectives.auxiliaries.peira import PEIRA
from lewm.objectives.auxiliaries.time import Reachability, TemporalDistance

__all__ = [
    "PEIRA",
    "ActionNCE",
    "InverseDynamics",
    "LatentDifference",
    "Reachability",
    "Straightening",
    "TemporalDistance",
    "TemporalSimilarity",
    "WithinEpisode",
    "regularisers",
]
