"""Training objectives: a prediction error, a regulariser against collapse, auxiliary terms, and their sum."""

from lewm.objectives import auxiliaries, named, predictions, regularisers
from lewm.objectives.encoded import Encoded, LossTerms
from lewm.objectives.objective import Auxiliary, Objective, Term

__all__ = [
    "Auxiliary",
    "Encoded",
    "LossTerms",
    "Objective",
    "Term",
    "auxiliaries",
    "named",
    "predictions",
    "regularisers",
]
