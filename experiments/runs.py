"""What every verb does to a folder and to the machine: settings, provenance, threads, memory, progress."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from lewm.types import InputError


def claim_folder(folder: Path, verb: str, settings: Mapping[str, Any]) -> None:
    """Write `<verb>.json` into a new folder; a folder with other settings is an error and stays untouched."""
    path = folder / f"{verb}.json"
    settings = json.loads(json.dumps(settings))
    if path.exists():
        old = _flatten(json.loads(path.read_text()))
        new = _flatten(settings)
        changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
        if changed:
            key = changed[0]
            raise InputError(
                f"{folder} holds another {verb} run ({key} is {old.get(key)}, now {new.get(key)}); "
                "choose another out=..., or delete that folder"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, settings)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(value, indent=1) + "\n")
    temporary.replace(path)


def read_json(path: Path) -> Any:
    """Read JSON; a missing or damaged file is an `InputError`."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; was the step that writes it run?") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is damaged: {error}") from None


def provenance() -> dict[str, Any]:
    """Versions, machine and commit, for the record."""
    packages = ("lewm", "torch", "numpy", "gymnasium")
    return {
        "versions": {name: version(name) for name in packages} | {"python": platform.python_version()},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "commit": commit(),
        "command": " ".join(["lewm", *sys.argv[1:]]),
    }


def commit() -> str | None:
    """The commit of this checkout, with `+changes` if it was edited; None outside of git."""
    here = Path(__file__).parent
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        dirty = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=here, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip()[:12] + ("+changes" if dirty.stdout.strip() else "")


def prepare_machine(threads: int) -> None:
    """Set torch's threads, and let glibc keep freed memory for the next step.

    By default glibc returns every large tensor to the kernel when it is freed and faults it in again a moment
    later; keeping it makes a training step about 1.3 times faster (docs/LOG.md).
    """
    torch.set_num_threads(threads)
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        mmap_threshold, trim_threshold = -3, -1
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)


def peak_memory_mb() -> float | None:
    """Largest resident set of this process so far, in MB; None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)


def progress(total: int, name: str, unit: str, initial: int = 0) -> tqdm:
    """A progress bar on a terminal; silent elsewhere."""
    return tqdm(
        total=total, desc=f"  {name}", unit=f" {unit}", initial=initial, disable=None, leave=False, ncols=100
    )


def say(text: str) -> None:
    """One line for the person at the terminal."""
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flatten(inner, f"{prefix}.{key}" if prefix else key)
    return flat
