"""Early, loud diagnosis: what is going wrong in a training run, and what to do about it, said once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from torch import Tensor

from lewm.diagnosis.health import health

MIN_ROWS = 16  # fewer latents say nothing about a space
PATIENCE = 3  # logged steps in a row that must look collapsed
RECENT = 10  # logged steps that are compared with earlier ones
RISING = 0.5  # by which share of its best the loss must have grown
CLIPPED, MIN_LATE = 0.95, 20  # share of clipped steps, among so many late ones
STARVED, WAITED = 0.25, 2.0  # share of the time spent waiting for data, and seconds of it
START = 10  # steps that may be slow: caches fill, workers start

Item = TypeVar("Item")


class Watch:
    """Looks at a run's metrics and clock. It stops no run; loss or gradient that are not finite do that.

    Args:
        shaped: whether this run shapes the latents; those of a frozen encoder are as they are, and waiting for the
            first of them says nothing about the data.
    """

    def __init__(
        self,
        *,
        steps: int,
        warmup: int,
        clip: float,
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.perf_counter,
        shaped: bool = True,
    ) -> None:
        self._shaped = shaped
        self._steps, self._warmup, self._clip, self._tell, self._clock = steps, warmup, clip, tell, clock
        self._said: set[str] = set()
        self._losses: list[float] = []
        self._best = math.inf  # mean of so many in a row as are compared
        self._late: list[float] = []  # gradient norms
        self._collapsed = 0
        self._count, self._waiting, self._total = 0, 0.0, 0.0

    def timed(self, batches: Iterable[Item]) -> Iterator[Item]:
        """The same batches, with an eye on how long each takes to come and to be used."""
        self._schedule()
        asked = self._clock()
        for batch in batches:
            came = self._clock()
            yield batch
            del batch  # its memory may be used for one to come
            done = self._clock()
            self._count += 1
            if self._count > START:
                self._waiting += came - asked
                self._total += done - asked
            asked = done

    def look(self, step: int, loss: float, gradient_norm: float, z_ND: Tensor) -> None:
        """Say what a logged step gives reason to say.

        Args:
            z_ND: latents, one frame per window.
        """
        self._losses.append(loss)
        if step > max(self._warmup, self._steps // 2):
            self._late.append(gradient_norm)
        if self._shaped:
            self._collapse(step, z_ND)
            self._starvation()
        self._rising(step)
        self._clipping()

    def _schedule(self) -> None:
        if self._warmup >= self._steps:
            self._say(
                "warm-up",
                f"the warm-up of {self._warmup} steps does not end within the {self._steps} steps of this run: the "
                "learning rate only rises; lower trainer.warmup",
            )

    def _collapse(self, step: int, z_ND: Tensor) -> None:
        if len(z_ND) < MIN_ROWS or step <= min(self._warmup, self._steps // 2):
            return
        complaints = health(z_ND).complaints
        self._collapsed = self._collapsed + 1 if complaints else 0
        if self._collapsed >= PATIENCE:
            self._say(
                "collapse",
                f"at step {step} {'; '.join(complaints)}: the model learns nothing; raise "
                "objective.regulariser.weight, or lower trainer.learning_rate",
            )

    def _rising(self, step: int) -> None:
        if len(self._losses) < RECENT:
            return
        now = sum(self._losses[-RECENT:]) / RECENT
        self._best = min(self._best, now)
        if step <= self._warmup or len(self._losses) < 3 * RECENT:
            return
        best = self._best
        if now - best > RISING * abs(best):
            self._say(
                "rising",
                f"the loss rises: {now:.3g} at step {step}, {best:.3g} at best; lower trainer.learning_rate",
            )

    def _clipping(self) -> None:
        clipped = sum(norm > self._clip for norm in self._late)
        if len(self._late) >= MIN_LATE and clipped >= CLIPPED * len(self._late):
            typical = sorted(self._late)[len(self._late) // 2]
            self._say(
                "clipping",
                f"the gradient was clipped in {clipped} of the last {len(self._late)} logged steps (its norm is "
                f"{typical:.3g}, trainer.clip {self._clip:g}), so that all steps are equally long however near the "
                "goal; lower trainer.learning_rate, or raise trainer.clip",
            )

    def _starvation(self) -> None:
        if self._waiting >= WAITED and self._waiting >= STARVED * self._total:
            self._say(
                "starvation",
                f"{self._waiting / self._total:.0%} of the time goes to waiting for data "
                f"({1000 * self._waiting / (self._count - START):.0f} ms a step); try cache=ram or "
                "trainer.workers=auto",
            )

    def _say(self, topic: str, text: str) -> None:
        if topic not in self._said:
            self._said.add(topic)
            self._tell(text)
