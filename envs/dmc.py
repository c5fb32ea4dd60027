"""Tasks of the DeepMind Control Suite (arXiv 1801.00690) with goals instead of rewards.

Models, control rates and start distributions are the suite's; decorations that would give a goal away are hidden.
A goal is a state, shown as its picture, so success counts what that picture shows: joint positions, angles wrapped.
Velocities are not counted. Every goal can be reached and, where said, held.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from envs.mujoco_task import MuJoCoTask, wrap
from lewm.extras import need
from lewm.registry import register
from lewm.types import InputError, nearest

if TYPE_CHECKING:
    import mujoco


class SuiteTask(MuJoCoTask):
    """A model of the suite, read from the files of the dm_control package without importing it."""

    domain: ClassVar[str]
    hidden: ClassVar[tuple[str, ...]] = ()  # geoms and sites that mark the suite's own goal

    def compile(self) -> mujoco.MjModel:
        """The suite's model after `edit`."""
        package = find_spec("dm_control")
        if package is None:
            need("dm_control", "dmc")  # says how to get it
        folder = Path(package.submodule_search_locations[0]) / "suite"
        spec = self.mujoco.MjSpec.from_file(str(folder / f"{self.domain}.xml"))
        self.edit(spec)
        return spec.compile()

    def edit(self, spec: mujoco.MjSpec) -> None:
        """Change the model before it is compiled."""
        for name in self.hidden:
            (spec.geom(name) or spec.site(name)).group = 5  # never drawn
        if self.quality == "fast":  # which draws no sky; making its texture takes most of the time to compile
            spec.delete(spec.texture("skybox"))


@register("env", "reacher")
class Reacher(SuiteTask):
    """A planar two-link arm seen from above, shoulder free to turn and wrist limited to 160 degrees either way.

    `distance` is the larger of the two wrapped joint errors: the picture shows the whole arm, and the same tip
    with the elbow on the other side is another picture. `measures` has `tip`, the distance between the tips alone,
    which the other elbow satisfies, too. Goals are uniform over poses, at rest; any can be held, as nothing pulls.

    Args:
        difficulty: "easy", within 0.2 rad and, for the tip, 6 cm; or "hard", within 0.05 rad and 2.5 cm. (The tip's
            are the suite's: radius of its target and of the finger.)
    """

    domain = "reacher"
    camera = "fixed"
    hidden = ("target",)
    links = (0.12, 0.12)  # metres: arm, then hand with finger

    def __init__(self, rows: int, *, difficulty: str = "easy", **options: Any) -> None:
        tolerances = {"easy": (0.2, 0.06), "hard": (0.05, 0.025)}
        self.tolerance, self.tip_tolerance = choose("difficulty", difficulty, tolerances)
        super().__init__(rows, **options)

    def sample_state(self, rng: np.random.Generator) -> np.ndarray:
        """Uniform over poses, at rest."""
        return self.state(self.random_qpos(rng), rng)

    def distance(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """The larger joint error, in units of the tolerance."""
        return self.errors(states, goals).max(1) / self.tolerance

    def travel(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """The larger of the joints' errors, the wrist's without wrapping: it cannot turn through its limit."""
        away = self.qpos(goals) - self.qpos(states)
        away[:, 0] = wrap(away[:, 0])
        return np.abs(away).max(1) / self.tolerance

    def measures(self, states: np.ndarray, goals: np.ndarray) -> dict[str, np.ndarray]:
        """`tip`: between the tips."""
        return {"tip": np.linalg.norm(self.tip(states) - self.tip(goals), axis=1) / self.tip_tolerance}

    def tip(self, states: np.ndarray) -> np.ndarray:
        """Where the tip is: (B, 2) in metres from the shoulder."""
        angles = np.cumsum(self.qpos(states), axis=1)
        return np.stack([(np.cos(angles) * self.links).sum(1), (np.sin(angles) * self.links).sum(1)], axis=1)

    def steer(self, states: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Computed torque: a critically damped spring on each joint; the wrist never goes through its limit."""
        error = self.qpos(targets) - self.qpos(states)
        error[:, 0] = wrap(error[:, 0])
        return _spring(self, states, error, 8.0)


@register("env", "point_mass")
class PointMass(SuiteTask):
    """A ball on a plane, pushed along x and y against friction, seen from above.

    `distance` is Euclidean. Goals are uniform over the arena, at rest; the suite's own success is 1.5 cm.
    The ball is slow: at most 0.1 m/s, in an arena 0.58 m wide, at 50 steps per second.

    Args:
        tolerance: in metres.
    """

    domain = "point_mass"
    camera = "fixed"
    hidden = ("target",)

    def __init__(self, rows: int, *, tolerance: float = 0.03, **options: Any) -> None:
        if not 0 < tolerance < np.inf:
            raise InputError(f"a tolerance is a positive number, got {tolerance}")
        self.tolerance = tolerance
        super().__init__(rows, **options)

    def sample_state(self, rng: np.random.Generator) -> np.ndarray:
        """Uniform over the arena, at rest."""
        return self.state(self.random_qpos(rng), rng)

    def distance(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """Between the positions, in units of the tolerance."""
        return np.linalg.norm(self.errors(states, goals), axis=1) / self.tolerance

    def steer(self, states: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Computed force: a critically damped spring on each axis."""
        return _spring(self, states, self.qpos(targets) - self.qpos(states), 5.0)


@register("env", "cartpole")
class CartPole(SuiteTask):
    """A pole hinged on a cart that a motor pushes along a rail.

    Goals: the pole upright, at rest, the cart anywhere in the middle metre of the rail on either side: the only
    poses that can be held beside the hanging ones. Reached, as in the suite's sparse tasks, within 25 cm for the
    cart and 0.1 rad (a cosine of 0.995) for the pole.

    Args:
        start: "balance", near upright and near the middle; or "swing_up", hanging. Both nearly at rest.
    """

    domain = "cartpole"
    camera = "fixed"
    tolerances = (0.25, 0.1)  # metres of the cart, radians of the pole

    def __init__(self, rows: int, *, start: str = "balance", **options: Any) -> None:
        self._around = choose("start", start, {"balance": 0.0, "swing_up": np.pi})
        super().__init__(rows, **options)

    def sample_state(self, rng: np.random.Generator) -> np.ndarray:
        """The suite's start of the same name."""
        if self._around:
            qpos = (0, self._around) + 0.01 * rng.standard_normal(2)
        else:
            qpos = rng.uniform((-0.1, -0.034), (0.1, 0.034))
        state = self.state(qpos, rng)
        state[2:4] = 0.01 * rng.standard_normal(2)
        return state

    def sample_goal(self, rng: np.random.Generator, start: np.ndarray) -> np.ndarray:
        """Upright and at rest."""
        return self.with_factors(self.state([rng.uniform(-1, 1), 0]), start)

    def distance(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """The larger of the two errors, each in units of its tolerance."""
        return (self.errors(states, goals) / self.tolerances).max(1)

    def steer(self, states: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Pump the pole to the energy of standing upright, then balance it with the cart at the target's place.

        Near upright a linear-quadratic regulator; else Astrom and Furuta's swing-up (Automatica 36, 2000), the
        cart accelerated by energy * velocity * cosine, and drawn to the middle of the rail.
        """
        (x, angle), (speed, turning) = self.qpos(states).T, self.qvel(states).T
        angle = wrap(angle)
        energy = turning**2 / (2 * self.swing_rate**2) + np.cos(angle) - 1  # 0 upright, -2 hanging
        pump = 1.5 * energy * turning * np.cos(angle) - 0.5 * x - 0.3 * speed
        ahead = np.clip(x - targets[:, 0], -0.5, 0.5)  # a distant target must not upset the pole
        # not a matrix product: its rounding would depend on the number of rows
        balance = -(np.stack([ahead, angle, speed, turning], 1) * self.gains).sum(1)
        upright = (np.abs(angle) < 0.4) & (np.abs(turning) < 3)
        return np.clip(np.where(upright, balance, pump), -1, 1)[:, None]

    @cached_property
    def gains(self) -> np.ndarray:
        """Feedback (4,) of the regulator around standing upright, of the model as it usually is."""
        rest, step = self.state(np.zeros(2)), 1e-5

        def after(change: np.ndarray, action: float) -> np.ndarray:
            return self.simulate(rest + np.r_[change, np.zeros(self.state_dim - 4)], np.array([action]))[:4]

        dynamics = np.stack([(after(e, 0) - after(-e, 0)) / (2 * step) for e in step * np.eye(4)], axis=1)
        push = ((after(np.zeros(4), step) - after(np.zeros(4), -step)) / (2 * step))[:, None]
        cost = weights = np.diag([4.0, 4.0, 0.1, 0.1])
        for _ in range(2000):  # the Riccati equation, iterated until it stands still
            gains = np.linalg.solve(1 + push.T @ cost @ push, push.T @ cost @ dynamics)
            cost = weights + dynamics.T @ cost @ (dynamics - push @ gains)
        return gains[0]

    @property
    def swing_rate(self) -> float:
        """Radians per second of the hanging pole's small swings, as it usually is: a rod 1 m long."""
        return np.sqrt(1.5 * 9.81)


def choose(setting: str, value: str, choices: Mapping[str, Any]) -> Any:
    """What `value` of a setting stands for; an unknown one is an error that offers the nearest."""
    if value not in choices:
        raise InputError(f"unknown {setting} '{value}': {nearest(value, list(choices))}")
    return choices[value]


def _spring(task: MuJoCoTask, states: np.ndarray, error: np.ndarray, rate: float) -> np.ndarray:
    """Controls (B, A) that close joint errors (B, q) as fast as `rate` (1/s) does without overshooting."""
    return task.inverse_dynamics(states, rate**2 * error - 2 * rate * task.qvel(states))
