"""Names -> constructors: the one mechanism behind configs, checkpoints and plug-ins.

A part registers itself with one decorator:

    @register("encoder", "my_encoder")
    class MyEncoder(nn.Module):
        def __init__(self, image_size: int, *, width: int = 64): ...

Parameters *without* a default are facts the caller supplies when the part is built (image size, action
dimension). Parameters *with* a default are its configuration: they appear as config keys under these names and
nothing else is accepted. So a key nobody reads cannot exist, and no file can name code that was not registered.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import entry_points
from typing import Any, TypeVar

from lewm.types import InputError, nearest

Constructor = TypeVar("Constructor", bound=Callable[..., Any])

_PARTS: dict[str, dict[str, Callable[..., Any]]] = {}


def register(kind: str, name: str) -> Callable[[Constructor], Constructor]:
    """Decorator: make a class or function buildable as `name` of `kind`; a taken name is an error."""

    def add(constructor: Constructor) -> Constructor:
        taken = _PARTS.setdefault(kind, {}).get(name)
        if taken is not None and _path(taken) != _path(constructor):
            raise InputError(f"{kind} '{name}' is already {_path(taken)}; choose another name")
        _PARTS[kind][name] = constructor
        return constructor

    return add


def names(kind: str) -> list[str]:
    """Registered names of a kind."""
    return sorted(_PARTS.get(kind, {}))


def get(kind: str, name: str) -> Callable[..., Any]:
    """The constructor registered as `name`; an unknown name is an error that offers the nearest."""
    try:
        return _PARTS[kind][name]
    except KeyError:
        raise InputError(
            f"unknown {kind} '{name}': {nearest(name, names(kind))} "
            "(a part from your own package needs plugins=[your_package])"
        ) from None


def defaults(kind: str, name: str) -> dict[str, Any]:
    """The configuration of a part: its keywords and their default values."""
    return {
        p.name: list(p.default) if isinstance(p.default, tuple) else p.default
        for p in _parameters(get(kind, name)).values()
        if p.default is not inspect.Parameter.empty
    }


def build(kind: str, spec: Mapping[str, Any], **given: Any) -> Any:
    """Construct a part from `{"name": ..., **keywords}` and the facts its constructor asks for.

    Only those of `given` that the constructor names are passed on; an unknown keyword in `spec` is an error. A
    keyword may hold parts itself, `{"name": ...}` or a list of them: of the kind it is called by, else of the same.
    """
    if "name" not in spec:
        raise InputError(f"a {kind} needs a name, got {dict(spec)}; known: {', '.join(names(kind))}")
    constructor = get(kind, spec["name"])
    parameters = _parameters(constructor)
    keywords = {key: value for key, value in spec.items() if key != "name"}
    allowed = defaults(kind, spec["name"])
    for key in keywords:
        if key not in allowed:
            raise InputError(f"{kind} '{spec['name']}' has no setting '{key}': {nearest(key, list(allowed))}")
    keywords = {key: _inner(key if key in _PARTS else kind, value, given) for key, value in keywords.items()}
    return constructor(**{key: value for key, value in given.items() if key in parameters}, **keywords)


def part(kind: str, given: Any, **facts: Any) -> Any:
    """A part as a constructor's argument: `{"name": ..., **keywords}` or a bare name is built, a built one kept."""
    if isinstance(given, str):
        given = {"name": given}
    return build(kind, given, **facts) if isinstance(given, Mapping) else given


def _inner(kind: str, value: Any, given: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping) and "name" in value:
        return build(kind, value, **given)
    return [_inner(kind, element, given) for element in value] if isinstance(value, list) else value


def _parameters(constructor: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Named parameters of a constructor; a class that takes **options shares those of its base classes.

    A `functools.partial` has those of what it is of, with other defaults.
    """
    if isinstance(constructor, functools.partial):
        found = _parameters(constructor.func)
        return found | {name: found[name].replace(default=value) for name, value in constructor.keywords.items()}
    sources = constructor.__mro__ if inspect.isclass(constructor) else [constructor]
    found: dict[str, inspect.Parameter] = {}
    for source in sources:
        parameters = inspect.signature(source).parameters.values()
        found = {p.name: p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)} | found
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found


def _path(constructor: Callable[..., Any]) -> str:
    constructor = getattr(constructor, "func", constructor)  # what a functools.partial is of
    return f"{constructor.__module__}.{constructor.__qualname__}"


def load_plugins(modules: Iterable[str]) -> None:
    """Import packages (or `lewm.plugins` entry points) so that their decorators run."""
    installed = {point.name: point for point in entry_points(group="lewm.plugins")}
    for module in modules:
        try:
            installed[module].load() if module in installed else importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module and not module.startswith(f"{error.name}."):
                raise
            raise InputError(f"plugin '{module}' is not installed: pip install it into this environment") from None
