"""Goal-conditioned behaviour cloning on the model's latents: what the same data teach a policy, without search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from envs import GoalTask
from experiments.evaluate.agents import Act, Trained
from experiments.evaluate.memory import VERSION, Memory, kept, training_data
from experiments.observe import encode
from experiments.runs import at_least, progress
from lewm.registry import register
from lewm.training import warmup_cosine


class Policy(nn.Module):
    """Latents (B, F, D), the frames of the history and the goal, -> action (B, A) in units of its std."""

    def __init__(self, frames: int, latent_dim: int, actions: int, *, width: int, depth: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("std", torch.ones(latent_dim))
        sizes = [frames * latent_dim, *[width] * depth]
        hidden = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.GELU())]
        self.layers = nn.Sequential(*hidden, nn.Linear(sizes[-1], actions))

    def forward(self, z_BFD: Tensor) -> Tensor:
        """(B, A)."""
        return self.layers(((z_BFD - self.mean) / self.std).flatten(1))


@dataclass(frozen=True)
class Lessons:
    """Examples drawn from a memory: what was seen, a frame the episode came to later, and what was done.

    Attributes:
        history: frames seen, `back` frames apart; before an episode's start its first one, as the model sees it.
        reach: frames to the goal, at most.
    """

    memory: Memory
    history: int
    back: int
    reach: int

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
        """Latents (count, history + 1, D), the goal last, and actions (count, A)."""
        first, last = self.memory.first_N.numpy(), self.memory.last_N.numpy()
        here = rng.choice(np.flatnonzero(np.arange(len(last)) < last), count)
        goal = here + 1 + (rng.random(count) * np.minimum(self.reach, last[here] - here)).astype(int)
        seen = here[:, None] - self.back * np.arange(self.history)[::-1]
        frames = np.column_stack([np.maximum(seen, first[here, None]), goal])
        return self.memory.z_ND[torch.from_numpy(frames)], self.memory.actions_NKA[torch.from_numpy(here), 0]


@register("agent", "cloning")
class Cloning:
    """A small network from the latents of now and of the goal to the action that was done, in every step.

    GCBC: hindsight goals from the same episode, uniformly 1 to `max_offset` steps ahead; the mean squared error of
    actions in units of their std. It is trained on the model's training episodes when first needed, on one thread,
    and kept beside the evaluation in `cloning.safetensors`.

    Args:
        max_offset: environment steps to the goal at most.
        width, depth: of the hidden layers.
        steps, batch_size, learning_rate: of AdamW, with warm-up and cosine decay.
        frames: of the training episodes to learn from.
    """

    seeded, pairs = False, None

    def __init__(
        self,
        trained: Trained,
        *,
        max_offset: int = 50,
        width: int = 256,
        depth: int = 2,
        steps: int = 3000,
        batch_size: int = 256,
        learning_rate: float = 1e-3,
        frames: int = 20_000,
    ) -> None:
        self.trained, self.frames, self.max_offset = trained, frames, max_offset
        self.fitting = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate}
        self.size = {"width": width, "depth": depth}
        counts = {"max_offset": max_offset, "steps": steps, "batch_size": batch_size, "frames": frames} | self.size
        at_least(counts, max_offset=1, steps=1, batch_size=1, frames=2, width=1, depth=0)
        training_data(trained)  # missing data are an error before anything is claimed

    @cached_property
    def policy(self) -> Policy:
        """The trained network, from its file if there is one of the same settings."""
        model, memory = self.trained.model, Memory.of(self.trained, self.frames)
        facts = (model.history + 1, memory.z_ND.shape[1], model.action_spec.dim)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            policy = Policy(*facts, **self.size)
        origin = {**memory.origin, **self.size, **self.fitting, "max_offset": self.max_offset, "policy": VERSION}
        path = self.trained.folder / "cloning.safetensors"
        policy.load_state_dict(kept(path, origin, lambda: self._fit(policy, memory)))
        return policy

    def _fit(self, policy: Policy, memory: Memory) -> dict[str, Tensor]:
        back, reach = (max(1, n // memory.stride) for n in (self.trained.model.action_block, self.max_offset))
        lessons = Lessons(memory, self.trained.model.history, back, reach)
        policy.mean.copy_(memory.z_ND.mean(0))
        policy.std.copy_(memory.z_ND.std(0).clamp(min=1e-6))
        mean, std = self._action_scale
        steps, rate, rng = self.fitting["steps"], self.fitting["learning_rate"], np.random.default_rng(0)
        optimiser = torch.optim.AdamW(policy.parameters(), rate)
        with torch.enable_grad(), progress(steps, "cloning", "steps") as bar:
            for step in range(steps):
                z, actions = lessons.draw(rng, self.fitting["batch_size"])
                loss = F.mse_loss(policy(z), (actions - mean) / std)
                optimiser.zero_grad()
                loss.backward()
                optimiser.param_groups[0]["lr"] = rate * warmup_cosine(step, steps, min(100, steps), 0.0)
                optimiser.step()
                bar.update()
        return policy.state_dict()

    @property
    def _action_scale(self) -> tuple[Tensor, Tensor]:
        spec = self.trained.model.action_spec
        return torch.from_numpy(spec.mean), torch.from_numpy(spec.std)

    @torch.no_grad()
    def begin(self, task: GoalTask, seeds: Sequence[int], steps: int) -> Act:
        """See `Agent`."""
        model, policy = self.trained.model, self.policy
        mean, std = self._action_scale
        goals, seen = encode(model, task, task.get_goal()), []
        ages = model.action_block * np.arange(model.history)[::-1]

        @torch.no_grad()
        def act(t: int) -> np.ndarray:
            seen.append(encode(model, task, task.get_state()))
            z_BFD = torch.stack([*(seen[max(0, t - age)] for age in ages), goals], dim=1)
            # a row at a time, so that its action is the same bits whichever rows share its batch
            actions = torch.cat([policy(z_FD[None].clone()) for z_FD in z_BFD]) * std + mean
            return np.clip(actions.numpy(), task.low, task.high)

        return act
