"""Where workers run: in processes of this machine, or on a Ray cluster. What they do is the same."""

from __future__ import annotations

import os
import pickle
import signal
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from threading import Thread
from typing import Any, Protocol

from lewm.extras import need
from lewm.registry import register
from lewm.types import InputError


class Died(Exception):
    """A worker ended without a word: killed, or crashed outside of Python. The message is the end of a sentence."""


LINGER = 10.0  # seconds a process may take to end once its answer is there; drivers were seen to hang at exit


class Executor(Protocol):
    """Starts functions elsewhere; a context manager, so that it can be set up and left."""

    def slots(self) -> int:
        """How many workers can run at once."""
        ...

    def start(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function of an importable module in a process of its own; returns a handle."""
        ...

    def wait(self, handles: Sequence[Any], seconds: float) -> list[Any]:
        """Those that have ended, waiting so long for the first of them."""
        ...

    def waiting(self, handles: Sequence[Any]) -> int:
        """How many of them have not begun, for want of a place to run."""
        ...

    def result(self, handle: Any) -> Any:
        """What the function returned or raised; `Died` if its process ended before it did."""
        ...

    def stop(self, handle: Any) -> None:
        """End a process at once."""
        ...

    def successor(self, writer: str) -> str:
        """The name a worker writes under after the one of that name died."""
        ...

    def __enter__(self) -> Executor: ...

    def __exit__(self, *error: object) -> None: ...


@register("executor", "local")
class LocalExecutor:
    """Processes of this machine. None of them is a fork of this one: a fork after OpenGL was used hangs."""

    def slots(self) -> int:
        """Cores this process may use."""
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def start(self, function: Callable[..., Any], *arguments: Any) -> _Process:
        """See `Executor`."""
        return _Process(function, arguments)

    def wait(self, handles: Sequence[_Process], seconds: float) -> list[_Process]:
        """See `Executor`."""
        ended = connection.wait([handle.answer for handle in handles], seconds)  # or the end of its process
        return [handle for handle in handles if handle.answer in ended]

    def waiting(self, handles: Sequence[_Process]) -> int:
        """See `Executor`."""
        return 0

    def result(self, handle: _Process) -> Any:
        """See `Executor`."""
        return handle.result()

    def stop(self, handle: _Process) -> None:
        """See `Executor`."""
        handle.process.kill()
        handle.process.join()

    def successor(self, writer: str) -> str:
        """The same: its lock is free, and what it left half-written is cut off."""
        return writer

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class _Process:
    def __init__(self, function: Callable[..., Any], arguments: Sequence[Any]) -> None:
        context = get_context("forkserver" if os.name == "posix" else "spawn")
        context.set_forkserver_preload(["__main__", "experiments.collect.worker"])  # workers start at once
        self.answer, send = context.Pipe(duplex=False)
        self.process = context.Process(target=_run, args=(send, function, arguments))
        self.process.start()
        send.close()

    def result(self) -> Any:
        try:
            value, error = self.answer.recv()
        except (EOFError, OSError):  # it ended before its answer, or in the middle of it
            self.process.join()
            code = self.process.exitcode
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            raise Died(how) from None
        self.process.join(LINGER)
        self.process.kill()
        if error is not None:
            raise error
        return value


def _run(send: connection.Connection, function: Callable[..., Any], arguments: Sequence[Any]) -> None:
    """Call the function in this new process, which ends with the one that started it, killed or not."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one stops the others
    parent = parent_process()
    Thread(target=lambda: (connection.wait([parent.sentinel]), os._exit(1)), daemon=True).start()
    try:
        send.send((function(*arguments), None))
    except BaseException as error:
        error.add_note(traceback.format_exc())
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            error = RuntimeError(traceback.format_exc())
        send.send((None, error))


class _Caller:
    """The process of a Ray worker."""

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)


@dataclass(frozen=True)
class _Actor:
    actor: Any
    begun: Any
    reply: Any


@register("executor", "ray")
class RayExecutor:
    """A Ray cluster whose nodes have this environment and share the folder of the data set.

    Args:
        address: of the cluster; without one, the cluster this machine is part of, else one made for this run.
        cpus: cores that a worker takes.
    """

    def __init__(self, *, address: str = "", cpus: float = 1.0) -> None:
        if cpus <= 0:
            raise InputError(f"a Ray worker needs cpus above 0, got {cpus}")
        self.address, self.cpus = address, cpus
        self._begun = False

    def __enter__(self) -> RayExecutor:
        self._ray = need("ray", "ray")
        self._begun = not self._ray.is_initialized()
        if self._begun:
            self._ray.init(self.address or None, logging_level="error", log_to_driver=False)
        return self

    def __exit__(self, *error: object) -> None:
        if self._begun:
            self._ray.shutdown()

    def slots(self) -> int:
        """Workers that fit the cluster's cores."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1) / self.cpus))

    def start(self, function: Callable[..., Any], *arguments: Any) -> _Actor:
        """See `Executor`; an actor for each call: Ray may crash when a plain task is cancelled as it ends."""
        actor = self._ray.remote(_Caller).options(num_cpus=self.cpus, max_restarts=0).remote()
        return _Actor(actor, actor.call.remote(int), actor.call.remote(function, *arguments))

    def wait(self, handles: Sequence[_Actor], seconds: float) -> list[_Actor]:
        """See `Executor`."""
        ended = self._ray.wait([handle.reply for handle in handles], timeout=seconds)[0]
        return [handle for handle in handles if handle.reply in ended]

    def waiting(self, handles: Sequence[_Actor]) -> int:
        """See `Executor`; a cluster gives no place to what asks for more than is free, and says nothing."""
        begun = [handle.begun for handle in handles]
        return len(self._ray.wait(begun, num_returns=len(begun), timeout=0)[1])

    def result(self, handle: _Actor) -> Any:
        """See `Executor`."""
        try:
            return self._ray.get(handle.reply)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            raise Died(f"was lost ({' '.join(str(error).split())[:200]})") from None

    def stop(self, handle: _Actor) -> None:
        """See `Executor`."""
        self._ray.kill(handle.actor)

    def successor(self, writer: str) -> str:
        """Another: a worker on a node that was only cut off may still hold its name."""
        name, _, number = writer.partition("r")
        return f"{name}r{int(number or 0) + 1}"
