"""The contract of a predictor, and the rollout that defines what imagination is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

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
    """Base of all predictors: the plain reference rollout, exact for any of them.

    Attributes:
        history: how many observed frames matter.
        recurrent: a state is carried from frame to frame, so that in imagination no earlier frame is forgotten.
        link: maps what is predicted to where encodings live (a sphere, say); the world model sets it. `forward`
            and a fast rollout apply it to every latent they return.
    """

    history: int = 1
    recurrent: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.link: nn.Module = nn.Identity()

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
        """The definition: predict from the last `history` frames (if `recurrent`, from all), append, repeat."""
        samples = future_BSLE.shape[1]
        z = repeat(observed.z_BTD, "b t d -> (b s) t d", s=samples)
        actions = repeat(observed.past_BTE, "b t e -> (b s) t e", s=samples)
        actions = torch.cat([actions, rearrange(future_BSLE, "b s l e -> (b s) l e")], dim=1)
        first = z.shape[1]
        for end in range(first, first + future_BSLE.shape[2]):
            recent = slice(0 if self.recurrent else max(0, end - self.history), end)
            z = torch.cat([z, self(z[:, recent], actions[:, recent])[:, -1:]], dim=1)
        return rearrange(z[:, first:], "(b s) l d -> b s l d", s=samples)
