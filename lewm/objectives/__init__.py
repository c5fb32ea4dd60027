"""Training objectives: next-embedding prediction and anti-collapse regularisation."""

from lewm.objectives.lejepa import LeJEPA, LossTerms
from lewm.objectives.sigreg import sigreg

__all__ = ["LeJEPA", "LossTerms", "sigreg"]
