"""Diagnosis: is the latent space healthy, what does it hold, and can the predictor be trusted?"""

from lewm.diagnosis.examine import Diagnosis, Sample, draw, examine, frames_to_encode
from lewm.diagnosis.geometry import rank_correlation, straightness, transition_spectrum
from lewm.diagnosis.health import Health, effective_rank, episode_share, two_nn
from lewm.diagnosis.identifiability import Identifiability
from lewm.diagnosis.probe import MLPProbe, RidgeProbe
from lewm.diagnosis.rollout import RolloutError, imagination, rollout_error
from lewm.diagnosis.surprise import Surprise

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
    "imagination",
    "rank_correlation",
    "rollout_error",
    "straightness",
    "transition_spectrum",
    "two_nn",
]
