"""Probes: how much of the true state can be read off the latents, by a line and by a small network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

CONSTANT = 1e-9  # in units of the target: between its smallest and its largest value
TINY = 1e-6  # spread of an input or target below which it is not scaled up


def r2(predicted_NP: Tensor, target_NP: Tensor) -> Tensor:
    """Share of variance explained, per target (P,); one is perfect, zero no better than the mean.

    NaN for targets that vary by less than `CONSTANT`: there is nothing to explain.
    """
    target = target_NP.double()
    residual = (target - predicted_NP.double()).square().sum(0)
    share = 1 - residual / (target - target.mean(0)).square().sum(0)
    return share.where(target.amax(0) - target.amin(0) > CONSTANT, torch.nan)


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
        gram = z.T @ z / len(z) + strength * torch.eye(z.shape[1], dtype=torch.float64, device=z.device)
        return RidgeProbe(torch.linalg.solve(gram, z.T @ target / len(z)), z_mean, target_mean)

    def predict(self, z_ND: Tensor) -> Tensor:
        """Targets (N, P) read off latents."""
        return (z_ND.double() - self.latent_mean) @ self.weight + self.target_mean

    def r2(self, z_ND: Tensor, target_NP: Tensor) -> Tensor:
        """See `r2`."""
        return r2(self.predict(z_ND), target_NP)


@dataclass(frozen=True)
class MLPProbe:
    """A network of one hidden layer from latents (N, D) to targets (N, P): what is there, but not linearly.

    A function of (data, seed): its own generator draws the weights and the batches.
    """

    layers: Sequence[Tensor]
    latent_mean: Tensor
    latent_std: Tensor
    target_mean: Tensor
    target_std: Tensor

    @staticmethod
    def fit(
        z_ND: Tensor,
        target_NP: Tensor,
        *,
        hidden: int = 128,
        steps: int = 600,
        batch_size: int = 256,
        learning_rate: float = 3e-3,
        seed: int = 0,
    ) -> MLPProbe:
        """Minimise the squared error of standardised targets with AdamW and a cosine schedule, in float32."""
        z, target = z_ND.float(), target_NP.float()
        z_mean, z_std = z.mean(0), z.std(0).clamp(min=TINY)
        target_mean, target_std = target.mean(0), target.std(0).clamp(min=TINY)
        z, target = (z - z_mean) / z_std, (target - target_mean) / target_std
        generator = torch.Generator().manual_seed(seed)
        sizes = (z.shape[1], hidden, target.shape[1])
        layers = _layers(sizes, generator, z.device)
        optimiser = torch.optim.AdamW(layers, lr=learning_rate, weight_decay=1e-3)
        with torch.enable_grad():
            for step in range(steps):
                rows = torch.randint(len(z), (min(batch_size, len(z)),), generator=generator).to(z.device)
                loss = (_forward(layers, z[rows]) - target[rows]).square().mean()
                optimiser.zero_grad()
                loss.backward()
                for group in optimiser.param_groups:
                    group["lr"] = learning_rate * (1 + math.cos(math.pi * step / steps)) / 2
                optimiser.step()
        fitted = [layer.detach() for layer in layers]
        return MLPProbe(fitted, z_mean, z_std, target_mean, target_std)

    def predict(self, z_ND: Tensor) -> Tensor:
        """Targets (N, P) read off latents."""
        scaled = (z_ND.float() - self.latent_mean) / self.latent_std
        return _forward(self.layers, scaled) * self.target_std + self.target_mean

    def r2(self, z_ND: Tensor, target_NP: Tensor) -> Tensor:
        """See `r2`."""
        return r2(self.predict(z_ND), target_NP)


def _layers(sizes: tuple[int, int, int], generator: torch.Generator, device: torch.device) -> list[Tensor]:
    """Weight and bias of each of the two layers, uniform in +-1 / sqrt(fan in)."""
    layers = []
    for fan_in, fan_out in pairwise(sizes):
        for shape in ((fan_out, fan_in), (fan_out,)):
            drawn = (2 * torch.rand(shape, generator=generator) - 1) / math.sqrt(fan_in)
            layers.append(drawn.to(device).requires_grad_())
    return layers


def _forward(layers: Sequence[Tensor], x: Tensor) -> Tensor:
    return F.linear(F.gelu(F.linear(x, layers[0], layers[1])), layers[2], layers[3])
