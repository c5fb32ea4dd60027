"""Backbones of the timm package."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lewm.extras import need
from lewm.registry import register
from lewm.types import InputError, nearest


@register("encoder", "timm")
class TimmEncoder(nn.Module):
    """The pooled features of any model of timm, from scratch or from published weights.

    Args:
        model: its name there. Published weights expect ImageNet's statistics: give `model.pixel_mean` and
            `model.pixel_std`.
        pretrained: start training from the published weights; a checkpoint holds its own, and never asks for these.
        resize: side that images are scaled to, bilinearly; 0 for as they are, or the model's own where it has only
            one.
    """

    def __init__(
        self, image_size: int, *, model: str = "resnet18", pretrained: bool = False, resize: int = 0
    ) -> None:
        super().__init__()
        timm = need("timm", "timm")
        if not timm.is_model(model):
            raise InputError(f"timm has no model '{model}': {nearest(model, timm.list_models())}")
        self.net: nn.Module = timm.create_model(model, pretrained=False, num_classes=0)
        config = self.net.pretrained_cfg
        own = config["input_size"][-1] if config.get("fixed_input_size") else image_size
        self.model, self.pretrained, self.side = model, pretrained, resize or own
        self.features: int = self.net.head_hidden_size  # after pooling; `num_features` is before it

    def download(self) -> None:
        """Take over the published weights, if they are wanted."""
        if self.pretrained:
            published = need("timm", "timm").create_model(self.model, pretrained=True, num_classes=0)
            self.net.load_state_dict(published.state_dict())

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, h, w) -> (N, features)."""
        if images.shape[-1] != self.side:
            images = F.interpolate(images, size=(self.side, self.side), mode="bilinear", antialias=True)
        return self.net(images)
