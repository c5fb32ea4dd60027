"""An encoder that says where things are: for small objects on a plain ground, whose pose is what counts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lewm.registry import register
from lewm.types import InputError


@register("encoder", "keypoints")
class KeypointEncoder(nn.Module):
    """Each of `points` feature maps is read as a place and a strength: its spatial soft-argmax (arXiv 1509.06113).

        p_k = softmax_xy(m_k / T),   features = (sum_xy p_k x, sum_xy p_k y, sum_xy p_k m_k)   for each map m_k

    A `stem` x `stem` space-to-depth convolution, then 3 x 3 convolutions that keep its resolution, each followed by
    GroupNorm and SiLU; a 1 x 1 convolution makes the maps. What a code of places can vary in is where parts are: a
    blob's position gives two coordinates and no more, so that spreading the latents makes other points find other
    parts, and the parts' places are linear in an object's position and in the sine and cosine of its angle. A
    linear layer over a map (`conv`) offers any number of nonlinear functions of the largest blob's position first.

    Args:
        channels: of the stem and of each convolution after it.
        stem: pixels to a side of a map's cell.
        points: number of maps.
        temperature: T, of softmax; below 1, as the maps are near zero at first, and places all in the middle then.
    """

    def __init__(
        self,
        image_size: int,
        *,
        channels: Sequence[int] = (32, 48, 48),
        stem: int = 6,
        points: int = 32,
        temperature: float = 0.2,
    ) -> None:
        super().__init__()
        if not channels or min(*channels, stem, points) < 1 or not temperature > 0:
            raise InputError(
                "encoder 'keypoints' needs channels, stem and points >= 1 and temperature > 0, got "
                f"{list(channels)}, {stem}, {points} and {temperature}"
            )
        if image_size % stem or image_size // stem < 2:
            raise InputError(
                f"encoder 'keypoints' needs an image size of two or more stems of {stem}, got {image_size}; choose "
                "another model.encoder.stem (4 at 64 pixels), or model.image_size"
            )
        layers: list[nn.Module] = []
        for k, (inside, outside) in enumerate(zip((3, *channels[:-1]), channels, strict=True)):
            shape = {"kernel_size": 3, "padding": 1} if k else {"kernel_size": stem, "stride": stem}
            layers += [nn.Conv2d(inside, outside, **shape), nn.GroupNorm(1, outside), nn.SiLU()]
        self.net = nn.Sequential(*layers, nn.Conv2d(channels[-1], points, 1), nn.Flatten(2))
        self.features, self.temperature = 3 * points, temperature
        side = torch.linspace(-1, 1, image_size // stem)
        self.register_buffer("places", torch.cartesian_prod(side, side), persistent=False)  # (y, x) of the cells

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, h, w) -> (N, features)."""
        maps = self.net(images)
        share = (maps / self.temperature).softmax(-1)
        return torch.cat([(share @ self.places).flatten(1), (share * maps).sum(-1)], dim=1)
