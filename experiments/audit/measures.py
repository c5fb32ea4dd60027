"""The same candidates under three judges: as imagined, by the latents of what truly happens, by the true distance.

Judges one and two differ by the predictor alone, two and three by what a latent distance is worth. Axes as in
`planners.types`: B rows (one here), S candidates, H steps, A action.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from envs import GoalTask
from experiments.audit.watch import Decision, mixed
from experiments.evaluate.agents import Trained
from experiments.evaluate.oracles import StateOracle
from experiments.observe import encode
from planners import Imagined

RESAMPLES = 1000
FEWEST = 3  # candidates a rank correlation is made of


class Truth:
    """What candidates truly lead to, simulated from the state of a decision.

    Args:
        task: with one row; its own current state is not touched.
        trained: the agent whose cost is judged; its model only encodes.
    """

    def __init__(self, task: GoalTask, trained: Trained) -> None:
        self.task, self.model = task, trained.model
        oracle = StateOracle(trained).controller(task, [0])
        self.dynamics, self.distance = oracle.model, oracle.cost

    def __call__(self, decision: Decision, actions_BSHA: Tensor) -> tuple[Tensor, Tensor]:
        """The agent's own cost of the latents of what truly happens, and `oracle_state`'s cost: (S,) each."""
        state, goal = (torch.from_numpy(x)[None] for x in (decision.state, decision.goal))
        states_BSLs = self.dynamics.rollout(state, actions_BSHA)
        seen = [encode(self.model, self.task, after.numpy()) for after in states_BSLs[0].unbind(1)]
        latents, said = torch.stack(seen, dim=1)[None].to(actions_BSHA.dtype), decision.cost
        as_seen = Imagined(latents, said.start_BD, actions_BSHA, said.goals_BGD, said.action_spec, said.past_B2A)
        as_it_is = Imagined(states_BSLs, state, actions_BSHA, goal[:, None], said.action_spec)
        return mixed(said.term(as_seen), actions_BSHA)[0], self.distance(as_it_is)[0]


@dataclass(frozen=True)
class Agreement:
    """How three judges rank one population.

    Attributes:
        predictor: rank correlation of the imagined cost and the latent cost of what truly happens.
        cost: of the latent cost of what truly happens and the true distance.
        both: of the imagined cost and the true distance. All None where a judge finds all alike.
        best_percentile: share of the candidates that the imagined cost prefers to the truly best; 0 is right.
    """

    predictor: float | None
    cost: float | None
    both: float | None
    best_percentile: float


@dataclass(frozen=True)
class Judged:
    """A decision and what its candidates were truly worth.

    Attributes:
        step: of the episode.
        first: of the first iteration, None where there was only one; last: of the last.
        regret: mean true distance of the plan less that of the best candidate, in tolerances.
        regret_share: the same in units of what the best candidate gains on the median one.
        curve: for the best candidate of each iteration: imagined cost, latent cost of what truly happens, true
            distance.
    """

    step: int
    first: Agreement | None
    last: Agreement
    regret: float
    regret_share: float | None
    curve: list[list[float]]


@torch.no_grad()
def judge(decision: Decision, truth: Truth) -> Judged:
    """Simulate the candidates of the first and the last iteration, and the best of the others."""
    found = decision.populations
    outcomes = {k: truth(decision, found[k].candidates) for k in {0, len(found) - 1}}
    agreements = {k: _agreement(found[k].costs[0], *outcomes[k]) for k in outcomes}
    planned = truth(decision, decision.actions)[1].item()
    distances = torch.cat([distance for _, distance in outcomes.values()])
    best, usual = min(distances.min().item(), planned), outcomes[0][1].median().item()
    leaders = torch.stack([population.best for population in found], dim=1)
    imagined = mixed(decision.cost(leaders), leaders)[0]
    curve = torch.stack([imagined.double(), *(x.double() for x in truth(decision, leaders))], dim=1)
    return Judged(
        step=decision.step,
        first=agreements[0] if len(found) > 1 else None,
        last=agreements[len(found) - 1],
        regret=planned - best,
        regret_share=(planned - best) / (usual - best) if usual > best else None,
        curve=curve.tolist(),
    )


def _agreement(imagined: Tensor, latent: Tensor, distance: Tensor) -> Agreement:
    one, two, three = (x.double().numpy() for x in (imagined, latent, distance))
    best = one[three == three.min()].min()  # of equally good ones, the one the imagined cost likes most
    return Agreement(spearman(one, two), spearman(two, three), spearman(one, three), float((one < best).mean()))


def spearman(one: np.ndarray, two: np.ndarray) -> float | None:
    """Rank correlation, ties at their mean rank; None where either does not vary."""
    if len(one) < FEWEST or np.ptp(_finite(one)) == 0 or np.ptp(_finite(two)) == 0:
        return None
    return float(np.corrcoef(rankdata(_finite(one)), rankdata(_finite(two)))[0, 1])


def _finite(values: np.ndarray) -> np.ndarray:
    """What is not finite is worst."""
    return np.nan_to_num(values, nan=np.finfo(float).max, posinf=np.finfo(float).max)


def median(values: Sequence[float | None], groups: Sequence[Any]) -> list[float] | None:
    """Median, and its 95 % bootstrap interval over groups: decisions of one episode are not independent."""
    kept = sorted((value, group) for value, group in zip(values, groups, strict=True) if value is not None)
    if not kept:
        return None
    ordered = np.array([value for value, _ in kept])
    names, group_of = np.unique([group for _, group in kept], return_inverse=True)
    draws = np.random.default_rng(0).integers(len(names), size=(RESAMPLES, len(names)))
    times = (draws[:, :, None] == np.arange(len(names))).sum(1)[:, group_of]  # each value comes up in each draw
    upto = times.cumsum(1)
    middle = [(upto > place).argmax(1) for place in ((upto[:, -1:] - 1) // 2, upto[:, -1:] // 2)]
    medians = (ordered[middle[0]] + ordered[middle[1]]) / 2
    return [round(float(x), 4) for x in (np.median(ordered), *np.quantile(medians, [0.025, 0.975]))]


def summarise(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """What the judged decisions of some episodes say together; None where there are none.

    Args:
        lines: `pair` and `decisions`, each a `Judged` as JSON.
    """
    found = [(line["pair"], decision) for line in lines for decision in line["decisions"]]
    if not found:
        return None
    groups = [pair for pair, _ in found]

    def over(get: Callable[[Mapping[str, Any]], float | None]) -> list[float] | None:
        return median([get(decision) for _, decision in found], groups)

    names = ("predictor", "cost", "both", "best_percentile")
    stages = {
        stage: {name: over(lambda d, s=stage, n=name: d[s] and d[s][n]) for name in names}
        for stage in ("first", "last")
    }
    curves = [d["curve"] for _, d in found]
    longest = max(map(len, curves))
    searched = [np.array(c, float) for c in curves if len(c) == longest > 1]  # null: not finite
    fooled = [c[-1, 0] < c[0, 0] and c[-1, 2] > c[0, 2] for c in searched]
    usable = [c / [c[0, 0], c[0, 0], c[0, 2]] for c in searched if np.isfinite(c).all() and min(c[0, [0, 2]]) > 0]
    return {
        "pairs": len(set(groups)),
        "decisions": len(found),
        **stages,
        "regret": over(lambda d: d["regret"]),
        "regret_share": over(lambda d: d["regret_share"]),
        "searches": len(searched),
        "exploits_model": round(float(np.mean(fooled)), 4) if fooled else None,
        "curve": np.median(usable, axis=0).round(4).tolist() if usable else None,
    }
