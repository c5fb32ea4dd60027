"""Headless pictures of MuJoCo models, fast or as the model says, and a probe of whether any can be drawn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from envs.gl import GIVEN_UP_AFTER, advice, backend_name, load_mujoco, python, shared
from lewm.types import InputError, nearest

if TYPE_CHECKING:
    import mujoco

__all__ = ["QUALITIES", "Probe", "Renderer", "load_mujoco", "probe"]

QUALITIES = ("fast", "standard")
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


class Renderer:
    """Pictures of one model. Building one touches no GL; the first `draw` does.

    Args:
        model: the MjModel; what its visual section says of buffers and quality is overridden, not changed.
        height, width: of the picture, in pixels; any.
        quality: "fast" leaves out shadows, reflections, multisampling, sky and haze; "standard" is the model's own.
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
        self._stale: set[int] = set()

    @property
    def facts(self) -> dict[str, str]:
        """What decides how a state looks, beside the model: recorded with data, compared at evaluation."""
        return {"backend": backend_name(), "quality": self.quality, "mujoco": self.mujoco.__version__}

    def draw(self, data: mujoco.MjData) -> np.ndarray:
        """The picture (height, width, 3) uint8 of `data`, whose positions must be computed (mj_forward or less)."""
        mj, pixels = self.mujoco, np.empty((self.height, self.width, 3), np.uint8)
        with shared.current():
            if self._context is None:
                self._open()
            while self._stale:
                mj.mjr_uploadTexture(self.model, self._context, self._stale.pop())
            mj.mjv_updateScene(
                self.model, data, self._options, None, self.camera, int(mj.mjtCatBit.mjCAT_ALL), self._scene
            )
            frame = mj.MjrRect(0, 0, self.width, self.height)
            mj.mjr_setBuffer(int(mj.mjtFramebuffer.mjFB_OFFSCREEN), self._context)
            mj.mjr_render(frame, self._scene, self._context)
            mj.mjr_readPixels(pixels, None, frame, self._context)
            mj.mjr_getError()  # of materials beyond GL's bounds: harmless, but the next context would complain
        return pixels[::-1].copy()

    def upload(self, texture: str) -> None:
        """Say that the model's data of a texture has changed."""
        if self._context is not None:
            self._stale.add(self.model.texture(texture).id)

    def close(self) -> None:
        """Free what the renderer holds; a later `draw` makes it anew. Done by itself when it is dropped."""
        if self._finalizer is not None:
            self._finalizer()
        self._scene = self._context = self._finalizer = None
        self._stale.clear()

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
        wanted = [(vis.global_, "offwidth", self.width), (vis.global_, "offheight", self.height)]
        flags: tuple[Any, ...] = ()
        if self.quality == "fast":
            wanted += [(vis.quality, "offsamples", 0), (vis.quality, "shadowsize", 0)]
            flag = mj.mjtRndFlag
            flags = (flag.mjRND_SHADOW, flag.mjRND_REFLECTION, flag.mjRND_SKYBOX, flag.mjRND_HAZE)
        try:
            with _changed(wanted):
                self._context = mj.MjrContext(self.model, int(mj.mjtFontScale.mjFONTSCALE_100))
        except mj.FatalError as error:  # GLFW without a display makes a context that is none
            raise InputError(f"the GL backend {backend_name()} cannot draw here: {error}; {advice()}") from None
        self._finalizer = weakref.finalize(self, _free, self._context)
        self._finalizer.atexit = False  # the shared context takes all with it
        self._scene, self._options = mj.MjvScene(self.model, maxgeom=10_000), mj.MjvOption()
        for flag in flags:
            self._scene.flags[int(flag)] = 0


@contextmanager
def _changed(settings: Sequence[tuple[Any, str, int]]) -> Iterator[None]:
    before = [(part, name, getattr(part, name)) for part, name, _ in settings]
    for part, name, value in settings:
        setattr(part, name, value)
    try:
        yield
    finally:
        for part, name, value in before:
            setattr(part, name, value)


def _free(context: mujoco.MjrContext) -> None:
    if shared.alive:
        with shared.current():
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
    timeout_s: float = GIVEN_UP_AFTER,
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
        done = python(code, backend, timeout_s)
    except subprocess.TimeoutExpired:
        return Probe(name, error=f"no picture within {timeout_s:g} s")
    if done.returncode < 0:
        return Probe(name, error=f"killed by signal {-done.returncode}")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Probe(name, error=last.removeprefix("lewm.types.InputError: "))
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
