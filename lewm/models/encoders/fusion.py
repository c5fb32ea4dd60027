"""Several cameras and sensors: an encoder for each column, and their features side by side."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lewm.models.observations import is_image
from lewm.registry import build, get, register
from lewm.types import InputError


def encoder_of(column: str, shape: Sequence[int], spec: Mapping[str, Any] | str, **facts: Any) -> nn.Module:
    """An encoder of a column whose rows have this shape.

    Args:
        spec: `{"name": registered name, **keywords}`, or the name alone.
        facts: what other constructors may ask for.

    Raises:
        InputError: the encoder is made for something else.
    """
    spec = {"name": spec} if isinstance(spec, str) else spec
    if is_image(shape) and shape[0] != shape[1]:
        raise InputError(f"column '{column}' holds images of shape {tuple(shape)}; encoders take square ones")
    facts |= {"image_size": shape[0]} if is_image(shape) else {"length": math.prod(shape)}
    name = spec.get("name")
    if name and not facts.keys() & inspect.signature(get("encoder", name)).parameters.keys():
        held = "images" if is_image(shape) else "vectors"
        raise InputError(f"encoder '{name}' does not take {held}, which column '{column}' holds; choose another")
    return build("encoder", spec, **facts)


@register("encoder", "fusion")
class Fusion(nn.Module):
    """One encoder per column, features concatenated; the projector that follows mixes them.

    Args:
        shapes: column -> shape of its rows, of all there are.
        parts: column -> encoder, as `{"name": ..., **keywords}` or a bare name: {pixels: conv, proprio: vector}.
    """

    def __init__(
        self, shapes: Mapping[str, Sequence[int]], *, parts: Mapping[str, Mapping[str, Any] | str] | None = None
    ) -> None:
        super().__init__()
        if not (isinstance(parts, Mapping) and parts and all(isinstance(v, Mapping | str) for v in parts.values())):
            raise InputError(
                "encoder 'fusion' needs an encoder for each column, parts={pixels: conv, proprio: vector} for "
                f"instance; got {parts}"
            )
        unknown = sorted(set(parts) - set(shapes))
        if unknown:
            raise InputError(f"encoder 'fusion' has parts for the columns {unknown}; there are {sorted(shapes)}")
        self.columns = tuple(parts)
        # A list, as a column's name may hold what a module's may not.
        self.parts = nn.ModuleList(encoder_of(column, shapes[column], spec) for column, spec in parts.items())
        self.features = sum(part.features for part in self.parts)

    def forward(self, observed: Mapping[str, Tensor]) -> Tensor:
        """Column -> (N, ...), each as its encoder takes it -> (N, features)."""
        pairs = zip(self.columns, self.parts, strict=True)
        return torch.cat([part(observed[column]) for column, part in pairs], dim=-1)
