"""Numbers that change when a latent space collapses, cheap enough for every logged training step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lewm.objectives.regularisers import EppsPulley, Independent
from lewm.types import InputError

ACTIVE = 1e-6  # directions with less than this share of the largest variance do not count as used
NULL = 1.0525  # expectation of N times the statistic of Gaussian latents, on its default quadrature
DIRECTIONS = 64
CHUNK = 1024  # rows of the distance matrix held at once
MIN_STD, MIN_RANK, MIN_DIMENSION = 0.1, 1.5, 1.2  # below one of these there is no plane left


@dataclass(frozen=True)
class Health:
    """What a cloud of N latents of D dimensions looks like.

    Attributes:
        mean_norm: length of the mean over sqrt(D), the typical length of a standard Gaussian; 0 if centred.
        std, std_min: standard deviation per dimension, their mean and the smallest.
        effective_rank: exp(entropy of the covariance spectrum), 1 to D.
        participation_ratio: (sum of the spectrum)^2 / sum of its squares, 1 to D.
        condition: largest over smallest variance of a principal direction that is used at all (`ACTIVE`).
        two_nn: intrinsic dimension; never above that of what the pictures show.
        epps_pulley: N times the sliced Epps-Pulley statistic in units of its expectation for Gaussian latents: 1 is
            Gaussian at this N, 0.382 N all latents at zero.
        episode_share: share of variance that is constant within an episode; NaN where episodes were not given.
    """

    mean_norm: float
    std: float
    std_min: float
    effective_rank: float
    participation_ratio: float
    condition: float
    two_nn: float
    epps_pulley: float
    episode_share: float

    @property
    def complaints(self) -> list[str]:
        """What is wrong beyond doubt, a sentence each; an empty list is not a proof of health."""
        found = []
        if self.std < MIN_STD:
            found.append(f"the latents have collapsed: standard deviation {self.std:.2g}, a Gaussian has 1")
        if self.effective_rank < MIN_RANK:
            found.append(f"the latents lie on a line: effective rank {self.effective_rank:.1f}")
        if self.two_nn < MIN_DIMENSION:  # false for NaN: too few distinct points
            found.append(
                f"the latents are folded onto a curve: two-NN dimension {self.two_nn:.1f} (the world may be one)"
            )
        return found


@torch.no_grad()
def health(z_ND: Tensor, episodes_N: Tensor | None = None) -> Health:
    """Examine N >= 3 latents (N, D), drawn independently: one frame per window.

    Neighbours in time are neighbours in space, so that several frames per window lower `two_nn` towards 1.

    Args:
        episodes_N: a number per latent, the same for latents of one episode.

    Raises:
        InputError: fewer than 3 latents, or one that is not finite.
    """
    if z_ND.ndim != 2 or len(z_ND) < 3:
        raise InputError(f"health needs at least 3 latents (N, D), got shape {tuple(z_ND.shape)}")
    z = z_ND.detach().double()
    if not z.isfinite().all():
        raise InputError("the latents are not finite any more; lower the learning rate or look at the inputs")
    spectrum, std = _spectrum(z), z.std(0)
    active = spectrum[spectrum > ACTIVE * spectrum[-1]]
    directions = Independent(count=DIRECTIONS)(z.shape[1], torch.Generator().manual_seed(0)).to(z)
    return Health(
        mean_norm=float(z.mean(0).square().mean().sqrt()),
        std=float(std.mean()),
        std_min=float(std.min()),
        effective_rank=_effective_rank(spectrum),
        participation_ratio=float(spectrum.sum().square() / spectrum.square().sum().clamp(min=1e-300)),
        condition=float(active[-1] / active[0]) if len(active) else 1.0,
        two_nn=two_nn(z),
        epps_pulley=len(z) * float(EppsPulley()(z @ directions).mean()) / NULL,
        episode_share=float("nan") if episodes_N is None else episode_share(z, episodes_N),
    )


@torch.no_grad()
def effective_rank(z_ND: Tensor) -> float:
    """exp(entropy of the normalised covariance spectrum): D for isotropic latents, 1 for a line.

    Roy and Vetterli 2007. It does not see a curved sheet of few dimensions that fills the space; a low value is
    proof of collapse, a high one is not proof of health: see `two_nn`.
    """
    return _effective_rank(_spectrum(z_ND.double()))


@torch.no_grad()
def two_nn(z_ND: Tensor, censored: float = 0.1) -> float:
    """Intrinsic dimension from the two nearest neighbours of each point (Facco et al. 2017, Sci. Rep. 7, 12140).

    On a d-dimensional sheet, however curved, mu = r_2 / r_1 has P(mu > m) = m^-d where the density hardly changes
    between neighbours. The largest share `censored` of the mu, where that fails first, enters as "at least this
    much"; with k of N left, sorted,

        d = (k - 1) / (sum_{i <= k} log mu_i + (N - k) log mu_k),

    the unbiased maximum-likelihood form; the paper fits a line to the same points. Dimensions above about ten are
    underestimated at any N one can afford (192 Gaussian ones read about 60 at N = 128), which a comparison of two
    models on the same N does not mind. Points that occur twice count once; on a
    grid, where distances tie, it reads too high. NaN with fewer than 3 distinct points.
    """
    z = torch.unique(z_ND.double(), dim=0)
    if len(z) < 3:
        return float("nan")
    z = z - z.mean(0)
    length = z.square().sum(1)
    ratios = []
    for begin in range(0, len(z), CHUNK):
        rows = slice(begin, begin + CHUNK)
        squares = (length[rows, None] + length - 2 * z[rows] @ z.T).clamp(min=0)
        squares[torch.arange(len(squares)), torch.arange(begin, begin + len(squares))] = torch.inf
        first, second = squares.topk(2, largest=False).values.unbind(1)
        ratios.append((second / first.clamp(min=1e-300)).log() / 2)
    logs = torch.cat(ratios).sort().values
    kept = max(2, round(len(logs) * (1 - censored)))
    total = logs[:kept].sum() + (len(logs) - kept) * logs[kept - 1]
    return float((kept - 1) / total.clamp(min=1e-300))


@torch.no_grad()
def episode_share(z_ND: Tensor, episodes_N: Tensor) -> float:
    """Share of the variance that is constant within an episode: 0 for independent frames, 1 for a name tag.

    The intraclass correlation of the one-way analysis of variance, traces over the dimensions (Fisher 1925), free
    of the 1 / T that a plain ratio gives independent frames:

        (B - W) / (B + (n - 1) W),

    B and W the mean squares between and within episodes, n the (corrected) frames per episode. What an encoder
    leaks is the excess over the same number for the true state, which is slow, too (arXiv 2606.07770, 2607.26924).
    NaN where every episode has one frame, or there is one episode.
    """
    z = z_ND.double()
    _, label, count = torch.unique(episodes_N.to(z.device), return_inverse=True, return_counts=True)
    total, groups = len(z), len(count)
    if groups < 2 or total == groups:
        return float("nan")
    means = torch.zeros(groups, z.shape[1], dtype=z.dtype, device=z.device).index_add_(0, label, z)
    means = means / count[:, None]
    within = (z - means[label]).square().sum() / (total - groups)
    between = (count[:, None] * (means - z.mean(0)).square()).sum() / (groups - 1)
    size = (total - count.double().square().sum() / total) / (groups - 1)
    scale = between + (size - 1) * within
    return float((between - within) / scale) if scale > 0 else float("nan")


def _spectrum(z_ND: Tensor) -> Tensor:
    """Eigenvalues of the covariance, ascending."""
    z = z_ND - z_ND.mean(0)
    small = z.T @ z if len(z) > z.shape[1] else z @ z.T
    return torch.linalg.eigvalsh(small / (len(z) - 1)).clamp(min=0)


def _effective_rank(spectrum: Tensor) -> float:
    share = spectrum / spectrum.sum().clamp(min=1e-12)
    return float(torch.exp(-(share * share.clamp(min=1e-12).log()).sum()))
