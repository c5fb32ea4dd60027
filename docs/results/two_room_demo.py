"""Make the Two-Room results: read demo runs, write the table, the raw lines and the README's picture.

for seed in 0 1 2; do make demo seed=$seed; done
.venv/bin/python docs/results/two_room_demo.py runs/demo runs/demo-seed1 runs/demo-seed2

Without runs it makes the table again of the raw lines beside it.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np

from experiments.build import build_task
from experiments.records import EpisodeRecord, read
from experiments.runs import read_json
from experiments.statistics import bootstrap

HERE = Path(__file__).parent
RAW = HERE / "two_room_demo"
HEAD = "# Two-Room, `free` track: `make demo`\n\nMade by `docs/results/two_room_demo.py`; raw lines beside it.\n\n"


def page() -> str:
    """The results as Markdown, from the raw lines."""
    summaries = [read_json(path) for path in sorted(RAW.glob("*.summary.json"))]
    lines = []
    for path in sorted(RAW.glob("*.episodes.jsonl.gz")):
        with gzip.open(path, "rt") as file:
            lines.append(planned([EpisodeRecord(**json.loads(line)) for line in file]))
    titles = ("seed", "final, all", "95 % (Wilson)", "final, detour", "ever", "random / greedy", "plan p50 / p95")
    titles += ("total (collect, train, evaluate, report)", "peak memory")
    rows = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for s in summaries:
        low, high = s["success_final_interval"]
        t = s["seconds"]
        rows.append(
            f"| {s['seed']} | {s['success_final']:.1%} | {low:.1%} to {high:.1%} | {s['detour_final']:.1%} | "
            f"{s['success_ever']:.1%} | {s['random_final']:.1%} / {s['greedy_final']:.1%} | "
            f"{s['plan_ms_p50']:.1f} / {s['plan_ms_p95']:.1f} ms | {t['total']:.0f} s "
            f"({t['collect']:.0f}, {t['train']:.0f}, {t['evaluate']:.0f}, {t['report']:.0f}) | "
            f"{s['peak_memory_mb']:.0f} MB |"
        )
    final = np.array([[r.success_final for r in line] for line in lines], float)
    detour = np.array([r.detour for r in lines[0]])
    for name, part in (("all pairs", final), ("detour pairs", final[:, detour])):
        low, high = bootstrap(part)
        rows += [
            "",
            f"Over the seeds, {name}: {part.mean():.1%}, bootstrap over (seed, pair) {low:.1%} to {high:.1%}.",
        ]
    s = summaries[0]
    protocol = s["protocol"]
    rows += [
        "",
        f"n = {s['n']} pairs per seed ({s['n_detour']} detour), the same for all (fingerprint "
        f"{protocol['pairs_fingerprint']}), {protocol['pairs_presolved_removed']} pre-solved removed, budget "
        f"{protocol['budget']} steps; greedy on detour pairs {s['greedy_detour_final']:.1%}; "
        f"{s['model_evaluations_per_decision']:.0f} imagined sequences per decision. {s['machine']}, "
        f"{s['threads']} threads, torch {s['versions']['torch']}, commit {s['commit']}.",
    ]
    return HEAD + "\n".join(rows) + "\n"


def planned(lines: list[EpisodeRecord]) -> list[EpisodeRecord]:
    """The model's episodes in order of the pairs."""
    return sorted((r for r in lines if r.policy == "model"), key=lambda r: r.pair)


def picture(run: Path, path: Path) -> None:
    """Eight detour rollouts in a grid, agent left and goal right."""
    env = read_json(run / "summary.json")["protocol"]["env"]
    chosen = [record for record in planned(read(run / "episodes.jsonl")) if record.detour][:8]
    films = np.stack([film(env, record) for record in chosen])  # (8, T, h, w, 3)
    grid = films.reshape(2, 4, *films.shape[1:]).transpose(2, 0, 3, 1, 4, 5)
    frames = grid.reshape(grid.shape[0], 2 * films.shape[2], -1, 3).repeat(2, axis=1).repeat(2, axis=2)
    iio.imwrite(path, frames, duration=70, loop=0)


def film(env: dict, record: EpisodeRecord) -> np.ndarray:
    """(T, h, w, 3) frames of one episode, every second step up to step 70."""
    task = build_task(env, 1)
    frames = task.draw(np.array(record.states[:71:2]))
    goal = np.broadcast_to(task.draw(np.array([record.goal])), frames.shape)
    both = np.concatenate([frames, np.full((*frames.shape[:2], 1, 3), 255, np.uint8), goal], axis=2)
    return np.pad(both, ((0, 0), (2, 2), (4, 4), (0, 0)), constant_values=255)


def main() -> None:
    """Write two_room_demo.md, the raw files and demo.gif beside this script."""
    runs = [Path(argument) for argument in sys.argv[1:]]
    RAW.mkdir(exist_ok=True)
    for run in runs:
        summary = read_json(run / "summary.json")
        name = f"seed-{summary['seed']}"
        (RAW / f"{name}.summary.json").write_text(json.dumps(summary, indent=1) + "\n")
        with gzip.GzipFile(RAW / f"{name}.episodes.jsonl.gz", "wb", mtime=0) as file:
            file.write((run / "episodes.jsonl").read_bytes())
    (HERE / "two_room_demo.md").write_text(page())
    if runs:
        picture(runs[0], HERE / "demo.gif")


if __name__ == "__main__":
    main()
