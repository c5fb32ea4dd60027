"""The section of a page about one run: its failures first."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from contextlib import closing
from html import escape
from string import Template

import numpy as np

from experiments import pictures
from experiments.build import build_task
from experiments.records import EpisodeRecord
from experiments.report import films, tables
from experiments.report.evaluation import Evaluation
from experiments.report.replay import Rollout, make_bank, replay

MAPPED = 1500  # dots of a map


def section(template: Template, run: Evaluation, count: int, number: int) -> str:
    """Films, latent maps, probes, audit and provenance of a run.

    Args:
        count: of films of failures, and of solved pairs, at most.
        number: of the first film; those of a page have different ones.
    """
    solved, failed = _chosen(run, count)
    rollouts = replay(run, [*failed, *solved])
    bank = make_bank(run, rollouts)
    with closing(build_task(run.trained.env, 1)) as task:
        shown = [
            films.figure(films.make_film(task, rollout, bank), _name(run, rollout.record), caption, number + k)
            for k, (rollout, caption) in enumerate(zip(rollouts, _captions(run, rollouts), strict=True))
        ]
        # the states of all agents, of which the first is a goal: what distances are measured to
        states, z = bank.states[:MAPPED], bank.z[:MAPPED].numpy()
        found, by_us = pictures.coordinates(task, states), task.rendering["backend"] == "numpy"
        maps = pictures.latent_maps(z, found, downwards=by_us)  # what no simulator draws is seen from above
    total = len(run.planned)
    failures = sum(not getattr(record, f"success_{run.rule}") for record in run.planned)
    return template.substitute(
        label=escape(run.label),
        failed=failures,
        solved=total - failures,
        count=total,
        lead=_lead(run, bool(failed), bool(rollouts)),
        remark=films.remark(bank, rollouts),
        failures="".join(shown[: len(failed)]) or "<p>None.</p>",
        successes="".join(shown[len(failed) :]) or "<p>None.</p>",
        maps="".join(maps),
        probes=tables.probes(run),
        audit=_audit(run),
        facts=tables.facts(run),
    )


def _chosen(run: Evaluation, count: int) -> tuple[list[EpisodeRecord], list[EpisodeRecord]]:
    """Solved pairs to show, detours first and then as they come, and failures, the worst first."""
    solved = [record for record in run.planned if getattr(record, f"success_{run.rule}")]
    failed = [record for record in run.planned if not getattr(record, f"success_{run.rule}")]
    worst = np.argsort(-run.missed(failed), kind="stable")[:count]
    around = [record for record in solved if record.detour][: count - count // 3]
    rest = [record for record in solved if record not in around]
    return (around + sorted(rest, key=lambda record: record.detour))[:count], [failed[k] for k in worst]


def _name(run: Evaluation, record: EpisodeRecord) -> str:
    return f"pair {record.pair}{', detour' if record.detour else ''}"


def _captions(run: Evaluation, rollouts: Sequence[Rollout]) -> list[str]:
    """HTML: how each episode went, and whether it went so again."""
    said = []
    for rollout, far in zip(rollouts, run.missed([rollout.record for rollout in rollouts]), strict=True):
        record = rollout.record
        when = f"reached at step {record.first_success}" if record.first_success else "never reached"
        end = "there at the end" if record.success_final else f"<em>{far:.2f} tolerances away at the end</em>"
        twice = "" if rollout.same else "; <em>here it went another way than recorded</em>"
        said.append(f"{escape(_name(run, record))}: {when}, {end}{twice}")
    return said


def _lead(run: Evaluation, failed: bool, any_film: bool) -> str:
    """What the films show."""
    if not any_film:
        return ""
    seeds = run.protocol["seeds"]
    seed = f" With planner seed {seeds[0]}, the first of {len(seeds)}." if len(seeds) > 1 else ""
    order = " Farthest from the goal at the end first." if failed else ""
    return f"Beside the agent: where the plan of that moment is imagined to end, and the goal.{order}{seed}"


def _audit(run: Evaluation) -> str:
    """What `lewm audit` found, where it was run."""
    verdict, picture = run.audit.get("verdict"), run.folder / "audit.png"
    if not run.audit:
        return ""
    said = f"<p>{escape(verdict)}</p>" if verdict else ""
    if picture.exists():
        data = base64.b64encode(picture.read_bytes()).decode()
        said += f'<img class="picture" alt="audit of the planning" src="data:image/png;base64,{data}">'
    return f"<h3>Which part is to blame</h3>{said}"
