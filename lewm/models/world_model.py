"""The world model: encode images, predict latents from actions, imagine. It knows nothing of goals or search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from lewm.models.layers import Projector
from lewm.models.predictors import Observed, Predictor
from lewm.registry import build
from lewm.types import ActionSpec, InputError


@dataclass(frozen=True)
class WorldModelConfig:
    """Everything that fixes a model's architecture; the defaults are the size `small`.

    Attributes:
        encoder, predictor: `{"name": registered name, **keywords}`.
        heads: role -> `{"name": registered name, **keywords}`: modules over latents that objectives train and planners
            may use (inverse dynamics, reachability, distance); an objective says which it needs.
        link: what maps the projector's and the predictor's output to latents: `none`, `sphere`, `rectified`.
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
    image_size: int = 64
    latent_dim: int = 192
    projector_hidden: int = 512
    action_block: int = 5
    pixel_mean: tuple[float, ...] = ()
    pixel_std: tuple[float, ...] = ()


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
        self.encoder: nn.Module = build("encoder", config.encoder, image_size=config.image_size)
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

    def encode(self, pixels: Tensor) -> Tensor:
        """Latents of uint8 images: (..., h, w, C) -> (..., D).

        Raises:
            InputError: another dtype or image shape than the model was trained for.
        """
        if pixels.dtype != torch.uint8 or tuple(pixels.shape[-3:]) != self.image_shape:
            raise InputError(
                f"this model takes uint8 images of shape (..., {', '.join(map(str, self.image_shape))}), got "
                f"{pixels.dtype} {tuple(pixels.shape)}; resize or convert it to what the camera gave in training"
            )
        images = pixels.reshape(-1, *self.image_shape).to(self.device)
        if self.training:
            return self._encode(images).unflatten(0, pixels.shape[:-3])
        count = len(images)
        images = F.pad(images, (0, 0) * 3 + (0, -count % self.chunk))
        latents = torch.cat([self._encode(chunk) for chunk in images.split(self.chunk)])[:count]
        return latents.reshape(*pixels.shape[:-3], latents.shape[-1])

    def normalise(self, actions_KA: Tensor) -> Tensor:
        """Raw action blocks (..., K, A) -> z-scored and flattened (..., K * A), as predictor and heads take them."""
        return ((actions_KA - self.action_mean) / self.action_std).flatten(-2)

    def predict(self, z_BTD: Tensor, actions_BTKA: Tensor) -> Tensor:
        """Teacher-forced prediction: the latent one block after each frame, (B, T, D); raw actions."""
        return self.predictor(z_BTD, self.normalise(actions_BTKA))

    def context(self, observations: Tensor, actions: Tensor) -> Observed:
        """Encode what was seen and done: what imagination starts from, once for all the rollouts of a search.

        Args:
            observations: (B, T, h, w, C) uint8, the last 1 <= T <= history frames at block stride, oldest first.
            actions: (B, (T - 1) * K, A) raw, the actions executed between them.
        """
        rows, frames = observations.shape[:2]
        expected = (rows, (frames - 1) * self.action_block, self.action_spec.dim)
        if observations.ndim != 5 or not 1 <= frames <= self.history or tuple(actions.shape) != expected:
            raise InputError(
                f"context needs 1 to {self.history} frames per row and (frames - 1) * {self.action_block} actions "
                f"of dimension {self.action_spec.dim} between them, got observations {tuple(observations.shape)} "
                f"and actions {tuple(actions.shape)}"
            )
        blocks = rearrange(actions.to(self.device), "b (t k) a -> b t k a", k=self.action_block)
        return self.predictor.observe(self.encode(observations), self.normalise(blocks))

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

    def _encode(self, images: Tensor) -> Tensor:
        channels_first = images.permute(0, 3, 1, 2)  # a channels-last view: no copy
        return self.link(self.projector(self.encoder((channels_first / 255.0 - self.pixel_mean) / self.pixel_std)))
