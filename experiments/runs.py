"""What every verb does to a folder: settings, locks, provenance, progress."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import Distribution, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from lewm.types import InputError

PLACES = {"out", "run", "data", "rows", "workers", "cache"}  # settings that change no result


def claim_folder(
    folder: Path,
    verb: str,
    settings: Mapping[str, Any],
    outputs: Sequence[str] = (),
    grows: Sequence[str] = (),
) -> None:
    """Write `<verb>.json` into a folder that holds nothing of another run; else an error, nothing touched.

    Args:
        settings: a rerun must have the same, but for where things are and how many rows go at once.
        outputs: files the verb will write; without `<verb>.json` none of them may exist.
        grows: settings, mappings or lists, to which a rerun may add.
    """
    path = folder / f"{verb}.json"
    settings = json.loads(json.dumps(settings))
    if path.exists():
        before = read_json(path)
        grown = {key: _joined(settings[key], before[key]) for key in grows if key in before}
        old, new = _flatten({**before, **grown}), _flatten(settings)
        changed = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k) and not _is_place(k))
        if changed:
            key = changed[0]
            raise InputError(
                f"{folder} holds another {verb} run ({key} is {old.get(key)}, now {new.get(key)}); "
                "choose another out=..., or delete that folder"
            )
        if any(grown[key] != before[key] for key in grown):
            write_json(path, settings)
        return
    foreign = [name for name in outputs if (folder / name).exists()]
    if foreign:
        raise InputError(f"{folder} already holds {foreign[0]}, not from this run; choose another out=...")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, settings)


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a folder against a second process that would write into it."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise InputError(
            f"another lewm process is writing into {folder}; wait for it, or choose another out=..."
        ) from None


def at_least(settings: Mapping[str, Any], **smallest: int) -> None:
    """Raise an `InputError` for a setting below its smallest value."""
    for name, value in smallest.items():
        if not isinstance(settings[name], int | float) or settings[name] < value:
            raise InputError(f"{name} must be at least {value}, got {settings[name]}")


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
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}") from None


def provenance() -> dict[str, Any]:
    """Versions, machine and commit, for the record."""
    packages = ("lewm", "torch", "numpy", "gymnasium", "zstandard", "mujoco", "dm-control")
    versions = {name: version(name) for name in packages if _installed(name)}
    return {
        "versions": versions | {"python": platform.python_version()},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "commit": commit(),
        "command": " ".join([Path(sys.argv[0]).name, *(a for a in sys.argv[1:] if not a.startswith("hydra"))]),
    }


def _installed(name: str) -> bool:
    """Whether a package is installed; those of extras need not be."""
    return any(True for _ in Distribution.discover(name=name))


def commit() -> str | None:
    """The commit of this checkout, with `+changes` if it was edited; None outside of git."""
    here = Path(__file__).resolve().parents[1]
    try:
        asked = ["git", "rev-parse", "--show-toplevel", "HEAD"]
        top, head = subprocess.run(asked, cwd=here, capture_output=True, text=True, check=True).stdout.split()
        if Path(top) != here:  # installed inside somebody else's repository
            return None
        dirty = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=here, capture_output=True, text=True)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None
    return head[:12] + ("+changes" if dirty.stdout.strip() else "")


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


def _is_place(key: str) -> bool:
    return key.rpartition(".")[2] in PLACES


def _joined(first: Any, then: Any) -> Any:
    """Both mappings, where `then` wins, or both lists, nothing twice."""
    return {**first, **then} if isinstance(first, dict) else list(dict.fromkeys([*first, *then]))


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flatten(inner, f"{prefix}.{key}" if prefix else key)
    return flat
