"""Several processes that train one model as one process would, up to rounding.

Each has its rows of one global batch, and the same weights:

    global batch   | rank 0 | rank 1 | ... |       accumulate=2:   | 0 | 1 | ... | 0 | 1 | ... |
                                                                     micro-batch 1  micro-batch 2

A mean over rows is taken by each over its own, and the mean of the gradients is the gradient of the mean. A
statistic of the batch that is no mean needs all rows: `gather` for an objective's, `SyncBatchNorm` for a layer's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lewm.extras import need
from lewm.types import InputError

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Processes:
    """This process among those that train together; by default it is alone, and nothing is sent.

    Attributes:
        rank: its number, 0 is the one that writes; world: how many there are; device: what it computes on.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = CPU

    @property
    def main(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def rows(self, batch_size: int, accumulate: int) -> np.ndarray:
        """Its rows of a global batch, micro-batch after micro-batch; what makes one is the same in any world."""
        if batch_size % (accumulate * self.world):
            raise InputError(
                f"trainer.batch_size is the batch of all processes together and must be a multiple of {self.world} "
                f"processes x {accumulate} micro-batches, got {batch_size}"
            )
        return np.arange(batch_size).reshape(accumulate, self.world, -1)[:, self.rank].ravel()

    def gather(self, x: Tensor) -> Tensor:
        """The rows of all processes, in the order of the global batch, with gradients: (b, ...) -> (B, ...)."""
        return x if self.world == 1 else _Gather.apply(x, self)

    def mean(self, x: Tensor) -> Tensor:
        """The mean over processes, without gradients."""
        if self.world == 1:
            return x
        x = x.detach().clone()
        distributed.all_reduce(x)
        return x / self.world

    def any(self, flag: bool) -> bool:
        """Whether it is true in one of them."""
        if self.world == 1:
            return flag
        return bool(self.mean(torch.tensor(float(flag), device=self.device)) > 0)

    def agree(self, number: int, what: str) -> int:
        """A number that must be the same in all of them."""
        if self.world == 1:
            return number
        found = self.gather(torch.tensor([number], device=self.device)).tolist()
        if len(set(found)) > 1:
            raise InputError(f"processes must share the run's folder, but {what} differs between them: {found}")
        return number

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their mean over processes, in one message."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.world == 1 or not gradients:
            return
        flat = self.mean(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def wait(self) -> None:
        """Go on when all of them are here."""
        if self.world > 1:
            distributed.barrier()


def join(device: str = "cpu") -> Processes:
    """The processes that `torchrun` or `accelerate launch` started (extra `distributed`), or this one alone.

    Args:
        device: `cpu`, or an accelerator: `cuda`, of which each process takes the one of its local rank.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        _check_device(device)
        return Processes(device=torch.device(device))
    state = need("accelerate", "distributed").PartialState(cpu=device == "cpu")
    if state.device.type != torch.device(device).type:
        raise InputError(f"trainer.device={device} was asked for, Accelerate found {state.device}")
    return Processes(state.process_index, state.num_processes, state.device)


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises either for a device it was not built for
        raise InputError(f"trainer.device={device} cannot be used: {str(error).splitlines()[0]}") from None


class _Gather(torch.autograd.Function):
    """Concatenate over processes.

    The mean of their losses is minimised, and each may depend on every row: a row's gradient is the sum over
    processes of what their losses say about it. It becomes the mean when the gradients of the weights do.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, processes: Processes) -> Tensor:
        ctx.own = slice(processes.rank * len(x), (processes.rank + 1) * len(x))
        gathered = x.new_zeros(processes.world * len(x), *x.shape[1:])
        gathered[ctx.own] = x
        distributed.all_reduce(gathered)  # what all backends and versions of torch can do
        return gathered

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        grad = grad.contiguous().clone()
        distributed.all_reduce(grad)
        return grad[ctx.own], None


class _Sum(torch.autograd.Function):
    """Sum over processes; so is its gradient, for every process goes on with the sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        distributed.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _Sum.forward(ctx, grad.contiguous())


class SyncBatchNorm(_BatchNorm):
    """Batch normalisation with the moments of the global batch, on any device (torch's needs a GPU).

    It takes over a layer with its parameters and buffers; there must be as many rows in every process.
    """

    def __init__(self, plain: _BatchNorm) -> None:
        self.__dict__ = plain.__dict__  # the same tensors under the same names

    def _check_input_dim(self, x: Tensor) -> None:
        """Any (N, C, ...)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) -> the same shape."""
        if not self.training:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            wide = x.to(torch.promote_types(x.dtype, torch.float32))
            axes, shape = [0, *range(2, x.ndim)], (1, -1, *[1] * (x.ndim - 2))
            count = x.numel() // x.shape[1] * distributed.get_world_size()
            centred = wide - (mean := _Sum.apply(wide.sum(axes)) / count).view(shape)
            variance = _Sum.apply(centred.square().sum(axes)) / count
            self._remember(mean.detach(), variance.detach() * count / max(1, count - 1))
            y = centred * (variance + self.eps).rsqrt().view(shape)
            return (y * self.weight.view(shape) + self.bias.view(shape) if self.affine else y).to(x.dtype)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.track_running_stats:
            self.num_batches_tracked.add_(1)
            share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(variance, share)


@contextmanager
def synchronised(model: nn.Module, processes: Processes) -> Iterator[None]:
    """Let the model's batch normalisations see the global batch meanwhile."""
    places = [
        (parent, name, child)
        for parent in (model.modules() if processes.world > 1 else ())
        for name, child in parent.named_children()
        if isinstance(child, _BatchNorm)
    ]
    for parent, name, child in places:
        setattr(parent, name, SyncBatchNorm(child))
    try:
        yield
    finally:
        for parent, name, child in places:
            setattr(parent, name, child)
