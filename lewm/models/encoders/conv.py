"""The default on a CPU: a small conv net."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from lewm.models.layers import Linear
from lewm.registry import register
from lewm.types import InputError


class ResidualBlock(nn.Sequential):
    """x + f(x), f being twice GroupNorm -> SiLU -> 3 x 3 convolution (norms first: arXiv 1603.05027)."""

    def __init__(self, channels: int) -> None:
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [nn.GroupNorm(1, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1)]
        super().__init__(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, h, w)."""
        return x + super().forward(x)


@register("encoder", "conv")
class ConvEncoder(nn.Module):
    """A small strided conv net, the CPU default.

    A `stem` x `stem` space-to-depth convolution, then 3 x 3 stride-2 convolutions, each followed by GroupNorm,
    SiLU and `blocks` residual blocks; a linear layer over the remaining map, so that position survives.
    """

    def __init__(
        self,
        image_size: int,
        *,
        channels: Sequence[int] = (32, 64, 128),
        stem: int = 4,
        blocks: int = 0,
        features: int = 256,
    ) -> None:
        super().__init__()
        if min(*channels, stem, features, blocks + 1) < 1:
            raise InputError(
                "encoder 'conv' needs channels, stem and features >= 1 and blocks >= 0, got "
                f"{list(channels)}, {stem}, {features} and {blocks}"
            )
        shrink = stem * 2 ** (len(channels) - 1)
        if image_size % shrink:
            raise InputError(f"encoder 'conv' needs an image size divisible by {shrink}, got {image_size}")
        layers: list[nn.Module] = []
        for k, (inside, outside) in enumerate(zip((3, *channels[:-1]), channels, strict=True)):
            shape = {"kernel_size": 3, "stride": 2, "padding": 1} if k else {"kernel_size": stem, "stride": stem}
            layers += [nn.Conv2d(inside, outside, **shape), nn.GroupNorm(1, outside), nn.SiLU()]
            layers += [ResidualBlock(outside) for _ in range(blocks)]
        self.features = features
        self.net = nn.Sequential(
            *layers, nn.Flatten(), Linear(channels[-1] * (image_size // shrink) ** 2, features)
        )

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, h, w) -> (N, features)."""
        return self.net(images)
