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
    def step(self, memory: Any, points: Tensor, objective: Tensor, gradients: Tensor) -> Any:
        """What to remember (None at first); its `points` (B, S, N) are evaluated next.

        All in units of the initial std, a candidate's H * A numbers in one axis; objective (B, S). At a bound, the
        part of a gradient that points beyond it is zero.
        """

    def propose(self, search: Search, state: PlanState, key_B: Tensor, samples: int) -> Tensor:
        """The next points."""
        if search.memory is None:
            return super().propose(search, state, key_B, samples)
        return search.memory.points.unflatten(-1, search.mean.shape[1:]) * search.scale

    def update(self, search: Search, population: Population) -> Search:
        """See `Planner.update`; the mean is the best point."""
        points, slope, limits = population.candidates, population.gradients, search.limits
        stuck = ((points <= limits.low) & (slope > 0)) | ((points >= limits.high) & (slope < 0))
        scaled = (points / search.scale).flatten(2), (torch.where(stuck, 0, slope) * search.scale).flatten(2)
        memory = self.step(search.memory, scaled[0], population.objective, scaled[1])
        return replace(search, mean=population.best, memory=memory)


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

    def step(self, memory: _Moments | None, points: Tensor, objective: Tensor, gradients: Tensor) -> _Moments:
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
    """Per point: where its line search started, and the curvature pairs (M, B, S, N), newest last, else zero."""

    points: Tensor
    origin: Tensor
    value: Tensor
    gradient: Tensor
    direction: Tensor
    length: Tensor
    moves: Tensor
    turns: Tensor


class LBFGS(GradientPlanner):
    """Limited-memory BFGS of every start by itself, with a backtracking line search (Nocedal & Wright, 7.4, 3.1).

    A point that does not decrease the objective enough halves its step instead of moving; the others are not held
    up. Where halving does not help the curvature is forgotten.

    Args:
        memory: curvature pairs.
        first_step: largest change of one action in the first step, in units of the initial std.
        options: see `GradientPlanner`.
    """

    ENOUGH, SHORTEST = 1e-4, 2**-8  # share of the decrease that the slope promises; step before a new start

    def __init__(self, *, memory: int = 8, first_step: float = 0.5, **options: Any) -> None:
        super().__init__(**options)
        if memory < 1 or first_step <= 0:
            raise InputError(f"LBFGS needs memory >= 1 and first_step > 0, got {memory}, {first_step}")
        self.memory, self.first_step = memory, first_step

    def step(self, memory: _Line | None, points: Tensor, objective: Tensor, gradients: Tensor) -> _Line:
        """See `GradientPlanner.step`."""
        if memory is None:
            none = points.new_zeros(self.memory, *points.shape)
            return self._aim(_Line(points, points, objective, gradients, none[0], objective, none, none))
        moved, turned = points - memory.origin, gradients - memory.gradient
        promised = (memory.gradient * moved).sum(-1)  # of what is left of the step after projection
        accepted = objective <= memory.value + self.ENOUGH * promised.clamp(max=0)
        curved = accepted & ((moved * turned).sum(-1) > 1e-10)
        lost = ~accepted & (memory.length < self.SHORTEST)
        moves, turns = (
            torch.where(curved[..., None], torch.cat([pairs[1:], new[None]]), pairs) * ~lost[..., None]
            for pairs, new in ((memory.moves, moved), (memory.turns, turned))
        )
        aimed = self._aim(
            _Line(
                points,
                torch.where(accepted[..., None], points, memory.origin),
                torch.where(accepted, objective, memory.value),
                torch.where(accepted[..., None], gradients, memory.gradient),
                memory.direction,
                memory.length,
                moves,
                turns,
            )
        )
        again, length = (accepted | lost)[..., None], memory.length / 2
        return replace(
            aimed,
            points=torch.where(again, aimed.points, memory.origin + length[..., None] * memory.direction),
            direction=torch.where(again, aimed.direction, memory.direction),
            length=torch.where(again[..., 0], aimed.length, length),
        )

    def _aim(self, line: _Line) -> _Line:
        """A new direction from the origin: minus the inverse Hessian's estimate times the gradient."""
        q, used = line.gradient, []
        for move, turn in zip(reversed(line.moves), reversed(line.turns), strict=True):
            product = (move * turn).sum(-1, keepdim=True)
            rho = torch.where(product > 0, 1 / product, 0)
            alpha = rho * (move * q).sum(-1, keepdim=True)
            q = q - alpha * turn
            used.append((move, turn, rho, alpha))
        q = q * self._scale(line)
        for move, turn, rho, alpha in reversed(used):
            q = q + move * (alpha - rho * (turn * q).sum(-1, keepdim=True))
        q = torch.where(line.gradient == 0, 0, q)  # stay at the bounds that hold
        downhill = ((q * line.gradient).sum(-1, keepdim=True) > 0).expand_as(q)
        direction = -torch.where(downhill, q, line.gradient * self._first(line))
        return replace(
            line, points=line.origin + direction, direction=direction, length=torch.ones_like(line.value)
        )

    def _scale(self, line: _Line) -> Tensor:
        """(B, S, 1): the newest pair's estimate of the inverse curvature, or what makes the first step."""
        move, turn = line.moves[-1], line.turns[-1]
        product, square = (move * turn).sum(-1, keepdim=True), turn.square().sum(-1, keepdim=True)
        return torch.where(product > 0, product / square, self._first(line))

    def _first(self, line: _Line) -> Tensor:
        """(B, S, 1): what makes a step along the gradient the first step."""
        return self.first_step / line.gradient.abs().amax(-1, keepdim=True).clamp(min=1e-12)
