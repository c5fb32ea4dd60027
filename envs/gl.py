"""MuJoCo with a GL backend that works here, and the one GL context of this process.

All renderers share the context, which is made at the first picture and current only while one is drawn. (With a
context each, as in `mujoco.Renderer`, freeing one renderer deletes the textures and buffers of whichever other is
current, as the names of GL objects are only unique within a context: stale frames, and no error.)
"""

from __future__ import annotations

import atexit
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from lewm.extras import need
from lewm.types import InputError

BACKENDS = {"egl": "apt install libegl1 libgl1-mesa-dri", "osmesa": "apt install libosmesa6"}
GIVEN_UP_AFTER = 30.0  # seconds; a broken driver may hang


def load_mujoco(extra: str = "dmc") -> ModuleType:
    """MuJoCo with a GL backend that works here, chosen once, before its first import.

    That is the user's MUJOCO_GL; else, on Linux, EGL or OSMesa, whichever makes a context (tried in a process of
    its own); else MuJoCo's default. A missing package or library is an `InputError` that says what to install.
    """
    if "mujoco" not in sys.modules and find_spec("mujoco") and platform.system() == "Linux":
        os.environ["MUJOCO_GL"] = os.environ.get("MUJOCO_GL", "").strip() or _working_backend()
    try:
        return need("mujoco", extra)
    except InputError:
        raise
    except Exception as error:  # RuntimeError for an unknown name, AttributeError and more for a missing library
        chosen = os.environ.get("MUJOCO_GL")
        raise InputError(f"MUJOCO_GL={chosen} does not work here: {error}; {advice()}") from None


def _working_backend() -> str:
    for backend in BACKENDS:
        try:
            done = python("import mujoco; mujoco.GLContext(16, 16).make_current()", backend, GIVEN_UP_AFTER)
        except subprocess.TimeoutExpired:
            continue
        if done.returncode == 0:
            return backend
    raise InputError(f"MuJoCo cannot draw here, neither with EGL nor with OSMesa: {advice()}")


def advice() -> str:
    """What to install where nothing can be drawn."""
    return " or ".join(f"`{command}`" for command in BACKENDS.values()) + "; `lewm doctor` tells what works"


def python(code: str, backend: str | None, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter with our import path and this backend."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    if backend is not None:
        env["MUJOCO_GL"] = backend
        if "mujoco" in sys.modules:  # which then has set this one, for the backend of this process
            env.pop("PYOPENGL_PLATFORM", None)
    return subprocess.run([sys.executable, "-c", code], env=env, timeout=timeout_s, capture_output=True, text=True)


class SharedContext:
    """The GL context of this process. `current()` has it current, and nothing outside of it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._depth = 0
        self._process: int | None = None
        self._context: Any = None

    @contextmanager
    def current(self) -> Iterator[None]:
        """Nothing else draws meanwhile, in whichever thread; may be nested."""
        with self._lock:
            if self._context is None:
                self._make()
            if self._process != os.getpid():
                raise InputError(
                    "this process was forked from one that had drawn, and GL does not survive that: "
                    "start workers with the forkserver or spawn method"
                )
            if self._depth == 0:
                self._context.make_current()
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self._release()

    @property
    def alive(self) -> bool:
        """Whether there is a context to draw with, or to free things in."""
        return self._context is not None and self._process == os.getpid()

    def _make(self) -> None:
        import mujoco

        if not hasattr(mujoco, "GLContext"):
            raise InputError(f"MuJoCo was imported without a working GL backend: set MUJOCO_GL, or {advice()}")
        try:
            self._context = mujoco.GLContext(16, 16)
            self._context.make_current()
        except Exception as error:
            self._context = None
            raise InputError(f"the GL backend {backend_name()} makes no context: {error}; {advice()}") from None
        self._process = os.getpid()
        atexit.register(self._close)  # later than MuJoCo's own hook, so run before it

    def _release(self) -> None:
        backend = backend_name()
        if backend == "egl":
            from mujoco import egl

            none = egl.EGL.EGL_NO_SURFACE
            egl.EGL.eglMakeCurrent(egl.EGL_DISPLAY, none, none, egl.EGL.EGL_NO_CONTEXT)
        elif backend == "osmesa":
            from mujoco import osmesa

            osmesa.osmesa.OSMesaMakeCurrent(None, None, osmesa.GL.GL_FLOAT, 0, 0)

    def _close(self) -> None:
        if self.alive:
            try:
                self._context.free()
            except Exception:  # another package, dm_control for one, has ended EGL for the whole process
                self._context._context = None  # so that MuJoCo does not try again when it is collected
        self._context = None


shared = SharedContext()


def backend_name() -> str:
    """The GL backend that MuJoCo has: "egl", "osmesa", "glfw", "cgl" or "none"."""
    context = getattr(load_mujoco(), "GLContext", None)
    return context.__module__.rpartition(".")[2] if context else "none"


def renderer_name() -> str | None:
    """What draws behind the backend, in OpenGL's words ("llvmpipe ...", a GPU's name); None before it has drawn.

    Drivers of one backend differ in single pixels.
    """
    if not shared.alive:
        return None
    from OpenGL import GL

    with shared.current():
        name = GL.glGetString(GL.GL_RENDERER)
    return name.decode(errors="replace") if name else None
