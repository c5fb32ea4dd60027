"""Links: what maps a projector's or predictor's output to a latent, (..., D) -> (..., D), without parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lewm.registry import register

register("link", "none")(nn.Identity)


@register("link", "sphere")
class Sphere(nn.Module):
    """Latents on the sphere of radius sqrt(D), so that a coordinate has unit variance (SPHERE-JEPA, arXiv
    2605.26900).

    There uniform latents project to nearly N(0, 1), and squared distance is 2 D (1 - cosine).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Scale to length sqrt(D)."""
        return F.normalize(x, dim=-1) * x.shape[-1] ** 0.5


@register("link", "rectified")
class Rectified(nn.Module):
    """ReLU(x), with the gradient of GELU(x) so that units that are off can come back (LpWM, arXiv 2608.22764)."""

    def forward(self, x: Tensor) -> Tensor:
        """ReLU forward, GELU backward."""
        smooth = F.gelu(x)
        return smooth + (torch.relu(x) - smooth).detach()
