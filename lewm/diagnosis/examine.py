"""All diagnoses of one model at once, from windows of recorded episodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from lewm.data import EpisodeReader, Windows
from lewm.diagnosis.geometry import (
    SYMMETRIES,
    rank_correlation,
    relative_error,
    straightness,
    transition_spectrum,
    turn_actions,
)
from lewm.diagnosis.health import Health, episode_share, health, two_nn
from lewm.diagnosis.identifiability import Identifiability, identifiability
from lewm.diagnosis.probe import CONSTANT, MLPProbe, RidgeProbe
from lewm.diagnosis.rollout import Imagine, RolloutError, imagination, rollout_error
from lewm.diagnosis.surprise import Surprise, one_step, recoloured, splice, squared_error, surprise
from lewm.models import WorldModel
from lewm.models.observations import MAIN, is_image
from lewm.types import InputError, nearest

Symmetries = Mapping[str, Sequence[float] | Sequence[Sequence[float]]]
Encode = Callable[[Mapping[str, Tensor]], Tensor]
CHUNK = 64  # frames encoded between two reports of progress


@dataclass(frozen=True)
class Sample:
    """B windows of T frames.

    Attributes:
        observations: column -> (B, T, *shape), of the columns a model observes.
        actions_BLKA: the T - 1 raw blocks between them.
        truth_BTP: what is true of each frame, of the columns that vary; None where it was not recorded.
        episodes_B: which episode each is from.
    """

    observations: Mapping[str, Tensor]
    actions_BLKA: Tensor
    truth_BTP: Tensor | None
    episodes_B: Tensor

    @property
    def pixels(self) -> Tensor:
        """The main camera: (B, T, h, w, C) uint8."""
        return self.observations[MAIN]

    @property
    def frames(self) -> int:
        """T."""
        return self.actions_BLKA.shape[1] + 1

    def __len__(self) -> int:
        """B."""
        return len(self.actions_BLKA)


@dataclass(frozen=True)
class TruthScores:
    """What can be told only where the true state was recorded; lists are per axis that varies.

    Attributes:
        linear, mlp: R2 of probes on held-out episodes.
        rank_correlation: of latent with true distances, axes of the truth scaled to unit variance.
        two_nn, episode_share: the same numbers as those of the latents, of the truth.
    """

    linear: list[float]
    mlp: list[float]
    identifiability: Identifiability
    rank_correlation: float
    two_nn: float
    episode_share: float


@dataclass(frozen=True)
class Diagnosis:
    """Everything that is known of a model; see the parts. All on held-out episodes, but for `health`.

    Attributes:
        transition: `transition_spectrum` of (latent, action block) to next latent.
        equivariance: relMSE(g) / relMSE(0) of one-step prediction for each symmetry asked for.
    """

    health: Health
    rollout: RolloutError
    straightness: float
    transition: list[float]
    surprises: dict[str, Surprise]
    truth: TruthScores | None = None
    equivariance: dict[str, float] = field(default_factory=dict)


def draw(
    reader: EpisodeReader,
    episodes: np.ndarray,
    *,
    count: int,
    frames: int,
    block: int,
    truth: str | None,
    columns: Sequence[str] = (MAIN,),
) -> Sample:
    """`count` windows of these episodes, the same ones every time; shorter where no episode is long enough."""
    longest = int(reader.steps[episodes].max(initial=0)) // block + 1
    wanted = dict.fromkeys([*columns, *([] if truth is None else [truth])])
    windows = Windows(reader, episodes, frames=min(frames, longest), block=block, columns=list(wanted))
    batch = windows.draw(0, min(count, len(windows)), seed=0)
    seen = {name: torch.from_numpy(rows.copy()) for name, rows in batch.observations.items()}
    return Sample(
        {name: seen[name] for name in columns},
        torch.from_numpy(batch.actions.copy()),
        None if truth is None else seen[truth].flatten(2).double(),
        torch.from_numpy(batch.episodes.copy()),
    )


def frames_to_encode(fitting: Sample, held: Sample, symmetries: Symmetries) -> int:
    """How many pictures `examine` will encode at most: what it takes the time for."""
    per_fit, per_held = (len(sample) * sample.frames for sample in (fitting, held))
    return per_fit + (2 + len(symmetries)) * per_held


@torch.no_grad()
def examine(
    model: WorldModel,
    fitting: Sample,
    held: Sample,
    symmetries: Symmetries | None = None,
    tick: Callable[[int], object] = lambda _: None,
) -> Diagnosis:
    """Diagnose a model in evaluation mode.

    Args:
        fitting: windows of 2 or more frames, to fit probes on; of the training episodes.
        held: windows of more than `history` + 1 frames of episodes it has not seen.
        symmetries: of the world: name (`SYMMETRIES`) -> what it does to an action (`turn_actions`).
        tick: told of each few frames encoded.
    """
    history, frames = model.history, held.frames
    if frames < max(history + 2, 3) or fitting.frames < 2:
        raise InputError(
            f"a diagnosis needs held-out windows of at least {max(history + 2, 3)} frames, got {frames}; the "
            "episodes are too short"
        )
    for name, matrix in (symmetries or {}).items():
        if name not in SYMMETRIES:
            raise InputError(f"unknown symmetry '{name}': {nearest(name, list(SYMMETRIES))}")
        turn_actions(held.actions_BLKA[:1], matrix)  # a mistake shows before the work

    if symmetries and set(fitting.observations) != {MAIN}:
        raise InputError("symmetries are of pictures from above; this model observes more than `pixels`")

    def encode(observations: Mapping[str, Tensor]) -> Tensor:
        axes = next(iter(observations.values())).shape[:2]
        rows = {column: x.flatten(0, 1) for column, x in observations.items()}
        latents = []
        for first in range(0, axes.numel(), CHUNK):
            latents.append(model.encode({column: x[first : first + CHUNK] for column, x in rows.items()}))
            tick(len(latents[-1]))
        return torch.cat(latents).unflatten(0, axes)

    imagine = imagination(model)
    z_fit, z = encode(fitting.observations), encode(held.observations)
    return Diagnosis(
        health=_health(z_fit[:, 0], z, held.episodes_B),
        rollout=rollout_error(imagine, z, held.actions_BLKA, history),
        straightness=straightness(z),
        transition=transition_spectrum(
            *_transitions(model, z_fit, fitting.actions_BLKA), *_transitions(model, z, held.actions_BLKA)
        ).tolist(),
        surprises=_surprises(encode, imagine, z, held, history),
        truth=_truth_scores(z_fit[:, 0], z, fitting, held),
        equivariance=_equivariance(encode, imagine, z, held, history, symmetries or {}),
    )


def _health(independent_ND: Tensor, z_BTD: Tensor, episodes_B: Tensor) -> Health:
    """Of frames far apart, but for the share that is constant in an episode, which needs many of each."""
    share = episode_share(z_BTD.flatten(0, 1), _per_frame(z_BTD, episodes_B))
    return replace(health(independent_ND), episode_share=share)


def _per_frame(x_BTD: Tensor, episodes_B: Tensor) -> Tensor:
    return episodes_B[:, None].expand(x_BTD.shape[:2]).flatten()


def _transitions(model: WorldModel, z_BTD: Tensor, actions_BLKA: Tensor) -> tuple[Tensor, Tensor]:
    """(z_t, a_t) and z_{t+1}, of all windows and times."""
    before = torch.cat([z_BTD[:, :-1], model.normalise(actions_BLKA.to(z_BTD))], dim=-1)
    return before.flatten(0, 1), z_BTD[:, 1:].flatten(0, 1)


def _truth_scores(z_fit_ND: Tensor, z_BTD: Tensor, fitting: Sample, held: Sample) -> TruthScores | None:
    """None where no truth was recorded, or nothing of it varies."""
    if fitting.truth_BTP is None or held.truth_BTP is None:
        return None
    truth_fit, truth_BTP = fitting.truth_BTP[:, 0].to(z_BTD.device), held.truth_BTP.to(z_BTD.device)
    truth, z = truth_BTP.flatten(0, 1), z_BTD.flatten(0, 1)
    moves = [(x.amax(0) - x.amin(0)) > CONSTANT for x in (truth_fit, truth)]
    used = moves[0] & moves[1]
    if not used.any():
        return None
    truth_fit, truth = truth_fit[:, used], truth[:, used]
    scaled = truth / truth.std(0)
    return TruthScores(
        linear=RidgeProbe.fit(z_fit_ND, truth_fit).r2(z, truth).tolist(),
        mlp=MLPProbe.fit(z_fit_ND, truth_fit).r2(z, truth).tolist(),
        identifiability=identifiability(z_fit_ND, truth_fit, z, truth),
        rank_correlation=rank_correlation(z, scaled),
        two_nn=two_nn(truth_fit / truth_fit.std(0)),
        episode_share=episode_share(scaled, _per_frame(truth_BTP, held.episodes_B)),
    )


def _surprises(encode: Encode, imagine: Imagine, z_BTD: Tensor, held: Sample, history: int) -> dict[str, Surprise]:
    """Teleport and change of colour in the middle of each window."""
    seen, actions, middle = held.observations, held.actions_BLKA, (history + z_BTD.shape[1]) // 2

    def errors(z: Tensor, acted: Tensor) -> Tensor:
        return squared_error(one_step(imagine, z, acted, history), z[:, history:])

    usual = errors(z_BTD, actions)
    coloured = z_BTD.clone()
    coloured[:, middle:] = encode(
        {
            column: recoloured(x[:, middle:]) if is_image(x.shape[2:]) else x[:, middle:]
            for column, x in seen.items()
        }
    )
    disturbed = {
        "teleport": errors(splice(z_BTD, z_BTD.roll(1, 0), middle), splice(actions, actions.roll(1, 0), middle)),
        "colour": errors(coloured, actions),
    }
    return {name: surprise(usual, found, middle - history, held.episodes_B) for name, found in disturbed.items()}


def _equivariance(
    encode: Encode, imagine: Imagine, z_BTD: Tensor, held: Sample, history: int, symmetries: Symmetries
) -> dict[str, float]:
    if not symmetries:
        return {}

    def error(z: Tensor, actions: Tensor) -> float:
        return relative_error(one_step(imagine, z, actions, history), z[:, history:])

    usual = error(z_BTD, held.actions_BLKA)
    turned = {
        name: error(encode({MAIN: SYMMETRIES[name](held.pixels)}), turn_actions(held.actions_BLKA, matrix))
        for name, matrix in symmetries.items()
    }
    return {name: found / usual if usual > 0 else float("nan") for name, found in turned.items()}
