"""Regularisers of second moments alone: cheap, and blind to everything else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lewm.objectives.regularisers.base import Regulariser, std
from lewm.objectives.regularisers.directions import orthonormal
from lewm.registry import register
from lewm.types import InputError


def moments(z_GND: Tensor) -> Tensor:
    """(G, D, D): second moments about zero; covariances if the latents are centred."""
    return z_GND.mT @ z_GND / z_GND.shape[1]


def project(z_GND: Tensor, width: int, generator: torch.Generator) -> Tensor:
    """On `width` random orthonormal directions; as it is if 0, or no more than D dimensions are asked for."""
    dim = z_GND.shape[-1]
    return z_GND @ orthonormal(1, dim, width, generator).to(z_GND) if 0 < width < dim else z_GND


@register("regulariser", "vicreg")
class VICReg(Regulariser):
    """A hinge on each coordinate's spread, and no covariance between coordinates (VICReg, arXiv 2105.04906).

        mean_j max(0, 1 - std_j) + c / D sum_{i != j} Cov_ij^2

    Weight 1 and `covariance` c = 0.04 are the paper's 25, 25 and 1 for invariance, variance and covariance. The
    spread has no upper bound: only the prediction error holds it.
    """

    def __init__(
        self, *, weight: float = 1.0, covariance: float = 0.04, centre: str = "batch", **options: Any
    ) -> None:
        super().__init__(weight=weight, centre=centre, **options)
        self.covariance = covariance

    def measure(self, z_GND: Tensor, generator: torch.Generator) -> Tensor:
        """See the class."""
        second = moments(z_GND)
        diagonal = second.diagonal(dim1=-2, dim2=-1)
        off = (second.square().sum((-2, -1)) - diagonal.square().sum(-1)) / z_GND.shape[-1]
        return torch.relu(1 - (diagonal + 1e-4).sqrt()).mean() + self.covariance * off.mean()


@register("regulariser", "weak_sigreg")
class WeakSIGReg(Regulariser):
    """|S Cov S^T - I|_F for `sketch` random orthonormal rows S, and a floor for the spread (arXiv 2603.05924).

    The authors' rows are Gaussian, which costs even a perfect batch K / sqrt(D), and their gradient vanishes with
    the scale. `floor` adds mean_j max(0, floor - std_j), whose gradient does not. The weight gives sigreg's
    gradient on a nearly Gaussian batch.
    """

    def __init__(
        self,
        *,
        weight: float = 0.04,
        sketch: int = 64,
        floor: float = 0.2,
        centre: str = "batch",
        **options: Any,
    ) -> None:
        super().__init__(weight=weight, centre=centre, **options)
        if sketch < 0 or not floor >= 0:
            raise InputError(f"need sketch >= 0 (0 is none) and floor >= 0, got {sketch} and {floor}")
        self.sketch, self.floor = sketch, floor

    def measure(self, z_GND: Tensor, generator: torch.Generator) -> Tensor:
        """See the class."""
        second = moments(project(z_GND, self.sketch, generator))
        identity = torch.eye(second.shape[-1]).to(second)
        norm = torch.linalg.matrix_norm(second - identity).mean()
        return norm + torch.relu(self.floor - std(z_GND, 1)).mean()


@register("regulariser", "spectral_floor")
class SpectralFloor(Regulariser):
    """Floors under the spectrum, and no law above them (HamJEPA, arXiv 2605.20107).

        (mean z^2 - 1)^2 / 5 + mean_j max(0, 1/5 - std_j)^2 / 2 + |mean z|^2 / 20 / D
        + [ max(0, f - log det C / k)^2 + max(0, p - PR / k)^2 + max(0, l_max / tr C - c)^2 ] / 2

    C is the covariance on k random orthonormal directions, PR = (tr C)^2 / tr C^2 its participation ratio. The
    weights are the authors', who have two halves, q and p, with a term each, and keep k = 128 directions for 16
    steps; ours are drawn anew, and are few enough for the batch to span them. Little is felt above the floors.

    Args:
        sketch: k, at most half the batch is used.
        log_det, participation, ceiling: f, p, c.
    """

    def __init__(
        self,
        *,
        weight: float = 1.0,
        sketch: int = 32,
        log_det: float = -1.5,
        participation: float = 0.12,
        ceiling: float = 0.35,
        **options: Any,
    ) -> None:
        super().__init__(weight=weight, **options)
        if sketch < 1:
            raise InputError(f"spectral_floor needs a sketch >= 1, got {sketch}")
        self.sketch, self.log_det, self.participation, self.ceiling = sketch, log_det, participation, ceiling

    def measure(self, z_GND: Tensor, generator: torch.Generator) -> Tensor:
        """See the class."""
        rows, dim = z_GND.shape[-2:]
        width = max(min(self.sketch, rows // 2, dim), 1)
        mean = z_GND.mean(1, keepdim=True)
        sketched = project(z_GND - mean, width, generator)
        spectrum = torch.linalg.eigvalsh(moments(sketched)).clamp(min=0) + 1e-6
        trace = spectrum.sum(-1)
        floors = (
            self.log_det - spectrum.log().mean(-1),
            self.participation - trace.square() / spectrum.square().sum(-1) / width,
            spectrum[:, -1] / trace - self.ceiling,
        )
        energy = (z_GND.square().mean((1, 2)) - 1).square().mean()
        spread = torch.relu(0.2 - std(z_GND, 1)).square().mean()
        spectral = sum(torch.relu(floor).square().mean() for floor in floors)
        return 0.2 * energy + 0.5 * spread + 0.05 * mean.square().mean() + 0.5 * spectral
