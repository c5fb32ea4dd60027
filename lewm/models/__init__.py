"""Models: encoders, predictors, and the world model that joins them."""

from lewm.models.encoders import ConvEncoder, ViTEncoder
from lewm.models.predictors import AdaLNTransformer, Predictor, ResidualMLP
from lewm.models.world_model import SIZES, Context, WorldModel, WorldModelConfig

__all__ = [
    "SIZES",
    "AdaLNTransformer",
    "Context",
    "ConvEncoder",
    "Predictor",
    "ResidualMLP",
    "ViTEncoder",
    "WorldModel",
    "WorldModelConfig",
]
