"""LeWorldModel-style latent world models from pixels. `lewm.load(path)` gives a model that planners accept."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__lewm__ = True  # marks the five packages of this distribution: see experiments/cli.py

_LAZY = {
    "load": "lewm.checkpoint",
    "save": "lewm.checkpoint",
    "WorldModel": "lewm.models",
    "WorldModelConfig": "lewm.models",
    "register": "lewm.registry",
    "ActionSpec": "lewm.types",
    "Episode": "lewm.types",
    "InputError": "lewm.types",
}

__all__ = ["__version__", *sorted(_LAZY)]


def __getattr__(name: str) -> Any:
    """Import public names on first use, so that `import lewm` costs nothing (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module 'lewm' has no attribute '{name}'")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return __all__
