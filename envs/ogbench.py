"""What all tasks made from OGBench share: its models, physics and control, with our states, goals and pictures.

OGBench (Park et al., arXiv 2410.20092) comes as gymnasium environments that end on success, draw through a renderer
of their own and remember things from step to step. Here one such environment serves all rows as a pure function:

    state  =  qpos | qvel | the constraint solver's warm start | what the environment remembers | varied factors

Loading a state and stepping gives, bit for bit, what the uninterrupted OGBench environment gives. Time is left out:
nothing depends on it. Colours, cameras and actions are those of OGBench's pixel versions (`visual-*`).
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version as package_version
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from envs.factors import Factor, Factors
from envs.rendering import Renderer, load_mujoco
from envs.task import SimulatorTask
from lewm.extras import need
from lewm.types import InputError

if TYPE_CHECKING:
    import gymnasium
    import mujoco


@dataclass(frozen=True)
class Knob:
    """A factor of variation, and how its value gets into the model."""

    factor: Factor
    turn: Callable[[np.ndarray], None]


def colour(*rgba: np.ndarray) -> Knob:
    """Paints views of RGBA rows of the model, or tints what has a texture; never darker than a quarter."""

    def turn(rgb: np.ndarray) -> None:
        for row in rgba:
            row[..., :3] = rgb / 255

    return Knob(Factor((255 * rgba[0][..., :3]).round().tolist(), (64, 64, 64), (255, 255, 255)), turn)


def scale(low: float, high: float, *views: np.ndarray) -> Knob:
    """Multiplies views of the model by a factor of low to high."""
    usual = [view.copy() for view in views]

    def turn(by: np.ndarray) -> None:
        for view, value in zip(views, usual, strict=True):
            view[...] = value * by

    return Knob(Factor(1.0, low, high), turn)


def shift(view: np.ndarray, reach: float) -> Knob:
    """Moves a position in the model (3,) by up to `reach` along each axis."""
    usual = view.copy()

    def turn(by: np.ndarray) -> None:
        view[...] = usual + by

    return Knob(Factor((0.0,) * 3, (-reach,) * 3, (reach,) * 3), turn)


def coarsen(model: mujoco.MjModel, prefix: str, cell: float) -> None:
    """Let the meshes of a name be drawn with fewer triangles: vertices within cells of `cell` metres become one.

    Only triangles change, and collisions are computed from vertices, so this cannot change what happens.
    """
    digits = (1, 2**20, 2**40)
    for mesh in (k for k in range(model.nmesh) if model.mesh(k).name.startswith(prefix)):
        begin, vertices = model.mesh_faceadr[mesh], model.mesh_vertadr[mesh]
        faces = slice(begin, begin + model.mesh_facenum[mesh])
        at = model.mesh_vert[vertices : vertices + model.mesh_vertnum[mesh]]
        _, kept, cells = np.unique(np.round(at / cell).astype(int) @ digits, return_index=True, return_inverse=True)
        merged = kept[cells][model.mesh_face[faces]]
        ordered = np.sort(merged, axis=1)
        _, unique = np.unique(ordered @ digits, return_index=True)
        left = unique[(np.diff(ordered[unique], axis=1) > 0).all(1)]  # the others are lines or points by now
        model.mesh_face[begin : begin + len(left)] = merged[left]
        for per_face in (model.mesh_facenormal, model.mesh_facetexcoord):
            per_face[begin : begin + len(left)] = per_face[faces][left]
        model.mesh_facenum[mesh] = len(left)


class OGBenchTask(SimulatorTask):
    """`rows` copies of one OGBench environment; see the module docstring.

    Args:
        rows: number of independent rows B.
        image_size: side of the square image in pixels.
        quality: of the pictures, `fast` (no shadows, no reflections, a coarser robot) or `standard`, as OGBench's.
        vary: factors of variation drawn anew for every episode; `factors.known` has all.
    """

    version: ClassVar[int] = 1
    camera: Any  # name of a camera of the model, or an mjvCamera: subclasses set it in `make`

    def __init__(self, rows: int, *, image_size: int = 64, quality: str = "fast", vary: Sequence[str] = ()) -> None:
        if rows < 1 or image_size < 16:
            raise InputError(f"an OGBench task needs rows >= 1 and image_size >= 16, got {rows} and {image_size}")
        self.rows, self.image_shape, self.quality = rows, (image_size, image_size, 3), quality
        self._mj = load_mujoco("ogbench")
        need("ogbench", "ogbench")
        self._env = self.make()
        kind = self._mj.mjtState
        self._spec = int(kind.mjSTATE_QPOS | kind.mjSTATE_QVEL | kind.mjSTATE_WARMSTART)
        self._physics = self._mj.mj_stateSize(self.model, self._spec)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # gymnasium's, of precision lost by OGBench's bounds of -1 and 1
            self.low, self.high = self._env.action_space.low, self._env.action_space.high
        self._renderer = Renderer(self.model, image_size, image_size, quality=quality, camera=self.camera)
        self.rendering = {**self._renderer.facts, "ogbench": package_version("ogbench")}
        self._knobs = self.knobs()
        self.factors = Factors({name: knob.factor for name, knob in self._knobs.items()}, vary)
        self.state_dim = self._physics + len(self.remembered()) + self.factors.size

    # What a task says of itself.

    @abstractmethod
    def make(self) -> gymnasium.Env:
        """The OGBench environment, reset once, that steps without drawing."""

    @abstractmethod
    def knobs(self) -> dict[str, Knob]:
        """What may vary, by name."""

    @abstractmethod
    def arrange(self, rng: np.random.Generator, goal: bool) -> None:
        """Put the environment into a drawn scene, of a start or of a goal."""

    def settle(self, state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """What becomes of a drawn scene before it is used."""
        return state

    def remembered(self) -> np.ndarray:
        """What the environment would take from this step to the next, beside MuJoCo's own state."""
        return np.zeros(0)

    # The task, made of that.

    def sample_state(self, rng: np.random.Generator) -> np.ndarray:
        """A start as OGBench draws it for collecting data."""
        return self._draw_scene(rng, self.factors.draw(rng), goal=False)

    def sample_goal(self, rng: np.random.Generator, start: np.ndarray) -> np.ndarray:
        """A goal that is not reached at the start already, with the start's factors."""
        varied = start[self.state_dim - self.factors.size :]
        while True:
            goal = self._draw_scene(rng, varied, goal=True)
            if self.distance(start[None], goal[None])[0] > 1:
                return goal

    def simulate(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        """One control step of OGBench's environment."""
        self.load(state)
        self._env.step(action)
        return self.save(state[self.state_dim - self.factors.size :])

    def draw_one(self, state: np.ndarray) -> np.ndarray:
        """Through OGBench's own camera."""
        self.load(state)
        self._mj.mj_forward(self.model, self.data)
        return self._renderer.draw(self.data)

    def close(self) -> None:
        """Give back the renderer; a later picture makes it anew."""
        super().close()
        self._renderer.close()

    @property
    def environment(self) -> gymnasium.Env:
        """OGBench's environment, in whichever state was loaded last."""
        return self._env

    @property
    def model(self) -> mujoco.MjModel:
        """The one model of all rows."""
        return self._env.unwrapped.model

    @property
    def data(self) -> mujoco.MjData:
        """The one scratch pad of all rows."""
        return self._env.unwrapped.data

    def load(self, state: np.ndarray) -> None:
        """Make the environment be in a state."""
        self._mj.mj_setState(self.model, self.data, state[: self._physics], self._spec)
        self.data.time = 0
        values = self.factors.of(state[None]) if self.factors.vary else {}
        for name in self.factors.vary:
            self._knobs[name].turn(values[name][0])

    def save(self, varied: np.ndarray) -> np.ndarray:
        """The state the environment is in, under these factors."""
        physics = np.empty(self._physics)
        self._mj.mj_getState(self.model, self.data, physics, self._spec)
        return np.concatenate([physics, self.remembered(), varied])

    def column(self, joint: str) -> int:
        """Where a joint's coordinates begin in a state."""
        return int(self.model.joint(joint).qposadr[0])

    def _draw_scene(self, rng: np.random.Generator, varied: np.ndarray, goal: bool) -> np.ndarray:
        while True:
            self._env.np_random = rng
            self._mj.mj_resetData(self.model, self.data)
            self.arrange(rng, goal)
            state = self.settle(self.save(varied), rng)
            if self.possible(state[None])[0]:
                return state
