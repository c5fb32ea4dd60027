"""Models: encoders, predictors, and the world model that joins them."""

from lewm.models import links
from lewm.models.encoders import ConvEncoder, ViTEncoder
from lewm.models.predictors import AdaLNTransformer, Observed, Predictor, ResidualMLP
from lewm.models.world_model import SIZES, WorldModel, WorldModelConfig

__all__ = [
    "SIZES",
    "AdaLNTransformer",
    "ConvEncoder",
    "Observed",
    "Predictor",
    "ResidualMLP",
    "ViTEncoder",
    "WorldModel",
    "WorldModelConfig",
    "links",
]
