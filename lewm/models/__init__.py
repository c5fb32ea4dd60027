"""Models: encoders, predictors, and the world model that joins them."""

from lewm.models import heads, links
from lewm.models.encoders import ConvEncoder, Fusion, TimmEncoder, VectorEncoder, ViTEncoder
from lewm.models.observations import Sensor
from lewm.models.predictors import GRU, AdaLNTransformer, Affine, Observed, Predictor, Prefix, ResidualMLP
from lewm.models.world_model import SIZES, WorldModel, WorldModelConfig

__all__ = [
    "GRU",
    "SIZES",
    "AdaLNTransformer",
    "Affine",
    "ConvEncoder",
    "Fusion",
    "Observed",
    "Predictor",
    "Prefix",
    "ResidualMLP",
    "Sensor",
    "TimmEncoder",
    "VectorEncoder",
    "ViTEncoder",
    "WorldModel",
    "WorldModelConfig",
    "heads",
    "links",
]
