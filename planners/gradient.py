"""Descent of the cost by its gradient, from several starts at once, within the limits."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from planners.errors import InputError
from planners.population import Population, Search
from planners.search import Planner
from planners.types import PlanState


class GradientPlanner(Planner):
    """Each candidate of the first iteration is a start; each later one is the next point of its own descent.

    The first start is the mean, the second rest, the others are drawn. An iteration is one value and one gradient
    of every point.

    Args:
        samples: starts.
        options: see `Planner`.
    """

    gradient = True

    def __init__(
        self, *, samples: int = 4, iterations: int = 50, warm_iterations: int | None = None, **options: Any
    ) -> None:
        super().__init__(samples=samples, iterations=iterations, warm_iterations=warm_iterations, **options)
        if self.schedule or self.keep:
            raise InputError("a gradient planner follows the same points all the way: no schedule, no keep")

    @abstractmethod
    def step(self, memory: Any, points: Tensor, costs: Tensor, gradients: Tensor) -> Any:
        """What to remember (None at first); its `points` (B, S, N) are evaluated next.

        All in units of the initial std, a candidate's H * A numbers in one axis; costs (B, S).
        """

    def propose(self, search: Search, state: PlanState, key_B: Tensor, samples: int) -> Tensor:
        """The next points."""
        if search.memory is None:
            return super().propose(search, state, key_B, samples)
        return search.memory.points.unflatten(-1, search.mean.shape[1:]) * search.scale

    def update(self, search: Search, population: Population) -> Search:
        """See `Planner.update`; the mean is the best point."""
        points, gradients = population.candidates / search.scale, population.gradients * search.scale
        memory = self.step(search.memory, points.flatten(2), population.costs, gradients.flatten(2))
        cheapest = population.costs.argmin(1)[:, None, None, None]
        best = population.candidates.take_along_dim(cheapest, dim=1)[:, 0]
        return replace(search, mean=best, memory=memory)


@dataclass(frozen=True)
class _Moments:
    points: Tensor
    first: Tensor
    second: Tensor
    count: int


class Adam(GradientPlanner):
    """Adam (arXiv 1412.6980) on the actions, projected to the limits after every step.

    Args:
        learning_rate: of the first step, in units of the initial std; half_life: steps after which it is halved.
        options: see `GradientPlanner`.
    """

    BETAS, EPS = (0.9, 0.99), 1e-8

    def __init__(self, *, learning_rate: float = 0.2, half_life: float = 20.0, **options: Any) -> None:
        super().__init__(**options)
        if learning_rate <= 0 or half_life <= 0:
            raise InputError(f"Adam needs learning_rate > 0 and half_life > 0, got {learning_rate}, {half_life}")
        self.learning_rate, self.half_life = learning_rate, half_life

    def step(self, memory: _Moments | None, points: Tensor, costs: Tensor, gradients: Tensor) -> _Moments:
        """See `GradientPlanner.step`."""
        zero = torch.zeros_like(gradients)
        first, second, count = (memory.first, memory.second, memory.count) if memory else (zero, zero, 0)
        first = torch.lerp(gradients, first, self.BETAS[0])
        second = torch.lerp(gradients.square(), second, self.BETAS[1])
        unbiased = [m / (1 - beta ** (count + 1)) for m, beta in zip((first, second), self.BETAS, strict=True)]
        rate = self.learning_rate * 0.5 ** (count / self.half_life)
        return _Moments(points - rate * unbiased[0] / (unbiased[1].sqrt() + self.EPS), first, second, count + 1)


@dataclass(frozen=True)
class _Line:
    """Of each point (B, S, ...): where its line search started, and the curvature pairs, newest last."""

    points: Tensor
    origin: Tensor
    cost: Tensor
    gradient: Tensor
    direction: Tensor
    length: Tensor
    moves: tuple[Tensor, ...] = ()
    turns: tuple[Tensor, ...] = ()


class LBFGS(GradientPlanner):
    """Limited-memory BFGS of every start by itself, with a backtracking line search (Nocedal & Wright, 7.4, 3.1).

    A point that does not decrease the cost enough halves its step instead of moving; the others are not held up.

    Args:
        memory: curvature pairs.
        first_step: largest change of one action in the first step, in units of the initial std.
        options: see `GradientPlanner`.
    """

    ENOUGH = 1e-4  # of the decrease that the slope promises

    def __init__(self, *, memory: int = 8, first_step: float = 0.5, **options: Any) -> None:
        super().__init__(**options)
        if memory < 1 or first_step <= 0:
            raise InputError(f"LBFGS needs memory >= 1 and first_step > 0, got {memory}, {first_step}")
        self.memory, self.first_step = memory, first_step

    def step(self, memory: _Line | None, points: Tensor, costs: Tensor, gradients: Tensor) -> _Line:
        """See `GradientPlanner.step`."""
        if memory is None:
            return self._aim(_Line(points, points, costs, gradients, -gradients, torch.ones_like(costs)))
        moved = points - memory.origin  # after projection: shorter than asked for where a limit is active
        promised = (memory.gradient * moved).sum(-1)
        accepted = costs <= memory.cost + self.ENOUGH * promised.clamp(max=0)
        turned = gradients - memory.gradient
        curved = accepted & ((moved * turned).sum(-1) > 1e-10)
        keep = curved[..., None]
        line = replace(
            memory,
            origin=torch.where(accepted[..., None], points, memory.origin),
            cost=torch.where(accepted, costs, memory.cost),
            gradient=torch.where(accepted[..., None], gradients, memory.gradient),
            length=torch.where(accepted, 1.0, memory.length / 2),
            moves=(*memory.moves, torch.where(keep, moved, 0))[-self.memory :],
            turns=(*memory.turns, torch.where(keep, turned, 0))[-self.memory :],
        )
        aimed = self._aim(line)
        retry = memory.origin + line.length[..., None] * memory.direction
        return replace(
            aimed,
            points=torch.where(accepted[..., None], aimed.points, retry),
            direction=torch.where(accepted[..., None], aimed.direction, memory.direction),
        )

    def _aim(self, line: _Line) -> _Line:
        """A new direction from the origin: minus the inverse Hessian's estimate times the gradient."""
        q, used = line.gradient, []
        for move, turn in zip(reversed(line.moves), reversed(line.turns), strict=True):
            product = (move * turn).sum(-1, keepdim=True)
            rho = torch.where(product > 0, 1 / product, 0)  # a pair that was not kept is zero
            alpha = rho * (move * q).sum(-1, keepdim=True)
            q = q - alpha * turn
            used.append((move, turn, rho, alpha))
        q = q * self._scale(line)
        for move, turn, rho, alpha in reversed(used):
            q = q + move * (alpha - rho * (turn * q).sum(-1, keepdim=True))
        downhill = ((q * line.gradient).sum(-1, keepdim=True) > 0).expand_as(q)
        direction = -torch.where(downhill, q, line.gradient)
        return replace(line, points=line.origin + direction, direction=direction)

    def _scale(self, line: _Line) -> Tensor:
        """(B, S, 1): the newest pair's estimate of the inverse curvature, or what makes the first step."""
        steepest = line.gradient.abs().amax(-1, keepdim=True).clamp(min=1e-12)
        scale = self.first_step / steepest
        for move, turn in zip(line.moves, line.turns, strict=True):
            product, square = (move * turn).sum(-1, keepdim=True), turn.square().sum(-1, keepdim=True)
            scale = torch.where(product > 0, product / square, scale)
        return scale
