"""Encoders: what is observed -> features (N, `features`). Register your own with one decorator.

An encoder of images asks for `image_size` and takes them normalised, (N, 3, h, w); one of vectors asks for `length`
and takes them standardised, (N, length). `Fusion` has one of them for each column it observes.
"""

from lewm.models.encoders.backbone import TimmEncoder
from lewm.models.encoders.conv import ConvEncoder
from lewm.models.encoders.fusion import Fusion, encoder_of
from lewm.models.encoders.keypoints import KeypointEncoder
from lewm.models.encoders.vector import VectorEncoder
from lewm.models.encoders.vit import ViTEncoder

__all__ = ["ConvEncoder", "Fusion", "KeypointEncoder", "TimmEncoder", "VectorEncoder", "ViTEncoder", "encoder_of"]
