"""Headless pictures of MuJoCo models: the one place that knows GL backends and quality settings.

All renderers of a process share one GL context, made at the first picture and current only while one is drawn.
(With a context each, as in `mujoco.Renderer`, freeing one renderer deletes the textures and buffers of whichever
other is current, as the names of GL objects are only unique within a context: stale frames, and no error.)
"""

from __future__ import annotations

import atexit
import json
import os
import platform
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from lewm.extras import need
from lewm.types import InputError, nearest

if TYPE_CHECKING:
    import mujoco

BACKENDS = {"egl": "apt install libegl1 libgl1-mesa-dri", "osmesa": "apt install libosmesa6"}
QUALITIES = ("fast", "standard")
_GIVEN_UP_AFTER = 30.0  # seconds; a broken driver may hang
_MAKE_CONTEXT = "import mujoco; mujoco.GLContext(16, 16).make_current()"
_MODEL = """
<mujoco>
  <asset><texture name="sky" type="skybox" builtin="gradient" rgb1=".4 .6 .8" width="64" height="64"/></asset>
  <visual><quality shadowsize="2048"/></visual>
  <worldbody>
    <light pos="0 0 3"/>
    <geom type="plane" size="2 2 .1" rgba=".2 .3 .4 1"/>
    <body pos="0 0 .6"><freejoint/><geom type="box" size=".3 .3 .3" rgba=".8 .5 .2 1"/></body>
  </worldbody>
</mujoco>"""


def load_mujoco(extra: str = "dmc") -> ModuleType:
    """MuJoCo with a GL backend that works here, chosen once, before its first import.

    That is the user's MUJOCO_GL; else, on Linux, EGL or OSMesa, whichever makes a context (tried in a process of
    its own); else MuJoCo's default. A missing package or system library is an `InputError` that says what to install.
    """
    if "mujoco" not in sys.modules and find_spec("mujoco") and platform.system() == "Linux":
        os.environ.setdefault("MUJOCO_GL", "") or os.environ.update(MUJOCO_GL=_working_backend())
    try:
        return need("mujoco", extra)
    except InputError:
        raise
    except Exception as error:  # RuntimeError for an unknown name, AttributeError and more where a library is missing
        raise InputError(f"MUJOCO_GL={os.environ.get('MUJOCO_GL')} does not work here: {error}; {_advice()}") from None


def _working_backend() -> str:
    for backend in BACKENDS:
        try:
            done = _python(_MAKE_CONTEXT, backend, _GIVEN_UP_AFTER)
        except subprocess.TimeoutExpired:
            continue
        if done.returncode == 0:
            return backend
    raise InputError(f"MuJoCo cannot draw here, neither with EGL nor with OSMesa: {_advice()}")


def _advice() -> str:
    return " or ".join(f"`{command}`" for command in BACKENDS.values()) + "; `lewm doctor` tells what works"


def _python(code: str, backend: str | None, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter with our import path and this backend."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    if backend is not None:
        env["MUJOCO_GL"] = backend
    return subprocess.run([sys.executable, "-c", code], env=env, timeout=timeout_s, capture_output=True, text=True)


class _SharedContext:
    """The GL context of this process. `current()` has it current, and nothing outside of it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._depth = 0
        self._process: int | None = None
        self._context: Any = None

    @contextmanager
    def current(self) -> Iterator[None]:
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
        return self._context is not None and self._process == os.getpid()

    def _make(self) -> None:
        import mujoco

        if not hasattr(mujoco, "GLContext"):
            raise InputError(f"MuJoCo was imported without a working GL backend: set MUJOCO_GL, or {_advice()}")
        try:
            self._context = mujoco.GLContext(16, 16)
            self._context.make_current()
        except Exception as error:
            self._context = None
            raise InputError(f"the GL backend {backend_name()} makes no context: {error}; {_advice()}") from None
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
            self._context.free()
        self._context = None


_shared = _SharedContext()


def backend_name() -> str:
    """The GL backend that MuJoCo has: "egl", "osmesa", "glfw", "cgl" or "none"."""
    context = getattr(load_mujoco(), "GLContext", None)
    return context.__module__.rpartition(".")[2] if context else "none"


class Renderer:
    """Pictures of one model. Building one touches no GL; the first `draw` does.

    Args:
        model: the MjModel; what its visual section says of buffers and quality is overridden, not changed.
        height, width: of the picture, in pixels; any.
        quality: "fast" leaves out shadows, reflections, multisampling, sky and haze; "standard" is as the model says.
        camera: name or number of a camera of the model, -1 for MuJoCo's free one, or an mjvCamera.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        height: int,
        width: int,
        *,
        quality: str = "fast",
        camera: int | str | mujoco.MjvCamera = -1,
    ) -> None:
        if quality not in QUALITIES:
            raise InputError(f"unknown quality '{quality}': {nearest(quality, list(QUALITIES))}")
        if min(height, width) < 1:
            raise InputError(f"a picture needs a height and a width of at least 1, got {height} and {width}")
        self.mujoco = load_mujoco()
        self.model, self.height, self.width, self.quality = model, height, width, quality
        self.camera = self._find_camera(camera)
        self._scene: Any = None
        self._context: Any = None
        self._finalizer: weakref.finalize | None = None

    @property
    def facts(self) -> dict[str, str]:
        """What decides how a state looks, beside the model: recorded with data, compared at evaluation."""
        return {"backend": backend_name(), "quality": self.quality, "mujoco": self.mujoco.__version__}

    def draw(self, data: mujoco.MjData) -> np.ndarray:
        """The picture (height, width, 3) uint8 of `data`, whose positions must be computed (mj_forward or less)."""
        mj, pixels = self.mujoco, np.empty((self.height, self.width, 3), np.uint8)
        with _shared.current():
            if self._context is None:
                self._open()
            mj.mjv_updateScene(
                self.model, data, self._options, None, self.camera, int(mj.mjtCatBit.mjCAT_ALL), self._scene
            )
            frame = mj.MjrRect(0, 0, self.width, self.height)
            mj.mjr_setBuffer(int(mj.mjtFramebuffer.mjFB_OFFSCREEN), self._context)
            mj.mjr_render(frame, self._scene, self._context)
            mj.mjr_readPixels(pixels, None, frame, self._context)
        return pixels[::-1].copy()

    def close(self) -> None:
        """Free what the renderer holds; a later `draw` makes it anew. Done by itself when it is dropped."""
        if self._finalizer is not None:
            self._finalizer()
        self._scene = self._context = self._finalizer = None

    def _find_camera(self, camera: int | str | mujoco.MjvCamera) -> mujoco.MjvCamera:
        mj = self.mujoco
        if isinstance(camera, mj.MjvCamera):
            return camera
        names = [self.model.camera(k).name for k in range(self.model.ncam)]
        if isinstance(camera, str):
            if camera not in names:
                raise InputError(f"the model has no camera '{camera}': {nearest(camera, names)}")
            camera = names.index(camera)
        if not -1 <= camera < len(names):
            raise InputError(f"the model has {len(names)} cameras, got number {camera}")
        found = mj.MjvCamera()
        if camera == -1:
            mj.mjv_defaultFreeCamera(self.model, found)
        else:
            found.type, found.fixedcamid = int(mj.mjtCamera.mjCAMERA_FIXED), camera
        return found

    def _open(self) -> None:
        mj, vis = self.mujoco, self.model.vis
        wanted = {(vis.global_, "offwidth"): self.width, (vis.global_, "offheight"): self.height}
        flags: Sequence[Any] = ()
        if self.quality == "fast":
            wanted |= {(vis.quality, "offsamples"): 0, (vis.quality, "shadowsize"): 0}
            flag = mj.mjtRndFlag
            flags = (flag.mjRND_SHADOW, flag.mjRND_REFLECTION, flag.mjRND_SKYBOX, flag.mjRND_HAZE)
        before = [(part, name, getattr(part, name)) for part, name in wanted]
        try:
            for (part, name), value in wanted.items():
                setattr(part, name, value)
            self._context = mj.MjrContext(self.model, int(mj.mjtFontScale.mjFONTSCALE_100))
        finally:
            for part, name, value in before:
                setattr(part, name, value)
        self._finalizer = weakref.finalize(self, _free, self._context)
        self._finalizer.atexit = False  # the shared context takes all with it
        self._scene, self._options = mj.MjvScene(self.model, maxgeom=10_000), mj.MjvOption()
        for flag in flags:
            self._scene.flags[int(flag)] = 0


def _free(context: mujoco.MjrContext) -> None:
    if _shared.alive:
        with _shared.current():
            context.free()


@dataclass(frozen=True)
class Probe:
    """What came of rendering in a process of its own.

    Attributes:
        backend: the one tried, then the one that drew.
        fps: (size, quality) -> frames of a small scene per second; empty where none was drawn.
        error: what went wrong, in one line; None if nothing did.
    """

    backend: str
    fps: dict[tuple[int, str], float] = field(default_factory=dict)
    error: str | None = None

    @property
    def works(self) -> bool:
        """Whether a picture came back, and was one."""
        return self.error is None


def probe(
    timeout_s: float = _GIVEN_UP_AFTER,
    *,
    backend: str | None = None,
    sizes: Sequence[int] = (64,),
    qualities: Sequence[str] = ("fast",),
) -> Probe:
    """Render a small scene in a fresh process, as a broken GL may hang or kill the one it is tried in.

    Args:
        timeout_s: seconds after which the process is ended and the probe failed.
        backend: None for the one this process would use.
        sizes, qualities: what to measure.
    """
    code = f"from envs.rendering import _report; _report({list(sizes)}, {list(qualities)})"
    name = backend or os.environ.get("MUJOCO_GL") or "default"
    try:
        done = _python(code, backend, timeout_s)
    except subprocess.TimeoutExpired:
        return Probe(name, error=f"no picture within {timeout_s:g} s")
    if done.returncode < 0:
        return Probe(name, error=f"killed by signal {-done.returncode}")
    if done.returncode:
        return Probe(name, error=(done.stderr.strip().splitlines() or ["no message"])[-1])
    drew, figures = json.loads(done.stdout.splitlines()[-1])
    return Probe(drew, {(size, quality): fps for size, quality, fps in figures})


def _report(sizes: Sequence[int], qualities: Sequence[str]) -> None:
    """The other side of `probe`: its result as a line of JSON on stdout."""
    mj = load_mujoco()
    model = mj.MjModel.from_xml_string(_MODEL)
    data = mj.MjData(model)
    mj.mj_forward(model, data)
    figures = []
    for size in sizes:
        for quality in qualities:
            renderer = Renderer(model, size, size, quality=quality)
            if renderer.draw(data).std() < 1:
                raise InputError("the picture is blank")
            start, frames = time.perf_counter(), 0
            while (elapsed := time.perf_counter() - start) < 0.3:
                renderer.draw(data)
                frames += 1
            figures.append((size, quality, frames / elapsed))
    sys.stdout.write(json.dumps((backend_name(), figures)) + "\n")
