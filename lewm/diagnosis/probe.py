"""Linear probes: how much of the true state can be read off the latents."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CONSTANT = 1e-9  # in units of the target: between its smallest and its largest value


@dataclass(frozen=True)
class RidgeProbe:
    """A closed-form ridge regression from latents (N, D) to targets (N, P).

    Fit it on training episodes and score it on held-out ones.
    """

    weight: Tensor
    latent_mean: Tensor
    target_mean: Tensor

    @staticmethod
    def fit(z_ND: Tensor, target_NP: Tensor, strength: float = 1e-3) -> RidgeProbe:
        """Minimise |target - z W|^2 / N + strength |W|^2 on centred data, in float64."""
        z, target = z_ND.double(), target_NP.double()
        z_mean, target_mean = z.mean(0), target.mean(0)
        z, target = z - z_mean, target - target_mean
        gram = z.T @ z / len(z) + strength * torch.eye(z.shape[1], dtype=torch.float64)
        return RidgeProbe(torch.linalg.solve(gram, z.T @ target / len(z)), z_mean, target_mean)

    def predict(self, z_ND: Tensor) -> Tensor:
        """Targets (N, P) read off latents."""
        return (z_ND.double() - self.latent_mean) @ self.weight + self.target_mean

    def r2(self, z_ND: Tensor, target_NP: Tensor) -> Tensor:
        """Share of variance explained, per target (P,); one is perfect, zero no better than the mean.

        NaN for targets that vary by less than `CONSTANT`: there is nothing to explain.
        """
        target = target_NP.double()
        residual = (target - self.predict(z_ND)).square().sum(0)
        r2 = 1 - residual / (target - target.mean(0)).square().sum(0)
        return r2.where(target.amax(0) - target.amin(0) > CONSTANT, torch.nan)
