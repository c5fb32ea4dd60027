"""Heads: small modules over latents that objectives train, checkpoints keep and planners ask; any leading axes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lewm.models.layers import Linear
from lewm.registry import register
from lewm.types import InputError

INPUTS = ("both", "difference")
FORMS = ("symmetric", "quasimetric")


def _mlp(inputs: int, hidden: int, depth: int) -> nn.Sequential:
    """`depth` times Linear -> SiLU: (..., inputs) -> (..., hidden)."""
    if min(hidden, depth) < 1:
        raise InputError(f"a head needs hidden and depth >= 1, got {hidden} and {depth}")
    widths = [inputs] + [hidden] * depth
    return nn.Sequential(*(m for i in range(depth) for m in (Linear(widths[i], widths[i + 1]), nn.SiLU())))


@register("head", "inverse")
class Inverse(nn.Module):
    """Which actions led from one latent to another, as normalised blocks.

    Args:
        given: `both` latents side by side, or only their `difference`.
        blocks: how many action blocks lie between the two latents.
    """

    def __init__(
        self,
        latent_dim: int,
        block_dim: int,
        *,
        given: str = "both",
        blocks: int = 1,
        hidden: int = 256,
        depth: int = 2,
    ) -> None:
        super().__init__()
        if given not in INPUTS or blocks < 1:
            raise InputError(
                f"an inverse head needs given in {', '.join(INPUTS)} and blocks >= 1, got '{given}', {blocks}"
            )
        self.given, self.blocks = given, blocks
        self.trunk = _mlp(latent_dim * (2 if given == "both" else 1), hidden, depth)
        self.out = Linear(hidden, blocks * block_dim)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """(..., D), (..., D) -> (..., blocks * E)."""
        if self.given == "difference":
            return self.out(self.trunk(after - before))
        return self.out(self.trunk(torch.cat(torch.broadcast_tensors(before, after), dim=-1)))


@register("head", "reachability")
class Reachability(nn.Module):
    """Whether a goal can be reached within h = 1, ..., `horizon` blocks, as a logit (RC-aux, arXiv 2605.07278).

    R(s, g, h) = <MLP(LayerNorm [s, g, |s - g|, s * g]), e_h> + b_h. The paper has e_h among the inputs of the MLP;
    here it reads the MLP's output, so that all budgets of a pair cost one pass.
    """

    def __init__(self, latent_dim: int, *, horizon: int = 5, hidden: int = 256, depth: int = 2) -> None:
        super().__init__()
        if horizon < 1:
            raise InputError(f"a reachability head needs horizon >= 1, got {horizon}")
        self.horizon = horizon
        self.trunk = nn.Sequential(nn.LayerNorm(4 * latent_dim), *_mlp(4 * latent_dim, hidden, depth))
        self.budgets = Linear(hidden, horizon)

    def forward(self, source: Tensor, goal: Tensor) -> Tensor:
        """(..., D), (..., D) -> logits (..., horizon) of reaching the goal within 1, 2, ..., horizon blocks."""
        source, goal = torch.broadcast_tensors(source, goal)
        pair = torch.cat([source, goal, (source - goal).abs(), source * goal], dim=-1)
        return self.budgets(self.trunk(pair))

    def within(self, source: Tensor, goal: Tensor, budget: Tensor) -> Tensor:
        """Logits (...) of reaching the goal within `budget` (...) blocks; a larger budget counts as `horizon`."""
        if (budget < 1).any():
            raise InputError(f"a budget is at least 1 block, got {int(budget.min())}")
        logits = self(source, goal)
        index = (budget.clamp(max=self.horizon) - 1).expand(logits.shape[:-1])
        return logits.gather(-1, index[..., None])[..., 0]


@register("head", "distance")
class Distance(nn.Module):
    """How many blocks lie between two latents (TRM, arXiv 2605.22164): at least 0.

    Args:
        form: `symmetric`, softplus MLP[x + y, |x - y|, x * y], so that d(x, y) = d(y, x) (with TRM's own features,
            [x, y, x - y, |x - y|], only about so); or `quasimetric`, with [p, q] = MLP

                mean_k |p_k(x) - p_k(y)| + max_k relu(q_k(x) - q_k(y))

            which is 0 for x = y and keeps the triangle inequality, though the way back may be longer (MRN's
            construction, arXiv 2208.08133, with an L1 norm).
    """

    def __init__(self, latent_dim: int, *, form: str = "symmetric", hidden: int = 256, depth: int = 2) -> None:
        super().__init__()
        if form not in FORMS:
            raise InputError(f"the form of a distance head is one of {', '.join(FORMS)}, got '{form}'")
        self.form = form
        self.trunk = _mlp(3 * latent_dim if form == "symmetric" else latent_dim, hidden, depth)
        self.out = Linear(hidden, 1 if form == "symmetric" else 2 * hidden)

    def forward(self, start: Tensor, goal: Tensor) -> Tensor:
        """(..., D), (..., D) -> (...) blocks."""
        if self.form == "symmetric":
            start, goal = torch.broadcast_tensors(start, goal)
            pair = torch.cat([start + goal, (start - goal).abs(), start * goal], dim=-1)
            return F.softplus(self.out(self.trunk(pair)))[..., 0]
        (p, q), (p_goal, q_goal) = (self.out(self.trunk(z)).chunk(2, dim=-1) for z in (start, goal))
        return (p - p_goal).abs().mean(-1) + (q - q_goal).relu().amax(-1)


@register("head", "moments")
class Moments(nn.Module):
    """Running second moments of pairs of latents u, v, for PEIRA: S = E[v u' + u v'] and N = E[u u' + v v'].

    Buffers, not parameters: they are saved with the model, so that a resumed run goes on from them. The first batch
    sets them; later ones enter with weight `rate`.
    """

    def __init__(self, latent_dim: int, *, rate: float = 0.5) -> None:
        super().__init__()
        if not 0 < rate <= 1:
            raise InputError(f"moments need 0 < rate <= 1, got {rate}")
        self.rate = rate
        self.register_buffer("cross", torch.zeros(latent_dim, latent_dim))
        self.register_buffer("auto", torch.zeros(latent_dim, latent_dim))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def forward(self, u_ND: Tensor, v_ND: Tensor) -> tuple[Tensor, Tensor]:
        """S and N, (D, D) each, after (while training) taking in N pairs."""
        if self.training:
            product = v_ND.T @ u_ND / len(u_ND)
            auto = (u_ND.T @ u_ND + v_ND.T @ v_ND) / len(u_ND)
            rate = torch.where(self.updates == 0, 1.0, self.rate).to(auto)
            self.cross.lerp_((product + product.T).to(self.cross), rate.to(self.cross))
            self.auto.lerp_(auto.to(self.auto), rate.to(self.auto))
            self.updates += 1
        return self.cross.clone(), self.auto.clone()
