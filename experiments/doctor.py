"""`lewm doctor`: what works on this machine, how fast, and what to install for the rest."""

from __future__ import annotations

import argparse
import os
import platform
import re
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

import envs
from envs.gl import BACKENDS
from envs.rendering import QUALITIES, Probe, probe
from experiments.build import build_task
from experiments.runs import progress, say
from lewm.extras import pip_command
from lewm.types import InputError

SIZES = (64, 224)
DESCRIPTION = """Say what works here: Python, PyTorch, the extras, the two ways to draw MuJoCo's tasks without a
screen (each tried in a process of its own, as a broken graphics driver can hang or crash), and every task, with the
pictures it makes per second. Takes half a minute, writes one picture of all tasks and changes nothing else."""
EPILOG = """exit code 0: the base works (Two-Room, and with it training and planning). What is missing beyond that
is listed under "to do", with the command that brings it.

A backend is chosen by itself: EGL, else OSMesa. To choose by hand: MUJOCO_GL=osmesa lewm ..."""


@dataclass(frozen=True)
class Trial:
    """What came of making one task: its pictures per second and one of them, or why there is none."""

    name: str
    fps: float = 0.0
    picture: np.ndarray | None = None
    error: str | None = None


def doctor(arguments: Sequence[str]) -> int:
    """Print the account and write the picture; returns the exit code."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("lewm doctor", description=DESCRIPTION, epilog=EPILOG, formatter_class=raw)
    parser.add_argument("--out", type=Path, default=Path("doctor.png"), help="the picture (doctor.png)")
    parser.add_argument("--seconds", type=float, default=0.5, help="to measure each task for (0.5)")
    options = parser.parse_args(arguments)
    if not options.seconds > 0:
        raise InputError(f"--seconds must be positive, got {options.seconds}")

    _show_base()
    advice = _show_extras() + _show_backends()
    print("\ntasks: steps with a picture of 64 px per second, one at a time")
    trials = []
    with progress(len(envs.IDS), "making each task", "tasks") as bar:
        for name in envs.IDS:
            trials.append(trial := _try(name, options.seconds))
            say(f"  {name:<22}" + (trial.error or f"{trial.fps:,.0f}"))
            bar.update()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    _sheet(trials).savefig(options.out, dpi=100)
    print(f"\npicture of the tasks: {options.out}")
    print("\nto do:" if advice else "\nnothing to do")
    for line in advice:
        print(f"  {line}")
    return 0 if all(trial.error is None for trial in trials if trial.name == "lewm/TwoRoom-v0") else 1


def _show_base() -> None:
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"
    print(f"python    {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs")
    print(f"torch     {torch.__version__}, {torch.get_num_threads()} threads, {cuda}")


def extras() -> dict[str, dict[str, str | None]]:
    """Our extras: name -> package -> installed version, None where it is missing."""
    found: dict[str, dict[str, str | None]] = {}
    for line in requires("lewm") or []:
        match = re.match(r"([\w.-]+).*extra == ['\"](\w+)['\"]", line)
        if match and match[2] != "dev":
            found.setdefault(match[2], {})[match[1]] = _version(match[1])
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _show_extras() -> list[str]:
    print("\nextras")
    advice = []
    for extra, packages in extras().items():
        missing = [package for package, found in packages.items() if found is None]
        have = ", ".join(f"{package} {found}" for package, found in packages.items() if found)
        print(f"  {extra:<10}" + (f"needs {', '.join(missing)}" if missing else have))
        if missing:
            advice.append(f"for the extra {extra}: {pip_command(extra)}")
    return advice


def _show_backends() -> list[str]:
    print("\ndrawing MuJoCo's tasks: pictures of a small scene per second")
    if find_spec("mujoco") is None:
        print("  mujoco is not installed")
        return []
    wish = os.environ.get("MUJOCO_GL", "").lower().strip()  # as MuJoCo reads it
    names = [*BACKENDS] if platform.system() == "Linux" else [None]
    names += [wish] if wish and wish not in names else []
    found = {}
    for name in names:
        one = found[name] = probe(backend=name, sizes=SIZES, qualities=QUALITIES)
        say(f"  {name or one.backend:<10}{_figures(one) if one.works else f'does not work: {one.error}'}")
    working = [name or one.backend for name, one in found.items() if one.works]
    chosen = wish or next(iter(working), "disabled")
    os.environ["MUJOCO_GL"] = chosen if chosen in working else "disabled"  # one that crashes must not end the tasks
    print(f"  used here: {os.environ['MUJOCO_GL']}")
    if working and chosen not in working:
        return [f"MUJOCO_GL={wish} does not work here: unset it, or set it to {' or '.join(working)}"]
    return [] if working else ["to draw MuJoCo's tasks: " + ", or ".join(BACKENDS.values())]


def _figures(one: Probe) -> str:
    return "   ".join(
        f"{size} px: {one.fps[size, 'fast']:,.0f} fast, {one.fps[size, 'standard']:,.0f} standard" for size in SIZES
    )


def _try(name: str, seconds: float) -> Trial:
    registered, settings = envs.IDS[name]
    try:
        with closing(build_task({"name": registered, "image_size": 64, **settings}, 1)) as task:
            return Trial(name, *_measure(task, seconds))
    except InputError as error:
        return Trial(name, error=str(error))
    except Exception as error:  # packages that do not fit each other fail in ways of their own
        return Trial(name, error=f"{type(error).__name__}: {error}")


def _measure(task: envs.GoalTask, seconds: float) -> tuple[float, np.ndarray]:
    """Steps with a picture each, per second, and the pictures of a start and its goal side by side."""
    task.reset(seeds=[0])
    picture = np.concatenate([task.render()[0], task.render_goal()[0]], axis=1)
    rng, frames, begun = np.random.default_rng(0), 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begun) < seconds:
        task.step(rng.uniform(task.low, task.high)[None])
        task.render()
        frames += 1
    return frames / elapsed, picture


def _sheet(trials: Sequence[Trial], columns: int = 4) -> Figure:
    """Start and goal of every task that could be made."""
    made = [trial for trial in trials if trial.picture is not None]
    lines = max(1, -(-len(made) // columns))
    figure = Figure(figsize=(2.7 * columns, 1.75 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, trial in zip(axes, made, strict=False):
        axis.imshow(trial.picture, interpolation="nearest")
        axis.set_title(f"{trial.name}\n{trial.fps:,.0f} per second", fontsize=8)
    figure.suptitle("start | goal", fontsize=8)
    return figure
