"""The one search loop: sample, project to the limits, score, update, stop. Algorithms say only what differs.

A new algorithm is one class with `update`; a new way to draw candidates is a `proposals.Proposal`. The loop keeps
the best candidates it has seen, ranks what is not finite last, and lets every row run as if it were alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from planners import mixing, noise
from planners.clock import Clock
from planners.errors import InputError
from planners.limits import Limits
from planners.population import Found, Population, Problem, Scored, Search
from planners.proposals import Coloured, Proposal
from planners.types import ActionSpec, Cost, Plan, PlanState, Terms


class Planner(ABC):
    """Searches action sequences around a mean.

    Args:
        horizon: H, environment steps.
        samples: S, candidates per iteration; schedule: of the first, second, ... iteration instead, the last
            repeats.
        iterations: of a fresh search; warm_iterations: of one that continues an earlier plan (None: the same).
        init_std: of a fresh search, in units of the action spec's std; warm_std: of a continued one.
        min_std: floor of the std, as a share of the action range.
        stop_std: a row whose std is everywhere below this share of its initial one stops; 0: none does.
        correlation: of the noise between neighbouring steps; proposal: another way to draw candidates instead.
        keep: best candidates of earlier iterations that take part in the update without being scored again.
        carry: best candidates that the next plan tries again, shifted.
        returns: `best` candidate seen, or the final `mean` (the best where the mean is not finite or not feasible).
        compiled: run each iteration as one graph: a mode of torch.compile (`default`, `reduce-overhead` for CUDA
            graphs). Every number of rows and samples is a graph of its own, up to torch's limit of eight, beyond
            which it runs plainly. With a deadline it is not used.
    """

    gradient = False  # whether `update` needs the gradients of the cost

    def __init__(
        self,
        *,
        horizon: int = 40,
        samples: int = 128,
        schedule: Sequence[int] = (),
        iterations: int = 4,
        warm_iterations: int | None = 1,
        init_std: float = 1.0,
        warm_std: float = 1.0,
        min_std: float = 0.01,
        stop_std: float = 0.0,
        correlation: float = 0.7,
        proposal: Proposal | None = None,
        keep: int = 0,
        carry: int = 0,
        returns: str = "best",
        compiled: str | None = None,
    ) -> None:
        least = 1 if self.gradient else 2
        if horizon < 1 or min(samples, *schedule, samples) < least or min(iterations, warm_iterations or 1) < 1:
            raise InputError(
                f"a planner needs horizon >= 1, samples >= {least}, iterations >= 1; got {horizon}, "
                f"{list(schedule) or samples}, {iterations}, warm_iterations {warm_iterations}"
            )
        if warm_iterations == 0 or returns not in ("best", "mean") or min(keep, carry) < 0:
            raise InputError(
                "a planner needs warm_iterations >= 1, returns best or mean, keep and carry >= 0; "
                f"got {warm_iterations}, {returns}, {keep}, {carry}"
            )
        if min(init_std, warm_std) <= 0 or min(min_std, stop_std) < 0:
            raise InputError(
                "a planner needs init_std and warm_std > 0, min_std and stop_std >= 0; "
                f"got {init_std}, {warm_std}, {min_std}, {stop_std}"
            )
        if compiled is not None and self.gradient:
            raise InputError("a gradient planner cannot be compiled; compile the cost instead")
        self.horizon, self.samples, self.schedule, self.iterations = horizon, samples, tuple(schedule), iterations
        self.warm_iterations = iterations if warm_iterations is None else warm_iterations
        self.init_std, self.warm_std, self.min_std, self.stop_std = init_std, warm_std, min_std, stop_std
        self.proposal = Coloured(correlation=correlation) if proposal is None else proposal
        self.keep, self.carry, self.returns = keep, carry, returns
        self._compiled = torch.compile(self._advance, mode=compiled) if compiled else None

    @abstractmethod
    def update(self, search: Search, population: Population) -> Search:
        """Where to search next, given what the candidates cost."""

    def population(self, iteration: int) -> int:
        """Candidates of an iteration."""
        return self.schedule[min(iteration, len(self.schedule) - 1)] if self.schedule else self.samples

    def propose(self, search: Search, state: PlanState, key_B: Tensor, samples: int) -> Tensor:
        """Candidates (B, S, H, A) of an iteration, before limits."""
        return self.proposal.draw(search.mean, search.std, state.basis, key_B, samples)

    def init(
        self, rows: int, action_spec: ActionSpec, seeds: Sequence[int], device: torch.device | str = "cpu"
    ) -> PlanState:
        """A fresh state for `rows` independent rows, one seed each."""
        if len(seeds) != rows:
            raise InputError(f"one seed per row: {rows} rows, {len(seeds)} seeds")
        limits = Limits.of(action_spec, device)
        rest, spread = self.proposal.rest(limits), self.init_std * limits.std
        mean = rest.expand(rows, self.horizon, -1)
        return PlanState(
            mean=mean,
            std=spread.expand_as(mean),
            kept=rest.expand(rows, self.carry, self.horizon, -1),
            past=torch.zeros_like(rest).clamp(limits.low, limits.high).expand(rows, 2, -1),
            seeds=torch.tensor([int(s) for s in seeds], dtype=torch.int64),
            replans=torch.zeros(rows, dtype=torch.int64),
            limits=limits,
            rest=rest,
            initial_std=spread,
            basis=self.proposal.basis(self.horizon).to(device),
        )

    @torch.no_grad()
    def plan(
        self, cost: Cost, state: PlanState, deadline_s: float | None = None, *, committed: Tensor | None = None
    ) -> tuple[Plan, PlanState]:
        """Search for the cheapest actions of every row.

        Args:
            cost: see `types.Cost`.
            state: from `init`, or from an earlier plan and `PlanState.shift`.
            deadline_s: stop in time, with the best found so far; the first few candidates are always scored. Makes
                results depend on the machine.
            committed: (B, n, A), actions already decided on, with which every candidate begins.

        Returns:
            The plan, and the state a warm start shifts.
        """
        device = state.mean.device
        clock, problem = Clock(deadline_s, device), Problem(cost, state, committed)
        if state.mean.shape[1] != self.horizon:
            raise InputError(f"this planner's horizon is {self.horizon}, the state's {state.mean.shape[1]}")
        search = Search(state.mean.contiguous(), state.std.contiguous(), state.initial_std, state.limits)
        found: Found | None = None
        budget = torch.where(state.replans > 0, self.warm_iterations, self.iterations)
        last, scored = int(budget.max()), []
        # all that comes from the host, in one piece: nothing in the loop waits for an accelerator
        keys_IB = noise.keys(noise.keys(state.seeds, state.replans), torch.arange(last)[:, None]).to(device)
        budget, running = budget.to(device), torch.ones(len(budget), dtype=torch.bool, device=device)
        for iteration in range(last):
            active = running & (iteration < budget)
            if not clock.room() or (self.stop_std and not active.any()):
                break
            samples = self.population(iteration)
            if self._compiled and deadline_s is None:
                if device.type == "cuda":
                    torch.compiler.cudagraph_mark_step_begin()
                graph = self._compiled(problem, search, found, keys_IB[iteration], active, samples)
                search, found = (part.clone() for part in graph)  # a replayed graph overwrites what it gave
                clock.lap("compiled")
            else:
                candidates = self._candidates(problem, search, found, keys_IB[iteration], samples)
                clock.lap("sample")
                new = self._score(problem, candidates, clock, found)
                clock.lap("cost")
                if new is None or (self.gradient and found and new.values.shape[1] < samples):
                    break  # a descent needs all its points
                search, found = self._learn(problem, search, found, new, active)
                clock.lap("update")
                samples = new.values.shape[1]
            scored.append(samples)
            if self.stop_std:
                running &= ~self._converged(search, state)
        if self.returns == "mean":
            found = self._mean_first(problem, search, found)
            scored[-1] += 1
        plan = self._plan(problem, search, found, clock, scored, converged=~running)
        kept = found.best.candidates[:, : self.carry]
        return plan, replace(state, mean=search.mean, std=search.std, kept=kept, replans=state.replans + 1)

    def _advance(
        self, problem: Problem, search: Search, found: Found | None, keys: Tensor, active: Tensor, samples: int
    ) -> tuple[Search, Found]:
        """One iteration without a clock: what `compiled` compiles."""
        new = self._call(problem, self._candidates(problem, search, found, keys, samples), None)
        return self._learn(problem, search, found, new, active)

    def _candidates(
        self, problem: Problem, search: Search, found: Found | None, keys: Tensor, samples: int
    ) -> Tensor:
        """What to score: what is proposed, with the mean and, at first, rest and what was carried over in front."""
        state = problem.state
        drawn = self.propose(search, state, keys, samples)
        if self.gradient and found is not None:
            return problem.limited(drawn)
        front = [self.proposal.centre(search.mean)[:, None]]
        if found is None:  # doing nothing is how an agent stays at its goal
            front.append(self.proposal.centre(state.rest.expand_as(search.mean))[:, None])
        if found is None and self.carry:
            warm = (state.replans > 0).to(drawn.device)[:, None, None, None]
            fresh = drawn[:, 2 : 2 + self.carry]
            front.append(torch.where(warm, self.proposal.centre(state.kept[:, : fresh.shape[1]]), fresh))
        front = torch.cat(front, dim=1)[:, :samples]
        return problem.limited(torch.cat([front, drawn[:, front.shape[1] :]], dim=1))

    def _score(self, problem: Problem, candidates: Tensor, clock: Clock, found: Found | None) -> Scored | None:
        """Score what the clock allows; None if that is nothing."""
        parts: list[Scored] = []
        for chunk in clock.chunks(candidates.shape[1]):
            first = found.best if found else (parts or [None])[0]
            parts.append(self._call(problem, candidates[:, chunk], first))
        return Scored.join(parts) if parts else None

    def _call(self, problem: Problem, candidates: Tensor, first: Scored | None) -> Scored:
        """Score candidates; a descent mixes terms as the `first` of its candidates were."""
        with torch.set_grad_enabled(self.gradient):
            if self.gradient:
                candidates = candidates.detach().requires_grad_()
            answer = problem.cost(candidates)
            if isinstance(answer, Terms):
                terms = replace(answer, values=answer.values.to(candidates.dtype))
            else:
                terms = Terms(answer[..., None].to(candidates.dtype), mixing.Mixer())
            shape = tuple(terms.values.shape[:-1])
            if shape != tuple(candidates.shape[:2]):
                raise InputError(f"cost must return {tuple(candidates.shape[:2])} (B, S), got {shape}")
            mix, objective, gradients = terms.mix, None, None
            if self.gradient:
                valid = terms.values.isfinite().all(-1)
                mix = first.mix if first else terms.mix.fixed(terms.values, valid)
                objective, gradients = self._slope(replace(terms, mix=mix), valid, candidates)
        violation = None if terms.violation is None else terms.violation.detach()
        return Scored(candidates.detach(), terms.values.detach(), violation, mix, objective, gradients)

    @staticmethod
    def _slope(terms: Terms, valid: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """What a descent follows, +inf where it is not finite, and its gradient, zero where that is not finite."""
        mixed = terms.mix(terms.values, valid)
        if terms.violation is not None:
            mixed = mixed + terms.penalty * terms.violation
        if not mixed.requires_grad:
            raise InputError("a gradient planner needs a cost that can be differentiated by the actions")
        usable = valid & mixed.isfinite()
        (gradients,) = torch.autograd.grad(torch.where(usable, mixed, 0).sum(), candidates)
        return torch.where(usable, mixed, torch.inf).detach(), gradients.nan_to_num(0.0, 0.0, 0.0)

    def _learn(
        self, problem: Problem, search: Search, found: Found | None, new: Scored, active: Tensor
    ) -> tuple[Search, Found]:
        """Update the search and the best so far, in the active rows."""
        everyone = new if found is None else Scored.join([replace(new, objective=None, gradients=None), found.best])
        costs, seen = everyone.costs(), new.candidates.shape[1] + self.keep
        population = Population(everyone.candidates[:, :seen], costs[:, :seen], new.objective, new.gradients)
        learnt = self.update(search, population)
        best = Found.among(everyone, costs, max(1, self.keep, self.carry))
        usable = (active & costs[:, :seen].isfinite().any(1))[:, None, None]
        floor = self.min_std * (problem.state.limits.high - problem.state.limits.low)
        mean = torch.where(usable, learnt.mean, search.mean)
        std = torch.where(usable, learnt.std.maximum(floor), search.std)
        return replace(learnt, mean=mean, std=std), best.where(active, found)

    def _mean_first(self, problem: Problem, search: Search, found: Found) -> Found:
        """The final mean before the best candidate, where it may be returned."""
        mean = problem.limited(self.proposal.centre(search.mean)[:, None])
        alone = replace(self._call(problem, mean, found.best), objective=None, gradients=None)
        scored = Scored.join([alone, found.best])
        first = torch.arange(found.best.values.shape[1], device=mean.device).expand(len(mean), -1)
        final = Found(scored.pick(first), scored.costs()[:, 0])
        return final.where(final.cost.isfinite() & (final.feasible | ~found.feasible), found)

    def _converged(self, search: Search, state: PlanState) -> Tensor:
        return (search.std < self.stop_std * state.initial_std).flatten(1).all(1)

    def _plan(
        self, problem: Problem, search: Search, found: Found, clock: Clock, scored: list[int], converged: Tensor
    ) -> Plan:
        failed, actions = ~found.cost.isfinite(), found.best.candidates[:, 0]
        if failed.any():
            start = problem.limited(self.proposal.centre(problem.state.mean)[:, None])[:, 0]
            actions = torch.where(failed[:, None, None], start, actions)
        return Plan(
            actions=actions,
            cost=found.cost,
            std=search.std,
            failed=failed,
            feasible=found.feasible & ~failed,
            converged=converged,
            iterations=len(scored),
            evaluations=sum(scored),
            deadline_hit=clock.hit,
            timings={**clock.seconds, "total": clock.elapsed()},
        )
