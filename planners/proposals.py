"""Where candidates come from: noise of a stated colour, reproducible row by row."""

from __future__ import annotations

import torch
from torch import Tensor

_MASK = (1 << 64) - 1


def mix(*numbers: int) -> int:
    """One 63-bit seed from several integers (SplitMix64 finaliser, applied in turn)."""
    state = 0
    for number in numbers:
        state = (state + (number & _MASK) + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


class Coloured:
    """Gaussian noise whose neighbouring steps correlate: corr(e_s, e_t) = correlation ** |s - t|, variance 1.

    A stationary first-order autoregressive process, exact through the Cholesky factor of its covariance. Zero
    gives white noise.
    """

    def __init__(self, *, correlation: float = 0.7) -> None:
        self.correlation = correlation

    def __call__(self, seeds: Tensor, replans: Tensor, iteration: int, shape: tuple[int, int, int]) -> Tensor:
        """Noise (B, S, H, A); a row's noise is a function of (its seed, its replan number, iteration) alone.

        Args:
            seeds, replans: (B,) int64.
            iteration: of the search.
            shape: (S, H, A).
        """
        generator = torch.Generator()
        noise = torch.empty(len(seeds), *shape)
        for row, (seed, replan) in enumerate(zip(seeds.tolist(), replans.tolist(), strict=True)):
            generator.manual_seed(mix(seed, replan, iteration))
            torch.randn(shape, generator=generator, out=noise[row])
            if self.correlation:  # row by row: a product over all rows rounds differently with their number
                noise[row] = torch.einsum("hk,ska->sha", self._factor(shape[1]), noise[row])
        return noise.to(seeds.device)

    def _factor(self, horizon: int) -> Tensor:
        steps = torch.arange(horizon, dtype=torch.float64)
        covariance = self.correlation ** (steps[:, None] - steps).abs()
        return torch.linalg.cholesky(covariance).float()
