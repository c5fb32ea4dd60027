"""What makes an imagined future good. A term maps `Imagined` to (B, S); `Sum` joins terms and constraints.

Any callable with that signature is a term: `lambda imagined: imagined.actions_BSHA.abs().mean((-1, -2))`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from planners.errors import InputError
from planners.mixing import Mixer
from planners.types import ActionSpec, Terms


@dataclass(frozen=True)
class Imagined:
    """What a candidate leads to.

    Attributes:
        z_BSLD: latents after each of L action blocks; start_BD: before the first.
        actions_BSHA: the candidates, raw, H = L * block.
        goals_BGD: latents of a set of goals, any of which will do; None if no goal was given.
        action_spec: of the actions.
        past_B2A: the last two actions executed before; None if there is no telling.
    """

    z_BSLD: Tensor
    start_BD: Tensor
    actions_BSHA: Tensor
    goals_BGD: Tensor | None
    action_spec: ActionSpec
    past_B2A: Tensor | None = None

    @property
    def std(self) -> Tensor:
        """(A,), the unit of terms on actions, which then have none."""
        return torch.as_tensor(self.action_spec.std).to(self.actions_BSHA)

    def changes(self, order: int = 1) -> Tensor:
        """Changes from step to step (order 1), or of those changes (2), beginning at what was executed."""
        actions = self.actions_BSHA
        if self.past_B2A is not None:
            past = self.past_B2A[:, None, 2 - order :].to(actions).expand(-1, actions.shape[1], -1, -1)
            actions = torch.cat([past, actions], dim=2)
        return actions.diff(n=order, dim=2)


Term = Callable[[Imagined], Tensor]
Metric = Callable[[Tensor, Tensor], Tensor]


def squared_distance(z_BSLD: Tensor, goals_BGD: Tensor) -> Tensor:
    """Squared Euclidean distance of every latent to the nearest goal, (B, S, L)."""
    return torch.stack(
        [(z_BSLD - goal[:, None, None]).square().sum(-1) for goal in goals_BGD.unbind(1)], dim=-1
    ).amin(-1)


class GoalDistance:
    """Distance to the goal along the path: a weighted sum of its mean, its end, and its soft minimum.

    LeWM uses the end alone; the mean plans better when the horizon is longer than the way to the goal, and makes
    the agent stay there. The soft minimum, -T log mean exp(-d / T), asks only to pass by the goal.

    Args:
        running, terminal, softmin: weights of the three; temperature: T of the last.
        discount: weight of each block relative to the one before, in the mean; above 1 stresses the end.
        metric: (z_BSLD, goals_BGD) -> (B, S, L), a learned distance for instance.
    """

    def __init__(
        self,
        *,
        running: float = 1.0,
        terminal: float = 0.0,
        softmin: float = 0.0,
        temperature: float = 1.0,
        discount: float = 1.0,
        metric: Metric | None = None,
    ) -> None:
        if temperature <= 0 or discount <= 0:
            raise InputError(f"temperature and discount must be positive, got {temperature} and {discount}")
        self.running, self.terminal, self.softmin = running, terminal, softmin
        self.temperature, self.discount = temperature, discount
        self.metric = squared_distance if metric is None else metric

    def __call__(self, imagined: Imagined) -> Tensor:
        """(B, S)."""
        if imagined.goals_BGD is None:
            raise InputError("this cost needs a goal: MPC(model, goal=...) or reset(goal)")
        distance = self.metric(imagined.z_BSLD, imagined.goals_BGD)
        cost = self.terminal * distance[..., -1]
        if self.running:
            cost = cost + self.running * self._mean(distance)
        if self.softmin:
            soft = torch.logsumexp(-distance / self.temperature, -1) - math.log(distance.shape[-1])
            cost = cost - self.softmin * self.temperature * soft
        return cost

    def _mean(self, distance: Tensor) -> Tensor:
        if self.discount == 1:
            return distance.mean(-1)
        weight = self.discount ** torch.arange(distance.shape[-1], device=distance.device)
        return (distance * (weight / weight.sum())).sum(-1)


class Effort:
    """Mean square of the actions, in units of their std."""

    def __call__(self, imagined: Imagined) -> Tensor:
        """(B, S)."""
        return (imagined.actions_BSHA / imagined.std).square().sum(-1).mean(-1)


class Smoothness:
    """Mean square of the actions' changes (order 1) or changes of changes (order 2), in units of their std."""

    def __init__(self, *, order: int = 1) -> None:
        if order not in (1, 2):
            raise InputError(f"smoothness has order 1 or 2, got {order}")
        self.order = order

    def __call__(self, imagined: Imagined) -> Tensor:
        """(B, S)."""
        return (imagined.changes(self.order) / imagined.std).square().sum(-1).mean(-1)


class RateExcess:
    """Mean square of what the actions' changes exceed `rate` by: a soft limit; `Limits.rate` is the hard one.

    Args:
        rate: raw units per environment step, the same for all dimensions.
    """

    def __init__(self, *, rate: float = 1.0) -> None:
        self.rate = rate

    def __call__(self, imagined: Imagined) -> Tensor:
        """(B, S)."""
        excess = (imagined.changes().abs() - self.rate).clamp(min=0)
        return excess.square().sum(-1).mean(-1)


class Consistency:
    """Mean square difference between the actions and those an inverse model reads from the imagined path.

    ACID (arXiv 2607.02403): mix it by `std_ratio`, weight 0.005 to 0.1. A predictor that copies the action into the
    latent passes this test, so it is no proof of a plan.

    Args:
        inverse: (z, next z), each (B, S, L, D), -> the raw actions between them (B, S, L, block * A), in order.
    """

    def __init__(self, inverse: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.inverse = inverse

    def __call__(self, imagined: Imagined) -> Tensor:
        """(B, S)."""
        start = imagined.start_BD[:, None, None].expand_as(imagined.z_BSLD[:, :, :1])
        before = torch.cat([start, imagined.z_BSLD[:, :, :-1]], dim=2)
        inferred = self.inverse(before, imagined.z_BSLD).reshape(imagined.actions_BSHA.shape)
        return ((imagined.actions_BSHA - inferred) / imagined.std).square().sum(-1).mean(-1)


class Sum:
    """Several terms as one cost, with constraints that come before it.

    Args:
        terms: see the module docstring, `GoalDistance` alone by default; weights: one each (1 by default).
        mix: `sum`, or free of scale over the population: `z_score`, or `std_ratio` (relative to the first term).
        constraints: callables of `Imagined` whose values (B, S) or (B, S, ...) must not be positive. A plan that
            breaks one is returned only if no candidate kept them all; `Plan.feasible` says which it is.
        penalty: weight of the violation for gradient planners.
    """

    def __init__(
        self,
        *,
        terms: Sequence[Term] = (),
        weights: Sequence[float] = (),
        mix: str = "sum",
        constraints: Sequence[Term] = (),
        penalty: float = 100.0,
    ) -> None:
        self.terms, self.constraints, self.penalty = tuple(terms) or (GoalDistance(),), tuple(constraints), penalty
        if weights and len(weights) != len(self.terms):
            raise InputError(
                f"a sum needs one weight per term; got {len(self.terms)} terms, {len(weights)} weights"
            )
        self.mix = Mixer(mix, tuple(weights))

    def __call__(self, imagined: Imagined) -> Terms:
        """The terms side by side, and how far the constraints are broken."""
        values = torch.stack([term(imagined) for term in self.terms], dim=-1)
        broken = [constraint(imagined).clamp(min=0) for constraint in self.constraints]
        violation = sum(b.flatten(2).sum(-1) if b.ndim > 2 else b for b in broken) if broken else None
        return Terms(values, self.mix, violation, self.penalty)
