"""`lewm compare`: two evaluations on the same pairs, which is better, and whether these pairs can tell."""

from experiments.compare.comparison import Comparison, Contrast, compare
from experiments.compare.sides import Side
from experiments.compare.words import verdict

__all__ = ["Comparison", "Contrast", "Side", "compare", "verdict"]
