"""Is the latent space the true state, seen through a linear map? And through a rotation?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lewm.diagnosis.probe import CONSTANT, RidgeProbe

STRENGTH = 1e-6  # of the ridge: enough where columns are copies of each other, too little to be seen


@dataclass(frozen=True)
class Identifiability:
    """How far latents are the true state up to a linear map (scores) and up to a rotation (orthogonality).

    Attributes:
        state_from_latent: R2 of a linear map z -> s on held-out latents, mean over the axes that vary.
        latent_from_state: share of the latents' variance that a linear map s -> z explains, held out. Low with a
            high `state_from_latent`: the latents are a curved image of the state, or hold something else beside it.
        orthogonality: 0 if that map turns and scales all directions of the whitened state alike.
    """

    state_from_latent: float
    latent_from_state: float
    orthogonality: float


@torch.no_grad()
def identifiability(z_ND: Tensor, state_NP: Tensor, z_held_ND: Tensor, state_held_NP: Tensor) -> Identifiability:
    """Linear identifiability in the sense of Klindt, LeCun and Balestriero (arXiv 2605.26379).

    Alignment and Gaussian latents identify Gaussian true states up to an orthogonal map A; plans for costs that do
    not change under rotation are then the same in both spaces. With s whitened and z ~ A s,

        orthogonality = || A^T A / c - I ||_F / sqrt(P),   c = tr(A^T A) / P.

    The paper has c = 1, as its latents have as many dimensions as the state; ours have more, so the scale is free.
    Fitted on (z, state), scored on the held-out pair; axes of the state that do not vary are left out.
    """
    moves = (state_NP.amax(0) - state_NP.amin(0) > CONSTANT) & (
        state_held_NP.amax(0) - state_held_NP.amin(0) > CONSTANT
    )
    z, z_held = z_ND.double(), z_held_ND.double()
    whiten, mean = _whitener(state_NP[:, moves].double())
    state, state_held = ((s[:, moves].double() - mean) @ whiten for s in (state_NP, state_held_NP))
    back = RidgeProbe.fit(z, state_NP[:, moves], STRENGTH)
    forth = RidgeProbe.fit(state, z, STRENGTH)
    missed = (z_held - forth.predict(state_held)).square().sum()
    spread = (z_held - z_held.mean(0)).square().sum()
    gram = forth.weight @ forth.weight.T  # A^T A, (P, P)
    count = len(gram)
    scaled = gram / gram.diagonal().mean().clamp(min=1e-300)
    identity = torch.eye(count, dtype=gram.dtype, device=gram.device)
    return Identifiability(
        float(back.r2(z_held, state_held_NP[:, moves]).mean()),
        float(1 - missed / spread),
        float((scaled - identity).norm() / count**0.5),
    )


def _whitener(s_NP: Tensor) -> tuple[Tensor, Tensor]:
    """W (P, R) and the mean, so that (s - mean) W has unit covariance in the R directions that vary."""
    mean = s_NP.mean(0)
    std = s_NP.std(0)
    values, axes = torch.linalg.eigh(torch.corrcoef(s_NP.T).reshape(len(std), len(std)))
    used = values > 1e-9 * values[-1]
    return (axes[:, used] / values[used].sqrt()) / std[:, None], mean
