"""What makes an imagined future good. Terms take latents, never models or images."""

from __future__ import annotations

from torch import Tensor


class GoalDistance:
    """Squared distance to the goal latent: `running` times the mean over the path plus `terminal` times the end's.

    LeWM uses the end alone; the path sum plans better when the horizon is longer than the way to the goal, and
    makes the agent stay there.
    """

    def __init__(self, *, running: float = 1.0, terminal: float = 0.0) -> None:
        self.running, self.terminal = running, terminal

    def __call__(self, z_BSLD: Tensor, goal_BD: Tensor) -> Tensor:
        """Imagined latents and goals -> (B, S)."""
        distance = (z_BSLD - goal_BD[:, None, None]).square().sum(-1)
        return self.running * distance.mean(-1) + self.terminal * distance[..., -1]
