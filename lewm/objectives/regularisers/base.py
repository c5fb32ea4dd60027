"""What all regularisers share: which latents are compared with each other, and what is taken off them first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from lewm.objectives.encoded import Encoded
from lewm.registry import register
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
        centre: subtract nothing (`none`), the mean of the `batch`, or each `window`'s own mean over time: then what
            stays the same during a window takes no room from what moves (TC-SIGReg, arXiv 2607.26924).
        constants: with `centre=window`, weight of the same measure of the windows' means, relative to that of the
            residuals. Without it what is constant, a goal say, may collapse; the same measure of the latents
            themselves would make it collapse, as the residuals alone have the whole variance already.
    """

    heads: Mapping[str, Mapping[str, Any]] = {}
    link = "none"
    label = "regularisation"

    def __init__(self, *, weight: float, axis: str = "batch", centre: str = "none", constants: float = 0.0) -> None:
        for name, value, known in (("axis", axis, AXES), ("centre", centre, CENTRES)):
            if value not in known:
                raise InputError(f"a regulariser's {name} is one of {', '.join(known)}, got '{value}'")
        if not weight >= 0:
            raise InputError(f"the weight of a regulariser must be at least 0, got {weight}")
        if not constants >= 0 or (constants and centre != "window"):
            raise InputError(f"constants is a weight for centre=window, got {constants} with centre={centre}")
        self.weight, self.axis, self.centre, self.constants = weight, axis, centre, constants

    def __call__(self, encoded: Encoded) -> Tensor:
        """Scalar: the mean over groups, before the weight; float32 at least, also under autocast."""
        z = self.latents(encoded)
        with torch.autocast(z.device.type, enabled=False):
            z = encoded.gather(z)
            z = z if z.dtype == torch.float64 else z.float()
            if self.centre != "window":
                return self.measure(self._groups(z), encoded.generator)
            mean = z.mean(1, keepdim=True)
            value = self.measure(self._groups(z - mean), encoded.generator)
            if self.constants:
                value = value + self.constants * self.measure(rearrange(mean, AXES["batch"]), encoded.generator)
            return value

    def latents(self, encoded: Encoded) -> Tensor:
        """(B, T, D) of what is measured."""
        return encoded.z_BTD

    def _groups(self, z_BTD: Tensor) -> Tensor:
        z_GND = rearrange(z_BTD, AXES[self.axis])
        return z_GND - z_GND.mean(1, keepdim=True) if self.centre == "batch" else z_GND

    def measure(self, z_GND: Tensor, generator: torch.Generator) -> Tensor:
        """How far N latents are from what they should be, mean over G groups; scalar."""
        raise NotImplementedError


def check_pairs(z_GND: Tensor, name: str) -> None:
    """Refuse a group of one latent, of which there are no pairs."""
    if z_GND.shape[1] < 2:
        raise InputError(
            f"{name} compares each latent with the others, and got one alone: lower trainer.accumulate, so that a "
            "micro-batch has 2 rows, or choose objective.regulariser.axis=pooled"
        )


@register("regulariser", "none")
class Nothing(Regulariser):
    """No regulariser: something else keeps latents apart, as inverse dynamics does in SMWM and Delta-JEPA."""

    def __init__(self) -> None:
        super().__init__(weight=0.0)

    def measure(self, z_GND: Tensor, generator: torch.Generator) -> Tensor:
        """Zero."""
        return 0 * z_GND.sum()


def std(x: Tensor, dim: int) -> Tensor:
    """Population standard deviation, with gradient 0 instead of NaN where all are equal."""
    return (x.var(dim, correction=0) + 1e-12).sqrt()
