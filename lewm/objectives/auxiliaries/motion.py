"""Terms on how latents move within a window; they need no head and no actions."""

from __future__ import annotations

from torch import Tensor

from lewm.objectives.auxiliaries.rows import full_precision, widened
from lewm.objectives.encoded import Encoded
from lewm.objectives.objective import Auxiliary
from lewm.registry import register
from lewm.types import InputError


@register("auxiliary", "straightening")
class Straightening(Auxiliary):
    """Trajectories without bends: temporal straightening (arXiv 2603.12231).

        mean 1 - cos(z_{t+1} - z_t, z_{t+2} - z_{t+1})

    On a straight path the squared distance to a goal falls all the way, which planners by gradient profit from
    most. The lengths in the cosine are sqrt(|v|^2 / D + `floor`^2) sqrt(D), so that a latent that stands still has
    no direction and gives no gradient of 1 / 0. The weight is SD-JEPA's (arXiv 2605.31111, the same term beside
    SIGReg).
    """

    label = "straightening"

    def __init__(self, *, weight: float = 0.05, floor: float = 1e-3) -> None:
        super().__init__(weight=weight)
        if not floor > 0:
            raise InputError(f"straightening needs floor > 0, got {floor}")
        self.floor = floor

    def __call__(self, encoded: Encoded) -> Tensor:
        """Scalar in [0, 2]."""
        if encoded.z_BTD.shape[1] < 3:
            raise InputError(f"straightening needs 3 frames, got {encoded.z_BTD.shape[1]}: set trainer.frames")
        with full_precision(encoded.z_BTD):
            velocity = widened(encoded.z_BTD).diff(dim=1)
            direction = velocity * (velocity.square().mean(-1, keepdim=True) + self.floor**2).rsqrt()
            return 1 - (direction[:, :-1] * direction[:, 1:]).mean(-1).mean()


@register("auxiliary", "temporal_similarity")
class TemporalSimilarity(Auxiliary):
    """mean |z_{t+1} - z_t|^2 over coordinates: latents that change little between frames (PLDM, arXiv 2502.14819).

    It falls to 0 with the scale of the latents, so it needs a regulariser that holds it. The weight is what LeWM's
    authors found best for PLDM on Push-T (arXiv 2603.19312, appendix).
    """

    label = "temporal_similarity"

    def __init__(self, *, weight: float = 0.2) -> None:
        super().__init__(weight=weight)

    def __call__(self, encoded: Encoded) -> Tensor:
        """Scalar."""
        return encoded.z_BTD.diff(dim=1).square().mean()
