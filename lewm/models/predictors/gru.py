"""A recurrent predictor: its state is carried through observation and imagination."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from lewm.models.layers import Linear, linear
from lewm.models.predictors.base import Observed, Predictor
from lewm.registry import register
from lewm.types import InputError


@dataclass(frozen=True)
class ObservedState(Observed):
    """With `state_BW`, what the frames before the last one left behind."""

    state_BW: Tensor

    def __getitem__(self, rows: slice) -> ObservedState:
        """The same of some of the rows."""
        return replace(super().__getitem__(rows), state_BW=self.state_BW[rows])


@register("predictor", "gru")
class GRU(Predictor):
    """z' = z + W h', h' = GRU(SiLU(P z + Q a), h): a gated recurrent unit (arXiv 1406.1078) over frames.

    The state h is zero before a window's first frame and is carried from there on, through what was observed and
    through what is imagined. So `forward` over a window *is* the rule, of any length, and the plain rollout applies
    it to all frames so far; `history` is only how many frames are observed before imagination starts. Trained on
    windows of T frames, it has never carried its state over more than T - 1 steps: for longer plans train with
    longer windows (`trainer.frames`) or on its own rollouts.
    """

    recurrent = True

    def __init__(self, latent_dim: int, block_dim: int, *, history: int = 3, width: int = 256) -> None:
        super().__init__()
        if min(history, width) < 1:
            raise InputError(f"a gru needs history and width >= 1, got {history} and {width}")
        self.history = history
        self.from_latent = Linear(latent_dim, width)
        self.from_action = Linear(block_dim, width, bias=False)
        self.cell = nn.GRUCell(width, width)
        self.out = Linear(width, latent_dim)

    def forward(self, z_BTD: Tensor, actions_BTE: Tensor) -> Tensor:
        """See the package docstring."""
        states = self._states(z_BTD, actions_BTE)
        return self.link(z_BTD + self.out(torch.stack(states[1:], dim=1)))

    def observe(self, z_BTD: Tensor, past_BTE: Tensor) -> ObservedState:
        """See the base class; the state has seen all frames but the last, whose action is the candidate's."""
        observed = super().observe(z_BTD, past_BTE)
        return ObservedState(z_BTD, past_BTE, self._states(observed.z_BTD[:, :-1], past_BTE)[-1])

    def rollout(self, observed: ObservedState, future_BSLE: Tensor) -> Tensor:
        """As the plain rollout, each frame once, with the actions of all steps embedded in one product."""
        samples = future_BSLE.shape[1]
        z, state = (x[:, None].expand(-1, samples, -1) for x in (observed.z_BTD[:, -1], observed.state_BW))
        latents = []
        for given in self.from_action(rearrange(future_BSLE, "b s l e -> l b s e")):
            state = self._advance(state, z, given)
            z = self.link(z + self.out(state))
            latents.append(z)
        return torch.stack(latents, dim=2)

    def _states(self, z_BTD: Tensor, actions_BTE: Tensor) -> Sequence[Tensor]:
        """The state before the first frame, after it, ...: T + 1 of shape (B, width)."""
        states = [z_BTD.new_zeros(len(z_BTD), self.cell.hidden_size)]
        for z, given in zip(z_BTD.unbind(1), self.from_action(actions_BTE).unbind(1), strict=True):
            states.append(self._advance(states[-1], z, given))
        return states

    def _advance(self, state: Tensor, z: Tensor, given: Tensor) -> Tensor:
        """The cell by hand, so that it takes any leading axes and its products are `linear`."""
        cell, x = self.cell, F.silu(self.from_latent(z) + given)
        reset_x, keep_x, new_x = linear(x, cell.weight_ih, cell.bias_ih).chunk(3, dim=-1)
        reset_h, keep_h, new_h = linear(state, cell.weight_hh, cell.bias_hh).chunk(3, dim=-1)
        new = torch.tanh(torch.addcmul(new_x, torch.sigmoid(reset_x + reset_h), new_h))
        return new + torch.sigmoid(keep_x + keep_h) * (state - new)
