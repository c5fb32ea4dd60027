"""What OGBench's manipulation tasks share: a robot arm, and cubes on a table before it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from envs.ogbench import Knob, OGBenchTask, coarsen, colour, scale, shift

if TYPE_CHECKING:
    import gymnasium

TOLERANCE = 0.04  # metres; OGBench's, for cubes, drawer and window alike
SIDE = 0.04  # of a cube
MERGED = 0.004  # metres; 4 times as fast to draw as its 190,000 triangles, and looks the same at 224 pixels


@dataclass(frozen=True)
class Subtask:
    """One thing to do on the way to a goal.

    Attributes:
        kind: "cube", "button", "drawer" or "window"; `index`: which cube or button.
        value: what it has to come to: a cube's position and quaternion (7,), else one number (1,).
    """

    kind: str
    index: int
    value: np.ndarray


class ManipulationTask(OGBenchTask):
    """What both tasks share. Action (5,) in -1..1: the effector's move (x, y, z), its turn, and the gripper's.

    OGBench's controller aims from the effector's frame as it was one physics step ago: states remember that frame,
    and the force on a finger, which is not known before the next action.
    Goals are states like any other, with the arm somewhere above the table; where the arm is does not count.
    """

    fps: ClassVar[float] = 20
    expert: ClassVar[str] = "ogbench_oracle"
    camera = "front_pixels"
    cubes: int

    def __init__(self, rows: int, **options: Any) -> None:
        super().__init__(rows, **options)
        joints = [self.model.joint(joint.full_identifier) for joint in self._env._arm_jnts]
        self._arm = [joint.qposadr[0] for joint in joints] + [self.model.nq + joint.dofadr[0] for joint in joints]
        self._gripper = self.column("ur5e/robotiq/right_driver_joint")
        sensed = self.sense(np.zeros((1, self.state_dim)))
        self.sensors = MappingProxyType({name: values.shape[1] for name, values in sensed.items()})

    @abstractmethod
    def ogbench(self) -> tuple[str, str, str]:
        """Module, class and `env_type` of the OGBench environment."""

    @abstractmethod
    def subtask(self, state: np.ndarray, goal: np.ndarray) -> Subtask | None:
        """What to do next on the way from state to goal; None at the goal."""

    def make(self) -> gymnasium.Env:
        """In OGBench's mode for collecting data, which never resets a scene by itself."""
        module, name, kind = self.ogbench()
        made = getattr(import_module(f"ogbench.manipspace.envs.{module}"), name)(
            env_type=kind, ob_type="pixels", mode="data_collection", visualize_info=False
        )
        made.compute_observation = lambda: None  # it would draw
        made.reset(seed=0)
        if self.quality == "fast":
            coarsen(made.model, "ur5e/", MERGED)
        self._cubes = np.array([made.model.joint(f"object_joint_{k}").qposadr[0] for k in range(self.cubes)])
        self._places = self._cubes[:, None] + np.arange(3)
        self._pinch, self._finger = made._pinch_site_id, made.model.body("ur5e/robotiq/right_pad").id
        return made

    def arrange(self, rng: np.random.Generator, goal: bool) -> None:
        """OGBench's draw, again where cubes are inside of each other; goals have a little more to them."""
        apart = False
        while not apart:
            self._env.initialize_episode()
            apart = _gap(self.data.qpos[self._places]) >= 1.5 * SIDE
        if goal:
            self.arrange_goal(rng)
        self._mj.mj_forward(self.model, self.data)

    @abstractmethod
    def arrange_goal(self, rng: np.random.Generator) -> None:
        """Make a goal of the drawn start in the environment."""

    def settle(self, state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A quarter of a second of doing nothing, in which cubes come to rest."""
        for _ in range(5):
            state = self.simulate(state, np.zeros(5))
        return state

    def possible(self, states: np.ndarray) -> np.ndarray:
        """Cubes are near the table, and none is inside of another; factors stay in their ranges."""
        low, high = self._env._workspace_bounds + np.array([[-0.2], [0.2]])
        cubes = self.places(states)
        near = ((cubes > low) & (cubes < high)).all((1, 2))
        return near & (_gap(cubes) > 0.8 * SIDE) & self.factors.fits(states)

    def distance(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """OGBench's rule: every cube within 4 cm of its place, however it is turned; held or not."""
        return (np.linalg.norm(self.places(states) - self.places(goals), axis=-1) / TOLERANCE).max(1)

    def sense(self, states: np.ndarray) -> dict[str, np.ndarray]:
        """`pose`: effector (x, y, z; sin, cos of twice its yaw; gripper closed, 0..1), each cube (x, y, z; sin, cos
        of four times its yaw), then what else the scene has. `proprio`: angles and speeds of the arm's joints,
        gripper closed, how firmly it holds something (0..1).

        Multiples of yaw, as gripper and cubes look the same after half and quarter turns.
        """
        touch = states[:, [self._physics + 12]]
        proprio = np.concatenate([states[:, self._arm], self._closed(states), touch], axis=1)
        return {"pose": self._pose(states), "proprio": proprio}

    def remembered(self) -> np.ndarray:
        """The frame between the fingers, position (3,) and rotation matrix (9,), and what OGBench's finger felt."""
        touch = np.clip(np.linalg.norm(self.data.cfrc_ext[self._finger]) / 50, 0, 1)
        return np.concatenate([self.data.site_xpos[self._pinch], self.data.site_xmat[self._pinch], [touch]])

    def load(self, state: np.ndarray) -> None:
        """With what is remembered."""
        super().load(state)
        frame = state[self._physics : self._physics + 12]
        self.data.site_xpos[self._pinch], self.data.site_xmat[self._pinch] = frame[:3], frame[3:]

    def knobs(self) -> dict[str, Knob]:
        """Looks of cubes and floor, lights, camera; how hard the arm's motors pull, so how fast it follows."""
        model = self.model
        first, *_, last = self._env._arm_actuator_ids
        arm = slice(first, last + 1)
        cubes = [model.geom(f"object_{k}") for k in range(self.cubes)]
        return {
            **{f"cube_{k}_color": colour(cube.rgba) for k, cube in enumerate(cubes)},
            "floor_color": colour(model.material("grid").rgba),
            "light": scale(0.6, 1.4, model.light_diffuse, model.vis.headlight.diffuse),
            "camera": shift(model.camera(self.camera).pos, 0.05),
            "stiffness": scale(0.4, 1.2, model.actuator_gainprm[arm, :1], model.actuator_biasprm[arm, 1:2]),
        }

    def observe(self, state: np.ndarray, subtask: Subtask) -> dict[str, Any]:
        """What OGBench's environment tells its oracles in this state, with this to do."""
        self.load(state)
        self.aim(subtask)
        self._mj.mj_forward(self.model, self.data)
        touch = state[self._physics + 12 : self._physics + 13]  # from before: forces depend on the last action
        return self._env.compute_ob_info() | {"proprio/gripper_contact": touch}

    def aim(self, subtask: Subtask) -> None:
        """Make a subtask the environment's own."""
        self._env._target_task = subtask.kind
        if subtask.kind == "cube":
            self._env._target_block = subtask.index
            target = self._env._cube_target_mocap_ids[subtask.index]
            self.data.mocap_pos[target], self.data.mocap_quat[target] = subtask.value[:3], subtask.value[3:]

    def places(self, states: np.ndarray) -> np.ndarray:
        """Positions of the cubes (B, cubes, 3)."""
        return states[:, self._places]

    def move_cube(self, index: int, goal: np.ndarray) -> Subtask:
        """Bring a cube to where it is in a goal state."""
        return Subtask("cube", index, goal[self._cubes[index] : self._cubes[index] + 7].copy())

    def _closed(self, states: np.ndarray) -> np.ndarray:
        return np.clip(states[:, [self._gripper]] / 0.8, 0, 1)

    def _pose(self, states: np.ndarray) -> np.ndarray:
        frame = states[:, self._physics : self._physics + 12]
        yaw = 2 * np.arctan2(frame[:, 6], frame[:, 3])
        columns = [frame[:, :3], np.sin(yaw), np.cos(yaw), self._closed(states)]
        for cube in self._cubes:
            w, x, y, z = states[:, cube + 3 : cube + 7].T
            yaw = 4 * np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
            columns += [states[:, cube : cube + 3], np.sin(yaw), np.cos(yaw)]
        return np.column_stack(columns)


def _gap(places: np.ndarray) -> np.ndarray:
    """Smallest distance between two of the places (..., n, 3); infinite where there is one."""
    apart = np.linalg.norm(places[..., :, None, :] - places[..., None, :, :], axis=-1)
    return (apart + np.diag(np.full(places.shape[-2], np.inf))).min((-2, -1))
