"""What all regularisers share: which latents are compared with each other, and what is taken off them first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from lewm.objectives.encoded import Encoded
from lewm.types import InputError

AXES = {  # (B, T, D) -> (groups, N, D): the statistic is taken over N and averaged over groups
    "batch": "b t d -> t b d",
    "pooled": "b t d -> 1 (b t) d",
    "time": "b t d -> b t d",
}
CENTRES = ("none", "batch", "window")


class Regulariser:
    """Base: groups and centres latents, in float32 and over all processes, and leaves `measure` to a subclass.

    Args:
        weight: of the measure per sample, so that it means the same at any batch size.
        axis: test over the `batch` at each time (LeWM), over batch and time `pooled`, or over the `time` of each
            window (LeNEPA, arXiv 2607.00958).
        centre: subtract nothing (`none`), the mean of the `batch`, or each `window`'s own mean over time (TC-SIGReg,
            arXiv 2607.26924): then what stays the same during a window is not asked to spread.
    """

    heads: Mapping[str, Mapping[str, Any]] = {}
    link = "none"
    label = "regularisation"

    def __init__(self, *, weight: float, axis: str = "batch", centre: str = "none") -> None:
        for name, value, known in (("axis", axis, AXES), ("centre", centre, CENTRES)):
            if value not in known:
                raise InputError(f"a regulariser's {name} is one of {', '.join(known)}, got '{value}'")
        if not weight >= 0:
            raise InputError(f"the weight of a regulariser must be at least 0, got {weight}")
        self.weight, self.axis, self.centre = weight, axis, centre

    def __call__(self, encoded: Encoded) -> Tensor:
        """Scalar: the mean over groups, before the weight; float32 at least, also under autocast."""
        with torch.autocast(encoded.z_BTD.device.type, enabled=False):
            z = encoded.gather(encoded.z_BTD)
            z = z if z.dtype == torch.float64 else z.float()
            if self.centre == "window":
                z = z - z.mean(1, keepdim=True)
            z_GND = rearrange(z, AXES[self.axis])
            if self.centre == "batch":
                z_GND = z_GND - z_GND.mean(1, keepdim=True)
            return self.measure(z_GND, encoded.generator)

    def measure(self, z_GND: Tensor, generator: torch.Generator) -> Tensor:
        """How far N latents are from what they should be, mean over G groups; scalar."""
        raise NotImplementedError
