"""Other people's formats: one module each, all behind `Format` and `Source`; a plug-in may register more."""

from __future__ import annotations

from pathlib import Path

from lewm import registry
from lewm.data.formats.base import Format, Source, Tick, bounds_of
from lewm.extras import need, pip_command
from lewm.types import InputError

__all__ = ["Format", "Source", "Tick", "bounds_of", "detect", "get_format", "known_formats", "need", "pip_command"]


def known_formats() -> dict[str, type[Format]]:
    """Name -> format, in alphabetical order."""
    from lewm.data.formats import (  # noqa: F401  importing registers them
        d4rl,
        diffusion_policy,
        dino_wm,
        lerobot,
        minari,
        mp4,
        ogbench,
        robomimic,
        swm_hdf5,
        swm_lance,
        tdmpc2,
    )

    return {name: registry.get("format", name) for name in registry.names("format")}


def get_format(name: str) -> type[Format]:
    """The format of this name; an unknown one is an error that offers the nearest."""
    known_formats()
    return registry.get("format", name)


def detect(path: Path) -> type[Format]:
    """The format that `path` is in.

    Raises:
        InputError: nothing is there, no format or more than one recognises it.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist")
    found = [one for one in known_formats().values() if one.detect(path)]
    if len(found) == 1:
        return found[0]
    if found:
        names = " or ".join(one.name for one in found)
        raise InputError(f"{path} looks like {names}: say which with --from NAME")
    if path.suffix in (".h5", ".hdf5"):
        need("h5py", "hdf5")
    raise InputError(
        f"{path} is of no format known here: {', '.join(known_formats())}; if it is one, say which with --from NAME"
    )
