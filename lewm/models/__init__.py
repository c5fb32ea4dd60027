"""Models: encoders, predictors, and the world model that joins them."""

from lewm.models import heads, links
from lewm.models.encoders import ConvEncoder, ViTEncoder
from lewm.models.predictors import GRU, AdaLNTransformer, Affine, Observed, Predictor, Prefix, ResidualMLP
from lewm.models.world_model import SIZES, WorldModel, WorldModelConfig

__all__ = [
    "GRU",
    "SIZES",
    "AdaLNTransformer",
    "Affine",
    "ConvEncoder",
    "Observed",
    "Predictor",
    "Prefix",
    "ResidualMLP",
    "ViTEncoder",
    "WorldModel",
    "WorldModelConfig",
    "heads",
    "links",
]
