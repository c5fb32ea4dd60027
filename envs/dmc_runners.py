"""Cheetah and walker of the DeepMind Control Suite, with poses for goals."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from envs.dmc import SuiteTask
from lewm.registry import register

if TYPE_CHECKING:
    import mujoco


class Runner(SuiteTask):
    """A planar runner, camera and light moving along with it.

    So the picture hides where it is along the track, but for the pattern of the floor, and this position neither
    counts nor is in `pose`. Goals are poses that random actions lead to from the start within `longest` steps:
    what it can do without having learned to walk. They need not be at rest.

    `distance` is the largest error: of height in units of 10 cm, of angles, pitch included, in units of 0.3 rad.
    """

    camera = "side"
    unseen = ("rootx",)
    longest: ClassVar[int]

    def sample_goal(self, rng: np.random.Generator, start: np.ndarray) -> np.ndarray:
        """Where uniform random actions, held for 10 steps each, lead from `start` in a random number of steps."""
        goal = start
        for t in range(rng.integers(self.longest // 4, self.longest + 1)):
            if t % 10 == 0:
                action = rng.uniform(self.low, self.high)
            goal = self.simulate(goal, action)
        return goal

    def distance(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """The largest error of what is seen."""
        return (self.errors(states, goals) / np.where(self.is_angle[self.seen], 0.3, 0.1)).max(1)


@register("env", "cheetah")
class Cheetah(Runner):
    """See `Runner`. 100 steps per second; starts are the suite's, random poses after two seconds of settling."""

    domain = "cheetah"
    longest = 100

    def edit(self, spec: mujoco.MjSpec) -> None:
        """Total mass is set after compiling, as MuJoCo asks nowadays."""
        super().edit(spec)
        spec.compiler.settotalmass = -1

    def compile(self) -> mujoco.MjModel:
        """The suite's model, 14 kg in all."""
        model = super().compile()
        self.mujoco.mj_setTotalmass(model, 14)
        self.mujoco.mj_setConst(model, self.mujoco.MjData(model))
        return model

    def sample_state(self, rng: np.random.Generator) -> np.ndarray:
        """A random pose, settled."""
        state = self.state(np.where(self._limited, self.random_qpos(rng), 0), rng)
        for _ in range(200):
            state = self.simulate(state, np.zeros(len(self.low)))
        return state


@register("env", "walker")
class Walker(Runner):
    """See `Runner`. 40 steps per second; starts are the suite's, random poses in the air, about to fall.

    The suite paints both legs alike, so that no picture tells left from right; here the left one, farther from the
    camera, is darker.
    """

    domain = "walker"
    substeps = 10
    longest = 60
    materials = MappingProxyType({"self": 1.0, "self_far": 0.5})

    def edit(self, spec: mujoco.MjSpec) -> None:
        """A darker material for the left leg."""
        super().edit(spec)
        color = np.array(spec.material("self").rgba)
        spec.add_material(name="self_far", rgba=[*(0.5 * color[:3]), 1])
        for part in ("thigh", "leg", "foot"):
            spec.geom(f"left_{part}").material = "self_far"

    def sample_state(self, rng: np.random.Generator) -> np.ndarray:
        """A random pose and pitch."""
        return self.state(self.random_qpos(rng), rng)
