"""LeWM's predictor: a causal transformer over the last frames, and its fast rollout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lewm.models.adaln import ActionBlockEncoder, AdaLNBlock, keep_heap
from lewm.models.layers import Attention, Projector
from lewm.models.predictors.base import Observed, Predictor
from lewm.registry import register
from lewm.types import InputError


@dataclass(frozen=True)
class ObservedWindows(Observed):
    """With the keys and values of the frames whose outgoing action is known: all but the last.

    Attributes:
        windows: those that start at frame 0, 1, ..., T - 2; (layers, frames so far, B, 1, 2, heads, head_dim) each.
    """

    windows: tuple[Tensor, ...]

    @classmethod
    def join(cls, rows: Sequence[ObservedWindows]) -> ObservedWindows:
        """Several, one below the other."""
        windows = (torch.cat(same, dim=2) for same in zip(*(row.windows for row in rows), strict=True))
        z, past = (torch.cat([getattr(row, name) for row in rows]) for name in ("z_BTD", "past_BTE"))
        return cls(z, past, tuple(windows))

    def __getitem__(self, rows: slice) -> ObservedWindows:
        """The same of some of the rows."""
        return replace(super().__getitem__(rows), windows=tuple(window[:, :, rows] for window in self.windows))


@register("predictor", "adaln_transformer")
class AdaLNTransformer(Predictor):
    """Causal transformer over the last frames, conditioned on actions by AdaLN-zero; defaults are LeWM's.

    arXiv 2603.19312, appendix D. Each frame's token is modulated by the action block that leaves it. Positions
    are absolute inside the window. `action_smoothed` is the width of the action encoder's first layer, ten for any
    block as in the released weights. `residual` predicts the change, z' = z + f, which LeWM does not.
    """

    # Candidates imagined at once on a CPU: fewer are slower, more take more memory and are not faster.
    chunk = 150

    def __init__(
        self,
        latent_dim: int,
        block_dim: int,
        *,
        history: int = 3,
        depth: int = 6,
        heads: int = 16,
        head_dim: int = 64,
        hidden: int = 2048,
        action_hidden: int = 768,
        action_smoothed: int = 10,
        dropout: float = 0.1,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.history, self.residual = history, residual
        self.action_encoder = ActionBlockEncoder(block_dim, action_smoothed, action_hidden, latent_dim)
        self.position = nn.Parameter(torch.randn(1, history, latent_dim))
        self.blocks = nn.ModuleList()
        for _ in range(depth):
            attention = Attention(latent_dim, heads, head_dim, qkv_bias=False, causal=True, dropout=dropout)
            self.blocks.append(AdaLNBlock(latent_dim, attention, hidden, dropout))
        self.norm = nn.LayerNorm(latent_dim)
        self.projector = Projector(latent_dim, hidden, latent_dim)

    def forward(self, z_BTD: Tensor, actions_BTE: Tensor) -> Tensor:
        """See the package docstring; T is at most `history`."""
        if z_BTD.shape[1] > self.history:
            raise InputError(
                f"a transformer of history {self.history} takes at most as many frames, got {z_BTD.shape[1]}; "
                f"train with trainer.frames={self.history + 1}"
            )
        condition = self.action_encoder(actions_BTE)
        x = z_BTD + self.position[:, : z_BTD.shape[1]]
        for block in self.blocks:
            x = block(x, condition)
        return self._predicted(self.norm(x), z_BTD)

    def observe(self, z_BTD: Tensor, past_BTE: Tensor) -> Observed:
        """See the base class; the transformer sees all frames but the last."""
        observed = super().observe(z_BTD, past_BTE)
        if self.training:
            return observed
        keep_heap()
        if z_BTD.device.type != "cpu":
            return self._observe(observed)
        return ObservedWindows.join([self._observe(observed[row : row + 1]) for row in range(len(observed))])

    def _observe(self, observed: Observed) -> ObservedWindows:
        windows: list[list[list[Tensor]]] = []
        for z_BD, action_BE in zip(observed.z_BTD.unbind(1), observed.past_BTE.unbind(1), strict=False):
            windows.append([[] for _ in self.blocks])
            self._see(z_BD[:, None], action_BE[:, None], windows)
        stacked = (torch.stack([torch.stack(tokens) for tokens in window]) for window in windows)
        return ObservedWindows(observed.z_BTD, observed.past_BTE, tuple(stacked))

    def rollout(self, observed: Observed, future_BSLE: Tensor) -> Tensor:
        """As the plain rollout, in 0.6 of its arithmetic; see `_imagine`."""
        if self.training or not isinstance(observed, ObservedWindows):  # training: dropout and batch statistics
            return self.plain_rollout(observed, future_BSLE)
        if future_BSLE.device.type != "cpu":
            return self._imagine(observed, future_BSLE)
        rows = []
        for row in range(len(observed)):
            one = observed[row : row + 1]
            chunks = future_BSLE[row : row + 1].split(self.chunk, dim=1)
            rows.append(torch.cat([self._imagine(one, chunk) for chunk in chunks], dim=1))
        return torch.cat(rows)

    def _imagine(self, observed: ObservedWindows, future_BSLE: Tensor) -> Tensor:
        """Each frame passes once, through all the windows that hold it. With history 3 and one observed frame:

            frame       0  1  2  3  4      a row is a window, a digit the frame's position in it;
            window 0    0  1  2            the prediction after a frame comes from its oldest window
            window 1       0  1  2
            window 2          0  1  2

        Positions are absolute inside the window, so keys and values serve the later frames of one window only, but
        action encoding and modulation serve all windows of a frame.
        """
        steps = future_BSLE.shape[2]
        seen = observed.z_BTD.shape[1] - 1
        last = max(0, seen + steps - self.history)  # no window starts later
        windows = [[list(tokens) for tokens in window] for window in observed.windows[: last + 1]]
        z, latents = observed.z_BTD[:, -1:], []
        for frame, action in enumerate(future_BSLE.unbind(2), start=seen):
            if frame <= last:
                windows.append([[] for _ in self.blocks])
            z = self._see(z, action, windows)
            latents.append(z)
            if frame >= self.history - 1:
                windows.pop(0)  # it is full
        return torch.stack(latents, dim=2)

    def _see(self, z_BSD: Tensor, action_BSE: Tensor, windows: list[list[list[Tensor]]]) -> Tensor:
        """Append a frame to every window, oldest first; predict the next from the oldest: (B, S, D).

        `windows[w][layer]` lists the keys and values of its frames so far.
        """
        active = F.silu(self.action_encoder(action_BSE))
        x = torch.stack([z_BSD + self.position[0, len(window[0])] for window in windows])
        for layer, block in enumerate(self.blocks):
            wanted = 1 if layer == len(self.blocks) - 1 else len(windows)
            x = block.step(x, active, [window[layer] for window in windows], wanted)
        return self._predicted(self.norm(x[0]), z_BSD)

    def _predicted(self, x: Tensor, z: Tensor) -> Tensor:
        """What the last layer says of the latents that follow z; both (B, any, D)."""
        predicted = self.projector(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return self.link(z + predicted if self.residual else predicted)
