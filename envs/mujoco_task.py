"""Goal-reaching tasks on a MuJoCo model: exact states, factors of variation, wrapped joint errors."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from envs.factors import Factor, Factors
from envs.rendering import Renderer, load_mujoco
from envs.task import SimulatorTask
from lewm.types import InputError

if TYPE_CHECKING:
    import mujoco

SCALES = {"mass": (0.5, 1.5), "strength": (0.7, 1.3), "damping": (0.5, 2.0), "friction": (0.5, 1.5)}
AGENT_COLORS = ((120, 70, 20), (255, 255, 255))  # bright bodies on dark floors: no draw hides one in the other
FLOOR_COLORS = ((0, 0, 0), (80, 80, 110))  # of its brighter squares


class MuJoCoTask(SimulatorTask):
    """`rows` copies of a model whose joints are hinges and slides. Actions are its controls, in its own units.

    A state is what the simulator's future depends on, then what varies:

        | qpos (q) | qvel (v) | act (a) | warm start of the constraint solver (v) | varied factors |

    (Without the warm start a continuation differs in the last digits. Time is left out: nothing depends on it.)
    One model and one data serve all rows; a row's state is loaded before each use. The sensor `pose` is what a
    picture can show of it: position of each slide, sine and cosine of each hinge, less the joints `unseen`.

    Factors: `agent_color`, `floor_color`; `light`, its brightness as a share; `light_position` and `camera`, as
    offsets in metres; `mass`, `strength` (of the motors), `damping` (of the joints) and `friction`, as shares.

    Args:
        rows: number of independent copies B.
        image_size: side of the square image in pixels.
        quality: "fast" (no shadows, reflections, sky, multisampling) or "standard" (as the model says).
        vary: names of the factors drawn anew for every episode.
    """

    version: ClassVar[int] = 1
    camera: ClassVar[str | int] = -1
    substeps: ClassVar[int] = 1
    unseen: ClassVar[tuple[str, ...]] = ()
    materials: ClassVar[Mapping[str, float]] = MappingProxyType({"self": 1.0})  # of the body: material -> shade
    texture: ClassVar[str] = "grid"  # of the floor, a checker

    def __init__(self, rows: int, *, image_size: int = 64, quality: str = "fast", vary: Sequence[str] = ()) -> None:
        if rows < 1 or image_size < 16:
            raise InputError(
                f"{type(self).__name__} needs rows >= 1 and image_size >= 16, got {rows} and {image_size}"
            )
        self.mujoco = mj = load_mujoco()
        self.rows, self.image_shape, self.quality = rows, (image_size, image_size, 3), quality
        self.model = self.compile()
        self.model.opt.disableflags |= int(mj.mjtDisableBit.mjDSBL_AUTORESET)  # a diverged state must not look fine
        self._usual = copy.copy(self.model)
        self.data = mj.MjData(self.model)
        self.renderer = Renderer(self.model, image_size, image_size, quality=quality, camera=self.camera)
        self.rendering = {**self.renderer.facts, "camera": self.camera}
        self.low, self.high = self.model.actuator_ctrlrange.astype(np.float32).T.copy()
        self.fps = 1 / (self.model.opt.timestep * self.substeps)
        parts = mj.mjtState
        self._parts = sum(
            int(part)
            for part in (parts.mjSTATE_QPOS, parts.mjSTATE_QVEL, parts.mjSTATE_ACT, parts.mjSTATE_WARMSTART)
        )
        self._physical = mj.mj_stateSize(self.model, self._parts)
        self.factors = Factors(self._known_factors(), vary)
        self._applied = np.full(self.factors.size, np.nan)
        self._offsets = {"camera": np.zeros(3), "light_position": np.zeros(3)}
        self.state_dim = self._physical + self.factors.size
        self._find_joints()
        self.sensors = {"pose": self.sense(np.zeros((1, self.state_dim)))["pose"].shape[1]}

    @abstractmethod
    def compile(self) -> mujoco.MjModel:
        """The model."""

    def _find_joints(self) -> None:
        mj, model = self.mujoco, self.model
        joints = [model.joint(k) for k in range(model.njnt)]
        if model.nq != model.njnt:
            raise InputError(f"{type(self).__name__} takes hinges and slides only, got a free or ball joint")
        self.is_angle = np.array([int(joint.type[0]) == int(mj.mjtJoint.mjJNT_HINGE) for joint in joints])
        self.seen = np.array([joint.name not in self.unseen for joint in joints])
        self._limited = model.jnt_limited.astype(bool)

    def _known_factors(self) -> dict[str, Factor]:
        extent = self.model.stat.extent
        near, sideways = np.full(3, 0.05 * extent), np.array((0.5, 0.5, 0)) * extent
        known = {
            "agent_color": Factor(255 * self.model.material(next(iter(self.materials))).rgba[:3], *AGENT_COLORS),
            "floor_color": Factor(self._texture().max((0, 1)), *FLOOR_COLORS),
            "light": Factor(1.0, 0.6, 1.2),
            "light_position": Factor(np.zeros(3), -sideways, sideways),
            "camera": Factor(np.zeros(3), -near, near),
        }
        return known | {name: Factor(1.0, *bounds) for name, bounds in SCALES.items()}

    def _texture(self, model: mujoco.MjModel | None = None) -> np.ndarray:
        """The floor's texture in a model, a view (h, w, 3) uint8."""
        model = model or self.model
        entry = model.texture(self.texture)
        shape = (int(entry.height[0]), int(entry.width[0]), int(entry.nchannel[0]))
        first = int(entry.adr[0])
        return model.tex_data[first : first + math.prod(shape)].reshape(shape)

    # States

    def state(self, qpos: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """The state at rest in `qpos`; what varies is drawn from `rng`, or as usual without one."""
        rest = np.zeros(self._physical - self.model.nq)
        usual = [np.ravel(self.factors.known[name].value) for name in self.factors.vary]
        return np.concatenate([qpos, rest, *(usual if rng is None else [self.factors.draw(rng)])])

    def with_factors(self, state: np.ndarray, of: np.ndarray) -> np.ndarray:
        """`state` (state_dim,) with the varied factors of the state `of`."""
        return np.concatenate([state[: self._physical], of[self._physical :]])

    def qpos(self, states: np.ndarray) -> np.ndarray:
        """Joint positions (B, q) of states (B, s)."""
        return states[:, : self.model.nq]

    def qvel(self, states: np.ndarray) -> np.ndarray:
        """Joint velocities (B, v) of states (B, s)."""
        return states[:, self.model.nq : self.model.nq + self.model.nv]

    def random_qpos(self, rng: np.random.Generator) -> np.ndarray:
        """Limited joints uniform in their ranges, other hinges uniform in angle, other slides at zero."""
        low, high = self.model.jnt_range.T
        free = np.where(self.is_angle, np.pi, 0.0)
        return rng.uniform(np.where(self._limited, low, -free), np.where(self._limited, high, free))

    def possible(self, states: np.ndarray) -> np.ndarray:
        """Joints may give way beyond a limit, but not by half their range; factors stay in theirs."""
        low, high = self.model.jnt_range.T
        slack = np.where(self._limited, (high - low) / 2, np.inf)
        qpos = self.qpos(states)
        return ((qpos >= low - slack) & (qpos <= high + slack)).all(1) & self.factors.fits(states)

    # What is seen of them

    def errors(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """Absolute differences (B, n) of the joints that are seen, in metres and radians; angles are wrapped."""
        difference = (self.qpos(states) - self.qpos(goals))[:, self.seen]
        return np.abs(np.where(self.is_angle[self.seen], wrap(difference), difference))

    def sense(self, states: np.ndarray) -> dict[str, np.ndarray]:
        """`pose`: seen slides, then sines, then cosines of seen hinges."""
        qpos = self.qpos(np.asarray(states, np.float64))
        angles, slides = qpos[:, self.seen & self.is_angle], qpos[:, self.seen & ~self.is_angle]
        return {"pose": np.concatenate([slides, np.sin(angles), np.cos(angles)], axis=1)}

    # The simulator

    def simulate(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        """One control step of `substeps` steps of the model."""
        self.load(state)
        self.data.ctrl[:] = action
        self.mujoco.mj_step(self.model, self.data, self.substeps)
        return self.read(state)

    def draw_one(self, state: np.ndarray) -> np.ndarray:
        """Positions are computed afresh, nothing else is."""
        mj, model, data = self.mujoco, self.model, self.data
        self.load(state)
        mj.mj_kinematics(model, data)
        mj.mj_comPos(model, data)
        mj.mj_camlight(model, data)
        mj.mj_tendon(model, data)
        data.cam_xpos += self._offsets["camera"]
        data.light_xpos += self._offsets["light_position"]
        return self.renderer.draw(data)

    def close(self) -> None:
        """Free the renderer, too."""
        self.renderer.close()
        super().close()

    def load(self, state: np.ndarray) -> None:
        """Put the simulator into a state, with the looks and physics of its factors."""
        varied = state[self._physical :]
        if not np.array_equal(varied, self._applied):
            values = self.factors.of(state[None])
            for name in self.factors.vary:
                self._apply(name, values[name][0])
            if "mass" in self.factors.vary:
                self.mujoco.mj_setConst(self.model, self.data)  # what the model derives from its masses
            self._applied = varied.copy()
        self.mujoco.mj_setState(self.model, self.data, state[: self._physical], self._parts)
        self.data.time = 0

    def read(self, like: np.ndarray) -> np.ndarray:
        """The simulator's state, with the factors of the state `like`."""
        state = like.copy()
        self.mujoco.mj_getState(self.model, self.data, state[: self._physical], self._parts)
        if not (np.abs(state) < self.mujoco.mjMAXVAL).all():
            raise InputError(
                f"{type(self).__name__} diverged: the state it was put into is too far from any visited"
            )
        return state

    def inverse_dynamics(self, states: np.ndarray, accelerations: np.ndarray) -> np.ndarray:
        """Controls (B, A) that give joint accelerations (B, v), if each joint has a motor, in the same order."""
        controls = np.empty((len(states), self.model.nu))
        for row, (state, acceleration) in enumerate(zip(states, accelerations, strict=True)):
            self.load(state)
            self.data.qacc[:] = acceleration
            self.mujoco.mj_inverse(self.model, self.data)
            controls[row] = self.data.qfrc_inverse / self.model.actuator_gear[:, 0]
        return controls

    def _apply(self, name: str, value: np.ndarray) -> None:
        """Set one factor, always from the usual model: nothing adds up."""
        model, usual = self.model, self._usual
        if name in self._offsets:
            self._offsets[name] = value
        elif name == "light":
            model.light_diffuse[:] = usual.light_diffuse * value
            for part in ("ambient", "diffuse"):
                getattr(model.vis.headlight, part)[:] = getattr(usual.vis.headlight, part) * value
        elif name == "agent_color":
            for material, shade in self.materials.items():
                model.material(material).rgba[:3] = value / 255 * shade
        elif name == "floor_color":
            self._texture()[:] = np.round(self._texture(usual) * (value / self.factors.known[name].value))
            self.renderer.upload(self.texture)
        else:
            fields = {"mass": ("body_mass", "body_inertia"), "strength": ("actuator_gear",)}
            fields |= {"damping": ("dof_damping",), "friction": ("geom_friction",)}
            for field in fields[name]:
                getattr(model, field)[:] = getattr(usual, field) * value


def wrap(angles: np.ndarray) -> np.ndarray:
    """Angles in radians, brought into [-pi, pi)."""
    return (np.asarray(angles) + np.pi) % (2 * np.pi) - np.pi
