"""The world model: encode what is observed, predict latents, imagine. It knows nothing of goals or search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from lewm.models.encoders import Fusion, encoder_of
from lewm.models.layers import Projector
from lewm.models.observations import MAIN, Observations, Sensor, Standardise, flatten, standardise
from lewm.models.predictors import Observed, Predictor
from lewm.registry import build
from lewm.types import ActionSpec, InputError


@dataclass(frozen=True)
class WorldModelConfig:
    """Everything that fixes a model's architecture; the defaults are the size `small`.

    Attributes:
        encoder, predictor: `{"name": registered name, **keywords}`.
        heads: role -> `{"name": registered name, **keywords}`: modules over latents that objectives train and
            planners may use (inverse dynamics, reachability, distance); an objective says which it needs.
        link: what maps the projector's and the predictor's output to latents: `none`, `sphere`, `rectified`.
        sensors: column -> shape and statistics of what else the encoder observes; taken from the training data.
        image_size: side of the square input image.
        latent_dim: D.
        projector_hidden: width of the projector between encoder and latent.
        action_block: environment steps K that make one latent step.
        pixel_mean, pixel_std: per channel, of pixels scaled to [0, 1]; empty until they are taken from the training
            data, which matters where a small agent moves over a plain background (docs/LOG.md).
    """

    encoder: Mapping[str, Any] = field(default_factory=lambda: {"name": "conv"})
    predictor: Mapping[str, Any] = field(default_factory=lambda: {"name": "residual_mlp"})
    heads: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    link: str = "none"
    sensors: Mapping[str, Sensor] = field(default_factory=dict)
    image_size: int = 64
    latent_dim: int = 192
    projector_hidden: int = 512
    action_block: int = 5
    pixel_mean: tuple[float, ...] = ()
    pixel_std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        made = {name: s if isinstance(s, Sensor) else Sensor(**s) for name, s in self.sensors.items()}
        object.__setattr__(self, "sensors", made)


SIZES: dict[str, WorldModelConfig] = {
    "small": WorldModelConfig(),
    "lewm": WorldModelConfig(
        encoder={"name": "vit"},
        predictor={"name": "adaln_transformer"},
        image_size=224,
        projector_hidden=2048,
        pixel_mean=(0.485, 0.456, 0.406),
        pixel_std=(0.229, 0.224, 0.225),
    ),
}


class WorldModel(nn.Module):
    """Encoder -> projector -> latent, and an action-conditioned predictor of the next latent.

    LeWorldModel (arXiv 2603.19312): trained end to end, gradient into both sides, no teacher.

    Attributes:
        action_spec: raw bounds and statistics of the actions (A,).
        columns: what it observes: `("pixels",)`, or the columns of a `fusion` encoder.
        recommendation: planner, cost and `replan_every` found to work with this model; plain JSON, may be empty.
    """

    # Encoding in chunks of one fixed size makes a row's latent the same bits whatever else is in the batch.
    chunk = 8

    def __init__(self, config: WorldModelConfig, action_spec: ActionSpec) -> None:
        super().__init__()
        sizes = (config.image_size, config.latent_dim, config.projector_hidden, config.action_block)
        if min(sizes) < 1:
            raise InputError(
                "a world model needs image_size, latent_dim, projector_hidden and action_block >= 1, got "
                f"{', '.join(map(str, sizes))}"
            )
        self.config, self.action_spec = config, action_spec
        self.recommendation: dict[str, Any] = {}
        block_dim = config.action_block * action_spec.dim
        self._shapes = {MAIN: self.image_shape} | {name: sensor.shape for name, sensor in config.sensors.items()}
        self.encoder = encoder_of(MAIN, self.image_shape, config.encoder, shapes=self._shapes)
        self._several = isinstance(self.encoder, Fusion)
        self.columns: tuple[str, ...] = self.encoder.columns if self._several else (MAIN,)
        self._shapes = {column: self._shapes[column] for column in self.columns}
        used = [config.sensors[column] for column in self.columns if column != MAIN]
        self.sensors = nn.ModuleList(Standardise(sensor) for sensor in used)
        self.projector = Projector(self.encoder.features, config.projector_hidden, config.latent_dim)
        self.predictor: Predictor = build(
            "predictor", config.predictor, latent_dim=config.latent_dim, block_dim=block_dim
        )
        self.link: nn.Module = build("link", {"name": config.link})
        self.predictor.link = self.link
        facts = {"latent_dim": config.latent_dim, "block_dim": block_dim}
        self.heads = nn.ModuleDict({role: build("head", spec, **facts) for role, spec in config.heads.items()})
        self.register_buffer("pixel_mean", torch.tensor(config.pixel_mean or (0.5, 0.5, 0.5)).view(3, 1, 1))
        self.register_buffer("pixel_std", torch.tensor(config.pixel_std or (0.25, 0.25, 0.25)).view(3, 1, 1))
        self.register_buffer("action_mean", torch.tensor(action_spec.mean))
        self.register_buffer("action_std", torch.tensor(action_spec.std))

    @property
    def action_block(self) -> int:
        """Environment steps K per latent step."""
        return self.config.action_block

    @property
    def history(self) -> int:
        """Frames that matter: imagination starts from at most so many."""
        return self.predictor.history

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(h, w, C) of the images it takes."""
        return (self.config.image_size, self.config.image_size, 3)

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return self.pixel_mean.device

    def encode(self, observations: Observations) -> Tensor:
        """Latents (..., D) of uint8 images (..., h, w, C), or of column -> rows (..., *shape) for several columns.

        Raises:
            InputError: another dtype or shape than the model was trained for, or a column is missing.
        """
        axes, rows = flatten(observations, self._shapes)
        return self._encode(rows).reshape(*axes, self.config.latent_dim)

    def normalise(self, actions_KA: Tensor) -> Tensor:
        """Raw action blocks (..., K, A) -> z-scored and flattened (..., K * A), as its modules take them."""
        return ((actions_KA - self.action_mean) / self.action_std).flatten(-2)

    def predict(self, z_BTD: Tensor, actions_BTKA: Tensor) -> Tensor:
        """Teacher-forced prediction: the latent one block after each frame, (B, T, D); raw actions."""
        return self.predictor(z_BTD, self.normalise(actions_BTKA))

    def context(self, observations: Observations, actions: Tensor) -> Observed:
        """Encode what was seen and done: what imagination starts from, once for all the rollouts of a search.

        Args:
            observations: (B, T, h, w, C) uint8, or column -> (B, T, *shape): the last 1 <= T <= history frames at
                block stride, oldest first.
            actions: (B, (T - 1) * K, A) raw, the actions executed between them.
        """
        axes, rows = flatten(observations, self._shapes)
        frames = axes[1] if len(axes) == 2 else 0
        expected = (*axes[:1], (frames - 1) * self.action_block, self.action_spec.dim)
        if not 1 <= frames <= self.history or tuple(actions.shape) != expected:
            raise InputError(
                f"context needs 1 to {self.history} frames per row and (frames - 1) * {self.action_block} actions "
                f"of dimension {self.action_spec.dim} between them, got observations of leading axes {axes} "
                f"and actions {tuple(actions.shape)}"
            )
        blocks = rearrange(actions.to(self.device), "b (t k) a -> b t k a", k=self.action_block)
        return self.predictor.observe(self._encode(rows).unflatten(0, axes), self.normalise(blocks))

    def start(self, context: Any) -> Tensor:
        """The latents (B, D) of the last observed frames, from which `rollout` goes on."""
        return context.z_BTD[:, -1]

    def rollout(self, context: Observed, actions_BSHA: Tensor) -> Tensor:
        """Imagine candidate futures: raw actions, one per environment step -> latents (B, S, H / K, D)."""
        horizon, dim = actions_BSHA.shape[-2:]
        if actions_BSHA.ndim != 4 or horizon % self.action_block or dim != self.action_spec.dim:
            raise InputError(
                f"rollout needs a horizon that is a multiple of action_block {self.action_block} and actions of "
                f"dimension {self.action_spec.dim}, got shape {tuple(actions_BSHA.shape)} (B, S, H, A)"
            )
        if len(context) != len(actions_BSHA):
            raise InputError(f"context has {len(context)} rows, the actions have {len(actions_BSHA)}")
        blocks = rearrange(actions_BSHA, "b s (l k) a -> b s l k a", k=self.action_block)
        return self.predictor.rollout(context, self.normalise(blocks))

    def _encode(self, rows: Mapping[str, Tensor]) -> Tensor:
        """Column -> (N, *shape) -> (N, D), in evaluation chunk by chunk."""
        rows = {column: values.to(self.device) for column, values in rows.items()}
        count = len(rows[self.columns[0]])
        if self.training:
            return self._encode_chunk(rows)
        rest = -count % self.chunk
        rows = {column: F.pad(x, (0, 0) * (x.ndim - 1) + (0, rest)) for column, x in rows.items()}
        chunks = (
            {column: x[first : first + self.chunk] for column, x in rows.items()}
            for first in range(0, max(count, 1), self.chunk)
        )
        return torch.cat([self._encode_chunk(chunk) for chunk in chunks])[:count]

    def _encode_chunk(self, rows: Mapping[str, Tensor]) -> Tensor:
        ready, sensors = {}, iter(self.sensors)
        for column, x in rows.items():
            main = column == MAIN
            ready[column] = standardise(x, self.pixel_mean, self.pixel_std) if main else next(sensors)(x)
        return self.link(self.projector(self.encoder(ready if self._several else ready[MAIN])))
