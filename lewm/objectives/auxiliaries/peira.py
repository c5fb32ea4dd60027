"""PEIRA: predictability itself as the objective, without a law that latents should follow."""

from __future__ import annotations

import torch
from torch import Tensor

from lewm.objectives.auxiliaries.rows import full_precision, widened
from lewm.objectives.encoded import Encoded
from lewm.objectives.objective import Auxiliary
from lewm.registry import register
from lewm.types import InputError


@register("auxiliary", "peira")
class PEIRA(Auxiliary):
    """As many directions as possible in which prediction u and target v agree (PEIRA, arXiv 2605.17671).

        (-1/2 tr(S Q) + ridge / 2 E[|u|^2 + |v|^2]) / D,   S = E[u v' + v u'], N = E[u u' + v v'], Q = (N + ridge
        I)^-1

    A collapsed batch scores 0, a perfect prediction of white latents of variance (1 - ridge) / 2 the least
    possible, -(1 - ridge)^2 / 2. S and N are running means, held by the head `moments`; the gradient is that of

        E[u' Q (P u - v) + v' Q (P v - u)] / 2 + ridge / 2 E[|u|^2 + |v|^2]   with P = S Q and Q held fixed,

    equal to the one above where S and N are the batch's own (`rate` 1). The paper compares two views of a picture
    and lets `rate` go from 0.9 to 0.5; here u is the predictor's output, and `rate` stays. Its ridge was 0.1 to
    0.7. The division by D and the weight are ours: the term is then a mean over coordinates like the prediction
    error.

    Args:
        ridge: how much agreement a direction must have to be kept: a canonical correlation above it.
        rate: weight of the new batch in the running means.
    """

    label = "peira"

    def __init__(self, *, weight: float = 1.0, ridge: float = 0.1, rate: float = 0.5) -> None:
        super().__init__(weight=weight)
        if not 0 < ridge < 1:
            raise InputError(f"peira needs 0 < ridge < 1, got {ridge}")
        self.ridge = ridge
        self.heads = {"moments": {"name": "moments", "rate": rate}}

    def __call__(self, encoded: Encoded) -> Tensor:
        """Scalar; the value is the trace objective's, which says more than that of its stand-in."""
        with full_precision(encoded.z_BTD):
            latents = encoded.gather(encoded.predicted_BLD), encoded.gather(encoded.z_BTD)[:, 1:]
            u, v = (widened(x).flatten(0, 1) for x in latents)
            cross, auto = (moment.to(u) for moment in encoded.heads["moments"](u.detach(), v.detach()))
            dim = u.shape[-1]
            inverse = torch.linalg.inv(auto + self.ridge * torch.eye(dim).to(auto))
            share = cross @ inverse
            scale = self.ridge / 2 * (u.square().sum(-1) + v.square().sum(-1)).mean()
            # With rows u' the column Q (P u - v) is (u P' - v) Q': Q is symmetric.
            apart = (u * ((u @ share.T - v) @ inverse)).sum(-1) + (v * ((v @ share.T - u) @ inverse)).sum(-1)
            stand_in = apart.mean() / 2
            value = -share.trace() / 2
            return (stand_in + (value - stand_in).detach() + scale) / dim
