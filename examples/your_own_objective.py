"""Your own objective: a regulariser in one class, and a training run with it.

    python examples/your_own_objective.py [folder]          # half a minute on two CPU cores

On the command line the same file is a plug-in:

    PYTHONPATH=examples lewm train plugins=[your_own_objective] data=... out=... objective/regulariser=coding_rate
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.collect import collect
from experiments.config import compose
from experiments.train import train
from lewm import register
from lewm.objectives.regularisers import Regulariser


@register("regulariser", "coding_rate")
class CodingRate(Regulariser):
    """Minus the volume that latents fill on the sphere, -log det(I + C / eps) / D (MCR2, arXiv 2006.08558).

    C is the matrix of second moments, of trace D on the sphere: the least is -log(1 + 1 / eps), at C = I.
    """

    link = "sphere"  # else latents would grow without end

    def __init__(self, *, weight: float = 1.0, eps: float = 0.5, **options: Any) -> None:
        super().__init__(weight=weight, **options)
        self.eps = eps

    def measure(self, z_GND: Tensor, generator: torch.Generator) -> Tensor:
        """Mean over G groups of N latents."""
        count, dim = z_GND.shape[-2:]
        moments = z_GND.mT @ z_GND / count
        triangle = torch.linalg.cholesky(torch.eye(dim).to(moments) + moments / self.eps)
        return -2 * triangle.diagonal(dim1=-2, dim2=-1).log().mean()


COLLECT = ("env=two_room", "policy=ou", "episodes=300")
TRAIN = ("objective/regulariser=coding_rate", "trainer.steps=200")


def main(
    folder: Path | str = "runs/coding-rate", collecting: Sequence[str] = COLLECT, training: Sequence[str] = TRAIN
) -> dict:
    """Collect and train with the settings of `lewm collect` and `lewm train`; the last line of metrics.jsonl."""
    collect(compose("collect", [*collecting, f"out={folder}/data"]))
    train(compose("train", [*training, f"data={folder}/data", f"out={folder}"]))
    last = json.loads((Path(folder) / "metrics.jsonl").read_text().splitlines()[-1])
    print(f"coding rate {-last['regularisation']:.2f}, effective rank of the latents {last['effective_rank']:.0f}")
    return last


if __name__ == "__main__":
    main(*sys.argv[1:2])
