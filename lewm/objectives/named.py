"""Named objectives: published choices of parts, so that `objective=smwm` is the one override.

A name sets defaults and no more: each part's settings can still be changed one by one. Where a paper also changes
the model, that is said here, for an objective does not choose the predictor.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from lewm.objectives.objective import Objective
from lewm.registry import register

NAMED: dict[str, dict[str, Any]] = {
    # SIGReg's place taken by another regulariser, or SIGReg computed otherwise
    "exact": {"regulariser": "exact_sigreg"},  # over all directions (arXiv 2512.19605)
    "sub_jepa": {"regulariser": "sub_jepa"},  # in subspaces (arXiv 2605.09241)
    "tc_sigreg": {"regulariser": "tc_sigreg"},  # less each window's mean (arXiv 2607.26924)
    "visreg": {"regulariser": "visreg"},  # centre, scale and shape (arXiv 2606.02572)
    "vicreg": {"regulariser": "vicreg"},  # variance and covariance (arXiv 2105.04906)
    "weak_sigreg": {"regulariser": "weak_sigreg"},  # covariance to identity (arXiv 2603.05924)
    "floored": {"regulariser": "spectral_floor"},  # floors under the spectrum, no law (arXiv 2605.20107)
    "rdmreg": {"regulariser": "rdmreg"},  # LpWM: sparse latents (arXiv 2608.22764)
    "dysib": {"regulariser": "dysib"},  # information bottleneck (arXiv 2604.24662)
    # Actions instead of a law
    "smwm": {"regulariser": "none", "auxiliary": ["inverse_dynamics"]},  # arXiv 2606.20104
    "delta_jepa": {"regulariser": "none", "auxiliary": ["latent_difference"]},  # arXiv 2606.31232
    "ac_mtm": {"regulariser": "none", "auxiliary": ["action_nce"]},  # arXiv 2608.17542
    # Prediction over more than one block
    "open_loop": {"prediction": "open_loop"},
    "fast_lewm": {"prediction": "prefixes"},  # arXiv 2606.26217; with model/predictor=prefix
    "salt": {"prediction": "open_loop"},  # with model/predictor=affine
    # SIGReg and a geometry fit for planning
    "straightened": {"auxiliary": ["straightening"]},  # arXiv 2603.12231
    "rc_aux": {  # arXiv 2605.07278
        "prediction": {"name": "open_loop", "steps": 4, "growth": 1.0},
        "auxiliary": ["reachability"],
    },
    "trm": {"auxiliary": ["temporal_distance"]},  # arXiv 2605.22164, whose head is trained after the model
    # Other principles
    "peira": {"regulariser": "none", "auxiliary": ["peira"]},  # arXiv 2605.17671
    "within_episode": {"regulariser": "none", "auxiliary": ["within_episode"]},  # arXiv 2606.07770
    "pldm": {  # arXiv 2502.14819; weights as LeWM's authors found best, covariance 12 / 18 / (D - 1) at D = 192
        "regulariser": {"name": "vicreg", "weight": 18.0, "covariance": 0.0035},
        "auxiliary": [{"name": "temporal_similarity", "weight": 0.2}, {"name": "inverse_dynamics", "weight": 0.7}],
    },
}

for _name, _parts in NAMED.items():
    register("objective", _name)(partial(Objective, **_parts))
