"""Where candidates come from: noise of a stated colour around a mean, or categories.

A new Gaussian proposal is one method, `basis`: the noise of a candidate is `basis @ white`, so each row of the
basis has norm one where the variance of a step is to be one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from planners import noise
from planners.errors import InputError
from planners.limits import Limits


class Proposal:
    """Gaussian candidates: mean + std * noise. This base class is white: steps are independent."""

    def basis(self, horizon: int) -> Tensor:
        """(H, K): how K independent numbers make the noise of H steps."""
        return torch.eye(horizon)

    def rest(self, limits: Limits) -> Tensor:
        """(A,), where a fresh search is centred: no action, or the action nearest to none."""
        return torch.zeros_like(limits.low).clamp(limits.low, limits.high)

    def centre(self, mean: Tensor) -> Tensor:
        """The candidate (..., H, A) that stands for a mean."""
        return mean

    def draw(self, mean: Tensor, std: Tensor, basis: Tensor, key_B: Tensor, samples: int) -> Tensor:
        """Candidates (B, S, H, A), before any limit; a row is a function of its own mean, std and key.

        Args:
            mean, std: (B, H, A).
            basis: as from `basis`, on the mean's device.
            key_B: see `noise.keys`.
            samples: S.
        """
        white = noise.normal(key_B, (samples, mean.shape[-1], basis.shape[1]))
        # on a CPU one product per row, aligned in memory: else it would round differently in another batch
        on_cpu = mean.device.type == "cpu"
        shaped = torch.stack([row.clone() @ basis.T for row in white]) if on_cpu else white @ basis.T
        return torch.addcmul(mean[:, None], std[:, None], shaped.transpose(2, 3))


class White(Proposal):
    """Independent steps."""


class Coloured(Proposal):
    """Noise whose neighbouring steps correlate: corr(e_s, e_t) = correlation ** |s - t|, variance one.

    A stationary first-order autoregressive process, exact through the Cholesky factor of its covariance.
    """

    def __init__(self, *, correlation: float = 0.7) -> None:
        if not 0 <= correlation < 1:
            raise InputError(f"correlation must be in [0, 1), got {correlation}")
        self.correlation = correlation

    def basis(self, horizon: int) -> Tensor:
        """See `Proposal.basis`."""
        steps = torch.arange(horizon, dtype=torch.float64)
        return torch.linalg.cholesky(self.correlation ** (steps[:, None] - steps).abs()).float()


class PowerLaw(Proposal):
    """Noise of power spectrum 1 / f ** beta over the horizon, variance one at every step (Timmer & Koenig 1995).

    iCEM's noise, but per environment step, and scaled by the exact variance instead of each sequence's own, which
    would make short horizons heavy-tailed. The mean over the horizon gets the power of the lowest frequency.
    """

    def __init__(self, *, beta: float = 2.0) -> None:
        if beta < 0:
            raise InputError(f"beta must be at least 0 (white), got {beta}")
        self.beta = beta

    def basis(self, horizon: int) -> Tensor:
        """See `Proposal.basis`: the real Fourier basis, weighted by the square root of the spectrum."""
        wave = torch.arange(horizon, dtype=torch.float64)
        k = (wave + 1).div(2, rounding_mode="floor")  # constant, cos 1, sin 1, cos 2, sin 2, ...
        angle = 2 * torch.pi * torch.arange(horizon, dtype=torch.float64)[:, None] * k / horizon
        waves = torch.where(wave % 2 == 1, angle.cos(), angle.sin())
        waves[:, 0] = 2**-0.5
        if horizon % 2 == 0:
            waves[:, -1] *= 2**-0.5  # the highest frequency has no sine to its cosine
        weighted = waves * k.clamp(min=1) ** (-self.beta / 2)
        return (weighted / weighted[0].norm()).float()


class Spline(Proposal):
    """Noise at evenly spaced knots, held (order 0), linear (1) or cubic (3, Catmull-Rom) between them.

    The parametrisation of MuJoCo MPC's predictive sampling (arXiv 2212.00541).
    """

    def __init__(self, *, knots: int = 5, order: int = 3) -> None:
        if order not in (0, 1, 3) or knots < 2:
            raise InputError(f"a spline needs knots >= 2 and order 0, 1 or 3; got {knots} and {order}")
        self.knots, self.order = knots, order

    def basis(self, horizon: int) -> Tensor:
        """See `Proposal.basis`."""
        if self.order == 0:
            left = torch.arange(horizon) * self.knots // horizon
            return torch.nn.functional.one_hot(left, self.knots).float()
        place = torch.linspace(0, self.knots - 1, horizon, dtype=torch.float64)
        left = place.floor().clamp(max=self.knots - 2)
        u = place - left
        if self.order == 1:
            weights = {0: 1 - u, 1: u}
        else:
            weights = {
                -1: (-u + 2 * u**2 - u**3) / 2,
                0: (2 - 5 * u**2 + 3 * u**3) / 2,
                1: (u + 4 * u**2 - 3 * u**3) / 2,
                2: (u**3 - u**2) / 2,
            }
        basis = torch.zeros(horizon, self.knots, dtype=torch.float64)
        for offset, weight in weights.items():
            knot = (left.long() + offset).clamp(0, self.knots - 1)
            basis.scatter_add_(1, knot[:, None], weight[:, None])
        return (basis / basis.norm(dim=1, keepdim=True)).float()


class Kernel(Proposal):
    """Smooth noise: covariance exp(-(s - t)^2 / (2 length^2)) between steps, variance one (as in kernel MPPI)."""

    def __init__(self, *, length: float = 4.0) -> None:
        if length <= 0:
            raise InputError(f"length must be positive (environment steps), got {length}")
        self.length = length

    def basis(self, horizon: int) -> Tensor:
        """See `Proposal.basis`."""
        steps = torch.arange(horizon, dtype=torch.float64)
        covariance = torch.exp(-0.5 * ((steps[:, None] - steps) / self.length) ** 2)
        factor = torch.linalg.cholesky(covariance + 1e-8 * torch.eye(horizon))
        return (factor / factor.norm(dim=1, keepdim=True)).float()


class Categorical(Proposal):
    """Discrete actions, one-hot: the mean holds probabilities, candidates hold ones and zeros, std is not used.

    Args:
        groups: sizes of independent choices that make up the action's A numbers; () means one choice of A.
        smoothing: share of the uniform distribution in every draw, so that no choice dies out.
    """

    def __init__(self, *, groups: tuple[int, ...] = (), smoothing: float = 0.05) -> None:
        if not 0 <= smoothing < 1 or any(size < 2 for size in groups):
            raise InputError(f"groups need at least 2 choices, 0 <= smoothing < 1; got {groups}, {smoothing}")
        self.groups, self.smoothing = tuple(groups), smoothing

    def rest(self, limits: Limits) -> Tensor:
        """Uniform probabilities."""
        sizes = self.groups or (len(limits.low),)
        if (limits.low != 0).any() or (limits.high != 1).any():
            raise InputError(
                "discrete actions are one-hot, with bounds 0 and 1; this action has bounds "
                f"{limits.low.tolist()}, {limits.high.tolist()}: use cem, icem or mppi"
            )
        if sum(sizes) != len(limits.low):
            raise InputError(f"groups {self.groups} make {sum(sizes)} numbers, the action has {len(limits.low)}")
        return torch.cat([torch.full((size,), 1 / size, device=limits.low.device) for size in sizes])

    def centre(self, mean: Tensor) -> Tensor:
        """The most probable choices."""
        return self._choose(mean)

    def draw(self, mean: Tensor, std: Tensor, basis: Tensor, key_B: Tensor, samples: int) -> Tensor:
        """See `Proposal.draw`; by the Gumbel-max trick."""
        gumbel = -torch.log(-torch.log(noise.uniform(key_B, (samples, *mean.shape[1:]))))
        smooth = torch.cat(
            [torch.lerp(p, torch.full_like(p, 1 / p.shape[-1]), self.smoothing) for p in self._split(mean)], dim=-1
        )
        return self._choose(smooth.log()[:, None] + gumbel)

    def _split(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.split(self.groups or (x.shape[-1],), dim=-1)

    def _choose(self, score: Tensor) -> Tensor:
        one_hot = [
            torch.zeros_like(part).scatter(-1, part.argmax(-1, keepdim=True), 1) for part in self._split(score)
        ]
        return torch.cat(one_hot, dim=-1)
