"""Diagnosis: is the latent space healthy, and what does it hold?"""

from lewm.diagnosis.health import effective_rank
from lewm.diagnosis.probe import RidgeProbe

__all__ = ["RidgeProbe", "effective_rank"]
