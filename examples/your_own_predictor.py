"""Your own predictor: dynamics in one class, a training run with it, and plans by it.

    python examples/your_own_predictor.py [folder]          # under a minute on two CPU cores

On the command line the same file is a plug-in, for training and for whatever loads the checkpoint:

    PYTHONPATH=examples lewm train plugins=[your_own_predictor] data=... out=... model/predictor=arx
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.collect import collect
from experiments.config import compose
from experiments.evaluate import evaluate
from experiments.train import train
from lewm import register
from lewm.models import Predictor


@register("predictor", "arx")
class ARX(Predictor):
    """z' = z + A_1 z + ... + A_n z_(n-1 frames ago) + B a + c: linear in the last n frames and the action block.

    System identification's autoregressive model with an exogenous input, the baseline that a nonlinear predictor
    has to beat. Frames before the first count as zero.
    """

    def __init__(self, latent_dim: int, block_dim: int, *, history: int = 2) -> None:
        super().__init__()
        self.history = history
        self.of_latents = nn.Linear(history * latent_dim, latent_dim)
        self.of_actions = nn.Linear(block_dim, latent_dim, bias=False)

    def forward(self, z_BTD: Tensor, actions_BTE: Tensor) -> Tensor:
        """The latent one block after each of the T frames, from this and earlier ones only."""
        frames = z_BTD.shape[1]
        past = [F.pad(z_BTD, (0, 0, ago, 0))[:, :frames] for ago in range(self.history)]
        change = self.of_latents(torch.cat(past, dim=-1)) + self.of_actions(actions_BTE)
        return self.link(z_BTD + change)


COLLECT = ("env=two_room", "policy=ou", "episodes=300")
TRAIN = ("model/predictor=arx", "trainer.steps=300")
EVALUATE = ("pairs=40",)


def main(
    folder: Path | str = "runs/arx",
    collecting: Sequence[str] = COLLECT,
    training: Sequence[str] = TRAIN,
    evaluating: Sequence[str] = EVALUATE,
) -> dict:
    """Collect, train and evaluate with the settings of `lewm collect`, `lewm train` and `lewm evaluate`."""
    collect(compose("collect", [*collecting, f"out={folder}/data"]))
    train(compose("train", [*training, f"data={folder}/data", f"out={folder}"]))
    summary = evaluate(compose("evaluate", [*evaluating, f"run={folder}"]))
    print(f"reached {summary['success_final']:.0%} of the goal images with a linear predictor")
    return summary


if __name__ == "__main__":
    main(*sys.argv[1:2])
