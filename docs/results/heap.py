"""Training step with and without glibc returning freed memory to the kernel; each in a process of its own.

.venv/bin/python docs/results/heap.py | tee docs/results/heap.txt
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import torch

from experiments.runs import prepare_machine
from lewm.models import SIZES, WorldModel
from lewm.objectives import LeJEPA
from lewm.types import ActionSpec


def step_ms(keep: bool, threads: int, steps: int = 30) -> float:
    """Median milliseconds of a training step of the size `small`, 64 windows of 4 frames."""
    prepare_machine(threads) if keep else torch.set_num_threads(threads)
    model = WorldModel(SIZES["small"], ActionSpec([-2, -2], [2, 2], [0, 0], [1, 1])).train()
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
    objective, generator = LeJEPA(), torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 255, (64, 4, 64, 64, 3), dtype=torch.uint8)
    actions = torch.randn(64, 3, 5, 2)
    times = []
    for _ in range(steps):
        begin = time.perf_counter()
        loss = objective(model.encode(pixels), actions, model.predict, generator).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        times.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(times[5:])


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(step_ms(sys.argv[1] == "keep", int(sys.argv[2])))
        sys.exit()
    print("threads  default heap  kept heap  ratio   (ms per step, median of 3 processes each, in turn)")
    for threads in (1, 2):
        times: dict[str, list[float]] = {"default": [], "keep": []}
        for _ in range(3):
            for mode in times:
                call = [sys.executable, __file__, mode, str(threads)]
                times[mode].append(float(subprocess.run(call, capture_output=True, text=True, check=True).stdout))
        default, keep = (statistics.median(times[mode]) for mode in ("default", "keep"))
        print(f"{threads:>7}  {default:>12.1f}  {keep:>9.1f}  {default / keep:>5.2f}")
