"""Predictors: latents and action blocks in, the next latents out.

Contract. `forward(z_BTD, actions_BTE)` predicts, for each of the T frames, the latent one block later, looking at
this and earlier frames only (causal). `E` = action_block * A normalised actions. `history` is the longest window:
how many frames matter. To imagine, `observe` 1 to `history` frames and the E-vectors of the actions between them,
once; then `rollout` candidate futures (B, S, L, E) to latents (B, S, L, D), as often as a search needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F

from lewm.models.adaln import ActionBlockEncoder, AdaLNBlock, keep_heap
from lewm.models.layers import Linear, Projector
from lewm.registry import register
from lewm.types import InputError


@dataclass(frozen=True)
class Observed:
    """What imagination starts from: `z_BTD`, 1 <= T <= history, and the T - 1 normalised action blocks between."""

    z_BTD: Tensor
    past_BTE: Tensor

    def __len__(self) -> int:
        """Rows B."""
        return len(self.z_BTD)

    def __getitem__(self, rows: slice) -> Observed:
        """The same of some of the rows."""
        return replace(self, z_BTD=self.z_BTD[rows], past_BTE=self.past_BTE[rows])


class Predictor(nn.Module):
    """Base of all predictors: the plain reference rollout, exact for any of them."""

    history: int = 1

    def observe(self, z_BTD: Tensor, past_BTE: Tensor) -> Observed:
        """Take in what all candidates share: T observed latents and the T - 1 action blocks between them."""
        frames = z_BTD.shape[1]
        if not 1 <= frames <= self.history or past_BTE.shape[1] != frames - 1:
            raise InputError(
                f"a predictor of history {self.history} observes 1 to {self.history} frames with an action block "
                f"between any two, got {frames} frames and {past_BTE.shape[1]} blocks"
            )
        return Observed(z_BTD, past_BTE)

    def rollout(self, observed: Observed, future_BSLE: Tensor) -> Tensor:
        """Imagine S candidate sequences of L action blocks for each row: latents after each block, (B, S, L, D)."""
        return self.plain_rollout(observed, future_BSLE)

    def plain_rollout(self, observed: Observed, future_BSLE: Tensor) -> Tensor:
        """The definition: predict from the last `history` frames, append, repeat."""
        samples = future_BSLE.shape[1]
        z = repeat(observed.z_BTD, "b t d -> (b s) t d", s=samples)
        actions = repeat(observed.past_BTE, "b t e -> (b s) t e", s=samples)
        actions = torch.cat([actions, rearrange(future_BSLE, "b s l e -> (b s) l e")], dim=1)
        first = z.shape[1]
        for end in range(first, first + future_BSLE.shape[2]):
            recent = slice(max(0, end - self.history), end)
            z = torch.cat([z, self(z[:, recent], actions[:, recent])[:, -1:]], dim=1)
        return rearrange(z[:, first:], "(b s) l d -> b s l d", s=samples)


@register("predictor", "residual_mlp")
class ResidualMLP(Predictor):
    """z' = z + f(z, action block), no attention. The CPU default.

    With `history` 2 it also sees what changed since the frame before, which is where velocities show:
    f(z, action block, z - z_before, action block before, 1), the last three zero for a frame without one before.
    """

    def __init__(
        self, latent_dim: int, block_dim: int, *, history: int = 1, width: int = 256, depth: int = 1
    ) -> None:
        super().__init__()
        if history not in (1, 2):
            raise InputError(f"a residual_mlp has history 1 or 2, got {history}")
        self.history = history
        self.from_latent = Linear(latent_dim, width)
        self.from_action = Linear(block_dim, width, bias=False)
        self.from_past = Linear(latent_dim + block_dim + 1, width, bias=False) if history == 2 else None
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), Linear(width, width), nn.SiLU(), Linear(width, width))
            for _ in range(depth)
        )
        self.out = Linear(width, latent_dim)

    def forward(self, z_BTD: Tensor, actions_BTE: Tensor) -> Tensor:
        """See the module docstring."""
        given = self.from_action(actions_BTE)
        if self.from_past is not None and z_BTD.shape[1] > 1:
            past = self._past(z_BTD[:, :-1], z_BTD[:, 1:], actions_BTE[:, :-1])
            given = given + F.pad(past, (0, 0, 1, 0))
        return self._step(z_BTD, given)

    def rollout(self, observed: Observed, future_BSLE: Tensor) -> Tensor:
        """As the plain rollout, with the actions of all steps embedded in one product."""
        embedded = self.from_action(rearrange(future_BSLE, "b s l e -> l b s e"))
        z = observed.z_BTD[:, -1:].expand(-1, future_BSLE.shape[1], -1)
        past = None
        if self.from_past is not None and observed.z_BTD.shape[1] > 1:
            past = self._past(observed.z_BTD[:, -2:-1], observed.z_BTD[:, -1:], observed.past_BTE[:, -1:])
        latents = []
        for step, given in enumerate(embedded):
            before, z = z, self._step(z, given if past is None else given + past)
            past = None if self.from_past is None else self._past(before, z, future_BSLE[:, :, step])
            latents.append(z)
        return torch.stack(latents, dim=2)

    def _past(self, before: Tensor, z: Tensor, action: Tensor) -> Tensor:
        """What a frame's hidden layer gets of the frame before and of the action between them."""
        return self.from_past(torch.cat([z - before, action, torch.ones_like(action[..., :1])], dim=-1))

    def _step(self, z: Tensor, given: Tensor) -> Tensor:
        hidden = F.silu(self.from_latent(z) + given)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return z + self.out(hidden)


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
    are absolute inside the window.
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
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.history = history
        self.action_encoder = ActionBlockEncoder(block_dim, block_dim, action_hidden, latent_dim)
        self.position = nn.Parameter(torch.randn(1, history, latent_dim))
        self.blocks = nn.ModuleList(AdaLNBlock(latent_dim, heads, head_dim, hidden, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(latent_dim)
        self.projector = Projector(latent_dim, hidden, latent_dim)

    def forward(self, z_BTD: Tensor, actions_BTE: Tensor) -> Tensor:
        """See the module docstring; T is at most `history`."""
        if z_BTD.shape[1] > self.history:
            raise InputError(
                f"a transformer of history {self.history} takes at most as many frames, got {z_BTD.shape[1]}; "
                f"train with trainer.frames={self.history + 1}"
            )
        condition = self.action_encoder(actions_BTE)
        x = z_BTD + self.position[:, : z_BTD.shape[1]]
        for block in self.blocks:
            x = block(x, condition)
        return self.projector(self.norm(x).flatten(0, 1)).unflatten(0, z_BTD.shape[:2])

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
        x = self.norm(x[0])
        return self.projector(x.flatten(0, 1)).unflatten(0, x.shape[:2])
