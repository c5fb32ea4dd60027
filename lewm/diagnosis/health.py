"""Numbers that fall when a latent space collapses."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def effective_rank(z_ND: Tensor) -> float:
    """exp(entropy of the normalised covariance spectrum): D for isotropic latents, 1 for a line.

    Roy and Vetterli 2007. It does not see a curved sheet of few dimensions that fills the space; a low value is
    proof of collapse, a high one is not proof of health.
    """
    spectrum = torch.linalg.eigvalsh(torch.cov(z_ND.float().T)).clamp(min=0)
    share = spectrum / spectrum.sum().clamp(min=1e-12)
    return float(torch.exp(-(share * share.clamp(min=1e-12).log()).sum()))
