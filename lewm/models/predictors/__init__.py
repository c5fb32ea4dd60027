"""Predictors: latents and action blocks in, the next latents out.

Contract. `forward(z_BTD, actions_BTE)` predicts, for each of the T frames, the latent one block later, looking at
this and earlier frames only (causal). `E` = action_block * A normalised actions. `history` is the longest window:
how many frames matter. To imagine, `observe` 1 to `history` frames and the E-vectors of the actions between them,
once; then `rollout` candidate futures (B, S, L, E) to latents (B, S, L, D), as often as a search needs. Whatever
is predicted passes through `link`, so that predictions live where encodings do.

Your own takes one file: subclass `Predictor`, decorate it with `@register("predictor", "name")`, write `forward`.
"""

from lewm.models.predictors.adaln_transformer import AdaLNTransformer
from lewm.models.predictors.affine import Affine
from lewm.models.predictors.base import Observed, Predictor
from lewm.models.predictors.gru import GRU
from lewm.models.predictors.prefix import Prefix
from lewm.models.predictors.residual_mlp import ResidualMLP

__all__ = ["GRU", "AdaLNTransformer", "Affine", "Observed", "Predictor", "Prefix", "ResidualMLP"]
