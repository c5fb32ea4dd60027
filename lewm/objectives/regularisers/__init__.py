"""Regularisers against collapse: how far a batch of latents is from a law that fills the space."""

from functools import partial

from lewm.objectives.regularisers.base import Nothing, Regulariser
from lewm.objectives.regularisers.bottleneck import SymmetricBottleneck
from lewm.objectives.regularisers.covariance import SpectralFloor, VICReg, WeakSIGReg
from lewm.objectives.regularisers.directions import Independent, Orthogonal, Subspaces
from lewm.objectives.regularisers.kernel import Exact, KernelStein
from lewm.objectives.regularisers.sliced import Sliced, VISReg
from lewm.objectives.regularisers.sphere import SpherePairs
from lewm.objectives.regularisers.statistics import EppsPulley, Moments, Wasserstein
from lewm.objectives.regularisers.targets import Gaussian, Rectified, Sphere
from lewm.registry import register

NAMED = {  # published points of the grammar: settings, no code of their own
    "sub_jepa": partial(Sliced, directions="subspaces"),  # arXiv 2605.09241
    "tc_sigreg": partial(Sliced, axis="pooled", centre="window", constants=0.1),  # arXiv 2607.26924
    "rdmreg": partial(Sliced, weight=2.5, statistic="wasserstein", target="rectified"),  # arXiv 2602.01456
    "susreg": partial(Sliced, target="sphere"),  # arXiv 2605.26900
    "sphere_ksd": partial(SpherePairs, weight=12.0, distance="ksd"),  # arXiv 2606.17603, and the next
    "sphere_kl": partial(SpherePairs, weight=0.9, distance="kl", time=2.0),
}

for _name, _part in NAMED.items():
    register("regulariser", _name)(_part)

__all__ = [
    "EppsPulley",
    "Exact",
    "Gaussian",
    "Independent",
    "KernelStein",
    "Moments",
    "Nothing",
    "Orthogonal",
    "Rectified",
    "Regulariser",
    "Sliced",
    "SpectralFloor",
    "Sphere",
    "SpherePairs",
    "Subspaces",
    "SymmetricBottleneck",
    "VICReg",
    "VISReg",
    "Wasserstein",
    "WeakSIGReg",
]
