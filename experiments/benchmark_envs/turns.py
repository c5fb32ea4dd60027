"""Frames per second of one task at one size, all ways in turns; and of whole collections by number of workers."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from experiments.benchmark_envs import worker as ours
from experiments.peers import envs_worker as peers
from experiments.peers.envs_worker import STEPS
from experiments.runs import progress
from experiments.workers import Worker

QUIET = {"PYGAME_HIDE_SUPPORT_PROMPT": "1"}
ONE_THREAD = {"LP_NUM_THREADS": "1"}  # of Mesa's software rasteriser, which otherwise takes all cores
ROUND = 16  # episodes of a whole collection are a multiple of it, so that workers get equal shares


def side_by_side(
    task: str, size: int, scratch: Path, peer: Path | None, *, rounds: int, seconds: float, collect_seconds: float
) -> list[dict[str, Any]]:
    """One row per side and kind. Both processes stay on one core; only one of them works at any time.

    Args:
        peer: the peer's Python; None measures ours alone.
        rounds: turns of each; seconds: of a turn of steps or pictures; collect_seconds: of a collection.
    """
    with ExitStack() as stack:
        sides = {"lewm": stack.enter_context(_ours(task, size, scratch))}
        if peer is not None:
            backend = sides["lewm"].hello["rendering"]["backend"]
            draws = {} if backend == "numpy" else {"MUJOCO_GL": backend}  # the same for both
            command = [str(peer), str(Path(peers.__file__)), task, str(size), str(scratch / "peer")]
            sides["peer"] = stack.enter_context(Worker(f"{task} of the peer", command, QUIET | draws))
        asked = [(side, kind) for side, worker in sides.items() for kind in worker.hello["kinds"]]
        rows, bar = [], stack.enter_context(progress((1 + rounds) * len(asked), f"{task} {size}", "turns"))
        for side, kind in asked:
            hello, takes = sides[side].hello, collect_seconds if _stores(kind) else seconds
            about = {key: hello[key] for key in ("versions", "rendering", "rows") if key in hello}
            about |= sides[side].ask("warm", kind=kind, seconds=takes)
            rows.append({"side": side, "kind": kind, "seconds": takes, **about, "frames_per_second": []})
            bar.update()
        running = [row for row in rows if "error" not in row]
        for turn in range(rounds):
            for k in range(len(running)):
                row = running[(k + turn) % len(running)]
                found = sides[row["side"]].ask("turn", kind=row["kind"], seconds=row["seconds"])
                row["frames_per_second"].append(round(found["frames"] / found["seconds"], 1))
                if _stores(row["kind"]):
                    row |= {"bytes_per_frame": round(found["bytes"] / found["frames"]), "frames": found["frames"]}
                bar.update()
    return rows


def by_workers(task: str, size: int, scratch: Path, *, repeats: int, seconds: float) -> list[dict[str, Any]]:
    """One row per number of workers: seconds of whole `lewm collect` calls, of few episodes and of many, in turns.

    Args:
        seconds: that the many take one worker, about.
    """
    with (
        _ours(task, size, scratch, "--whole") as worker,
        progress(4 * repeats + 4, f"{task} workers", "runs") as bar,
    ):

        def run(count: int, episodes: int) -> float:
            bar.update()
            return worker.ask("turn", kind=f"workers_{count}", seconds=seconds, episodes=episodes)["seconds"]

        run(2, ROUND)  # what is done only once
        least, many = run(1, ROUND), 2 * ROUND
        while (more := run(1, many) - least) < seconds / 3:
            many *= 4
        few, many = ROUND, ROUND * max(2, round(many / ROUND * seconds / more))
        rows = [{"workers": count, "episodes": [few, many], "seconds": []} for count in ours.WORKERS]
        for _ in range(repeats):
            for row in rows:
                row["seconds"].append([round(run(row["workers"], episodes), 3) for episodes in (few, many)])
    return [{**row, "steps": STEPS, "rendering": worker.hello["rendering"]} for row in rows]


def _ours(task: str, size: int, scratch: Path, *more: str) -> Worker:
    command = [sys.executable, "-m", "experiments.benchmark_envs.worker", task, str(size), str(scratch / "ours")]
    return Worker(task, [*command, *more], ONE_THREAD if more else None)


def _stores(kind: str) -> bool:
    return kind in ("collect", *peers.ENDINGS)
