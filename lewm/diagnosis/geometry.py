"""The shape of latent space: is it straight in time, predictable, in order, and does it turn with the picture?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from einops import rearrange
from torch import Tensor

from lewm.types import InputError

STILL = 1e-9  # a shorter step has no direction
PAIRS = 20_000


@torch.no_grad()
def straightness(z_BTD: Tensor) -> float:
    """Mean cosine of consecutive velocities: 1 on a straight line, -1 to and fro, about -0.5 for white noise.

        cos(z_{t+1} - z_t, z_{t+2} - z_{t+1})

    LeWM's reaches about 0.6 on Push-T without being asked to (arXiv 2603.19312, appendix H; as a loss: arXiv
    2603.12231). Steps that do not move are left out; NaN if none is left.
    """
    if z_BTD.ndim != 3 or z_BTD.shape[1] < 3:
        raise InputError(f"straightness needs 3 or more frames (B, T, D), got shape {tuple(z_BTD.shape)}")
    velocity = z_BTD.double().diff(dim=1)
    speed = velocity.norm(dim=-1)
    moving = (speed[:, :-1] > STILL) & (speed[:, 1:] > STILL)
    cosine = (velocity[:, :-1] * velocity[:, 1:]).sum(-1) / (speed[:, :-1] * speed[:, 1:])
    return float(cosine[moving].mean())


@torch.no_grad()
def transition_spectrum(
    before_ND: Tensor, after_NE: Tensor, held_before_MD: Tensor, held_after_ME: Tensor, strength: float = 1e-3
) -> Tensor:
    """Singular values of the whitened transition operator, as they are on held-out transitions: (min(D, E),).

        C_11^{-1/2} C_12 C_22^{-1/2} = U S V^T,   value_i = corr(u_i . x, v_i . x'),  x, x' whitened

    with x = (z_t, a_t), x' = z_{t+1} and C their covariances: how well a linear predictor knows the i-th best
    predictable direction of the next latent. The theory of JEPA world models bounds planning regret by the tail of
    such a spectrum, best rank-k risk = sum_{i>k} S_i^2 (arXiv 2606.27014), which says how many dimensions pay.
    Differences: the operator is taken in the latents' linear features, the action is an input instead of an index,
    and values are scored on transitions that did not shape the directions: on the fitted ones they all look good.
    They come in the order of S, so they need not fall strictly.

    Args:
        strength: added to the covariances of the standardised columns, against directions that hardly vary.
    """
    x, x_held = _standardised(before_ND, held_before_MD)
    y, y_held = _standardised(after_NE, held_after_ME)
    x_white, y_white = _inverse_root(x, strength), _inverse_root(y, strength)
    left, _, right = torch.linalg.svd(x_white @ (x.T @ y / len(x)) @ y_white, full_matrices=False)
    x_held, y_held = x_held @ x_white @ left, y_held @ y_white @ right.T
    x_held, y_held = x_held - x_held.mean(0), y_held - y_held.mean(0)
    scale = x_held.norm(dim=0) * y_held.norm(dim=0)
    return (x_held * y_held).sum(0) / scale.clamp(min=1e-300)


@torch.no_grad()
def rank_correlation(z_ND: Tensor, state_NP: Tensor, pairs: int = PAIRS, seed: int = 0) -> float:
    """Spearman correlation of latent with true distances over random pairs: 1 if one grows with the other.

    What a planner needs of a goal distance is this order. States should be scaled by the caller so that their
    distance means something. NaN if either never varies.
    """
    generator = torch.Generator().manual_seed(seed)
    first, gap = (
        torch.randint(0, n, (pairs,), generator=generator).to(z_ND.device) for n in (len(z_ND), len(z_ND) - 1)
    )
    second = (first + 1 + gap) % len(z_ND)
    ranks = [_ranks((x[first].double() - x[second].double()).norm(dim=1)) for x in (z_ND, state_NP)]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


def _ranks(values_N: Tensor) -> Tensor:
    """Ranks from 1, ties sharing their mean."""
    _, place, count = torch.unique(values_N, return_inverse=True, return_counts=True)
    last = count.cumsum(0).double()
    return (last - (count - 1) / 2)[place]


def _standardised(fitted: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
    fitted, held = fitted.double(), held.double()
    mean, std = fitted.mean(0), fitted.std(0, correction=0)
    scale = torch.where(std > STILL, std, torch.ones_like(std))
    return (fitted - mean) / scale, (held - mean) / scale


def _inverse_root(x_ND: Tensor, strength: float) -> Tensor:
    values, axes = torch.linalg.eigh(x_ND.T @ x_ND / len(x_ND))
    return (axes / (values.clamp(min=0) + strength).sqrt()) @ axes.T


# Turned and mirrored pictures (..., h, w, C).
SYMMETRIES: dict[str, Callable[[Tensor], Tensor]] = {
    "flip_x": lambda pixels: pixels.flip(-2),
    "flip_y": lambda pixels: pixels.flip(-3),
    "rotate_90": lambda pixels: pixels.rot90(1, (-3, -2)),
    "rotate_180": lambda pixels: pixels.rot90(2, (-3, -2)),
    "rotate_270": lambda pixels: pixels.rot90(3, (-3, -2)),
}


@torch.no_grad()
def relative_error(predicted_BLD: Tensor, z_BLD: Tensor) -> float:
    """Squared error over the variance of what was to be predicted: relMSE, 0 is perfect and 1 is the mean.

    The equivariance error of a symmetry g of the world is relMSE(g) / relMSE(0): encode turned pictures, predict
    with turned actions, compare with the same untouched. It is 1 for a model with that symmetry (arXiv 2606.03003
    reports 12 to 157 without) and says that the error is constant, not that it is low. The world itself must have
    the symmetry, walls and gravity included.
    """
    z = rearrange(z_BLD, "b l d -> (b l) d").double()
    error = (rearrange(predicted_BLD, "b l d -> (b l) d").double() - z).square().sum()
    return float(error / (z - z.mean(0)).square().sum())


def turn_actions(actions_BLKA: Tensor, matrix: Sequence[float] | Sequence[Sequence[float]]) -> Tensor:
    """Raw actions under a symmetry: a -> M a, M (A, A) in rows, or a factor for each of the A."""
    size = actions_BLKA.shape[-1]
    try:
        turn = torch.tensor(matrix, dtype=actions_BLKA.dtype)
    except (TypeError, ValueError):
        turn = torch.empty(0)
    turn = turn.diag() if turn.shape == (size,) else turn
    if turn.shape != (size, size):
        raise InputError(
            f"what a symmetry does to actions is {size} factors or {size} rows of {size} numbers, got {matrix}"
        )
    return actions_BLKA @ turn.T.to(actions_BLKA)
