"""Packages of extras: imported when they are needed, and named with the command that brings them when missing."""

from __future__ import annotations

import re
from importlib import import_module
from importlib.metadata import requires
from types import ModuleType

from lewm.types import InputError

_NAME = re.compile(r"[\w.-]+")


def need(module: str, extra: str) -> ModuleType:
    """Import a package of an extra, or say which pip command brings it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise InputError(f"this needs the package {module}: {pip_command(extra)} ({error})") from None


def pip_command(extra: str) -> str:
    """What brings the packages of one of our extras, by their own names, with the caps that matter.

    Ours is not on PyPI.
    """
    ours = [line for line in requires("lewm") or [] if re.search(rf"extra == ['\"]{extra}['\"]", line)]
    wanted = [line.partition(";")[0].strip() for line in ours]
    return "pip install " + " ".join(f"'{name}'" if "<" in name else _NAME.match(name)[0] for name in wanted)
