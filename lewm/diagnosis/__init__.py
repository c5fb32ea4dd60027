"""Diagnosis: is the latent space healthy, what does it hold, and can the predictor be trusted?"""

from lewm.diagnosis.examine import Diagnosis, Sample, draw, examine, frames_to_encode
from lewm.diagnosis.geometry import rank_correlation, straightness, transition_spectrum
from lewm.diagnosis.health import Health, effective_rank, episode_share, health, two_nn
from lewm.diagnosis.identifiability import Identifiability, identifiability
from lewm.diagnosis.probe import MLPProbe, RidgeProbe
from lewm.diagnosis.rollout import RolloutError, imagination, rollout_error
from lewm.diagnosis.surprise import Surprise, surprise

__all__ = [
    "Diagnosis",
    "Health",
    "Identifiability",
    "MLPProbe",
    "RidgeProbe",
    "RolloutError",
    "Sample",
    "Surprise",
    "draw",
    "effective_rank",
    "episode_share",
    "examine",
    "frames_to_encode",
    "health",
    "identifiability",
    "imagination",
    "rank_correlation",
    "rollout_error",
    "straightness",
    "surprise",
    "transition_spectrum",
    "two_nn",
]
