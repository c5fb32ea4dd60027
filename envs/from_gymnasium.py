"""Any gymnasium environment as a goal-reaching task: `register("env", "mine")(from_gymnasium(...))`.

What a task needs beyond gymnasium is a *state vector*: everything the next step and the picture depend on, to read
and to set. With that, one environment serves any number of rows, any state can be a goal, and a search can try what
comes of its actions. Whenever a task is built, two steps and a picture are checked to depend on the vector alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator
from PIL import Image

from envs.rendering import Renderer, load_mujoco
from envs.task import SimulatorTask
from lewm.types import InputError

if TYPE_CHECKING:
    import mujoco

Get = Callable[[Any], np.ndarray]
Set = Callable[[Any, np.ndarray], None]
SIZES = (("width", "height"), ("image_size",), ("render_size",))  # how constructors call the size of a picture


@dataclass(frozen=True)
class Adapter:
    """What `from_gymnasium` was told; see there."""

    env: str | Callable[..., gymnasium.Env] | gymnasium.Env
    state: str | tuple[Get, Set]
    success: Callable[[np.ndarray, np.ndarray], np.ndarray]
    image: Callable[[Any, int], np.ndarray] | None = None
    start: Callable[[np.random.Generator], np.ndarray] | None = None
    goal: Callable[[np.random.Generator, np.ndarray], np.ndarray] | None = None
    sensors: Mapping[str, Callable[[Any], np.ndarray]] = field(default_factory=dict)


class GymnasiumTask(SimulatorTask):
    """`rows` copies of one gymnasium environment; made by `from_gymnasium`.

    Args:
        rows: number of independent copies B.
        image_size: side of the square image in pixels.
    """

    adapter: ClassVar[Adapter]

    def __init__(self, rows: int, *, image_size: int = 64) -> None:
        if rows < 1 or image_size < 1:
            raise InputError(f"rows and image_size must be at least 1, got {rows} and {image_size}")
        self.rows, self.image_shape = rows, (image_size, image_size, 3)
        if self.adapter.state == "mujoco":
            load_mujoco()  # chooses how to draw, before the environment imports MuJoCo
        self.env = env = _make(self.adapter, image_size)
        self._space = space = env.action_space
        if not isinstance(space, gymnasium.spaces.Box) or not (np.isfinite([space.low, space.high]).all()):
            raise InputError(f"{self._name} must take actions in a Box with finite bounds, got {space}")
        self.low, self.high = (np.ravel(bound).astype(np.float32) for bound in (space.low, space.high))
        self.fps = env.metadata.get("render_fps", 25)
        env.reset(seed=0)
        self._renderer: Renderer | None = None
        self.rendering = {"backend": "gymnasium" if self.adapter.image is None else "numpy"}
        if self.adapter.state == "mujoco" and self.adapter.image is None:
            self._renderer = Renderer(env.model, image_size, image_size, camera=_camera(env))
            self.rendering = dict(self._renderer.facts)
        self._get, self._set = _access(self.adapter.state, env)
        self.state_dim = len(self.get())
        self.sensors = {name: len(values) for name, values in self._measure().items()}
        self._check()

    @property
    def _name(self) -> str:
        return type(self.env).__name__

    def get(self) -> np.ndarray:
        """The state (state_dim,) that the environment is in."""
        return np.array(self._get(self.env), np.float64).reshape(-1)

    def sample_state(self, rng: np.random.Generator) -> np.ndarray:
        """From `start`, else as the environment resets."""
        if self.adapter.start is not None:
            return np.asarray(self.adapter.start(rng), np.float64)
        self.env.reset(seed=int(rng.integers(2**31)))
        return self.get()

    def sample_goal(self, rng: np.random.Generator, start: np.ndarray) -> np.ndarray:
        """From `goal`, else another start."""
        if self.adapter.goal is None:
            return self.sample_state(rng)
        return np.asarray(self.adapter.goal(rng, start), np.float64)

    def simulate(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        """One step from `state`; that the episode ended there, or how it was rewarded, does not count."""
        self._set(self.env, state.copy())
        self._step(action)
        return self.get()

    def draw_one(self, state: np.ndarray) -> np.ndarray:
        """The environment's own picture; of another size, it is resized with antialiasing and made square."""
        self._set(self.env, state.copy())
        size = self.image_shape[0]
        if self._renderer is not None:
            return self._renderer.draw(self.env.data)
        try:
            image = self.adapter.image(self.env, size) if self.adapter.image else self.env.render()
        except gymnasium.error.DependencyNotInstalled as error:
            raise InputError(f"{self._name} cannot render: {error}; or give from_gymnasium an `image`") from None
        image = np.asarray(image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
            raise InputError(
                f"{self._name} must draw uint8 images (h, w, 3), got {image.dtype} {image.shape}: make it with "
                "render_mode='rgb_array', or give from_gymnasium an `image`"
            )
        if image.shape == self.image_shape:
            return image
        return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))

    def distance(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """As `success` says: distances in units of the tolerance; of a plain yes or no, 0 or 2."""
        result = np.asarray(self.adapter.success(states, goals))
        if result.shape != (len(states),):
            raise InputError(f"success must return one value per row ({len(states)},), got {result.shape}")
        if result.dtype.kind not in "bf" or np.isnan(result).any():
            raise InputError(f"success must return bool, or floats that are not NaN, got {result.tolist()[:3]}")
        return np.where(result, 0.0, 2.0) if result.dtype == bool else result

    def sense(self, states: np.ndarray) -> dict[str, np.ndarray]:
        """What `sensors` read in each state."""
        if not self.sensors:
            return {}
        read = []
        for state in states:
            self._set(self.env, state.copy())
            read.append(self._measure())
        return {name: np.stack([values[name] for values in read]) for name in self.sensors}

    def close(self) -> None:
        """Close the environment, unless it was given as an instance."""
        super().close()
        if self._renderer is not None:
            self._renderer.close()
        if not isinstance(self.adapter.env, gymnasium.Env):
            self.env.close()

    def _step(self, action: np.ndarray) -> None:
        """With an action that the environment's own space holds: its bounds may lie within our float32 ones."""
        space = self._space
        self.env.step(np.clip(action.reshape(space.shape), space.low, space.high).astype(space.dtype))

    def _measure(self) -> dict[str, np.ndarray]:
        return {
            name: np.array(read(self.env), np.float64).reshape(-1) for name, read in self.adapter.sensors.items()
        }

    def _check(self) -> None:
        """Setting the state must restore all that the next two steps and the picture depend on."""
        actions = np.random.default_rng(0).uniform(self.low, self.high, (2, len(self.low)))
        self.env.reset(seed=0)
        path = [self.get()]
        for action in actions:
            self._step(action)
            path.append(self.get())
        first, image = self.simulate(path[0], actions[0]), self.draw_one(path[0])
        second, same = self.simulate(first, actions[1]), self.draw_one(path[0])
        off = np.abs(np.concatenate([first, second]) - np.concatenate(path[1:])).max()
        again = self.simulate(path[0], actions[0])
        if not off <= 1e-6 * max(1, np.abs(path).max()) or not np.array_equal(first, again):
            raise InputError(
                f"the state of {self._name} cannot be restored: after setting it, the same steps lead elsewhere, "
                f"by {max(off, np.abs(again - first).max()):.2g}; the vector must hold all that a step depends "
                "on, and a step may draw nothing at random"
            )
        if not np.array_equal(image, same):
            raise InputError(f"the picture of {self._name} depends on more than its state vector")
        self.distance(np.stack(path), np.stack(path))


def from_gymnasium(
    env: str | Callable[..., gymnasium.Env] | gymnasium.Env,
    *,
    state: str | tuple[Get, Set],
    success: Callable[[np.ndarray, np.ndarray], np.ndarray],
    image: Callable[[Any, int], np.ndarray] | None = None,
    start: Callable[[np.random.Generator], np.ndarray] | None = None,
    goal: Callable[[np.random.Generator, np.ndarray], np.ndarray] | None = None,
    sensors: Mapping[str, Callable[[Any], np.ndarray]] | None = None,
) -> type[GymnasiumTask]:
    """A task class over a gymnasium environment, ready to be registered; `image_size` is its one setting.

    Functions get the *unwrapped* environment, and only its own `step` is called: no time limit, nothing ends an
    episode, and wrappers that change actions or observations have no say (put such changes into the environment).
    To add `steer`, which goal-directed policies need, subclass what this returns.

    Args:
        env: an id, a constructor, or an instance (which then serves all tasks made of this class).
        state: functions (get(env) -> vector, set(env, vector)), "classic" for environments that keep all in
            `env.state`, or "mujoco" for gymnasium's MuJoCo environments (solver warm start included).
        success: states (B, s), goals (B, s) -> distances (B,) in units of the tolerance, floats, or bool (B,).
        image: (env, size) -> uint8 (h, w, 3) of the state it is in; `env.render()` by default, at the asked size
            where the constructor takes one. MuJoCo environments are drawn by ours.
        start: rng -> state vector; the environment's own reset by default.
        goal: (rng, start) -> state vector; drawn like a start by default.
        sensors: name -> what it reads of the environment, a vector; `pose` is what linear probes are fitted to.

    Raises:
        InputError: when a task is built: discrete actions, a state that cannot be restored, no picture.
    """
    if not (state in ("classic", "mujoco") or (isinstance(state, tuple) and len(state) == 2)):
        raise InputError(f"state must be 'classic', 'mujoco' or the functions (get, set), got {state}")
    adapter = Adapter(env, state, success, image, start, goal, dict(sensors or {}))
    called = env if isinstance(env, str) else getattr(env, "__name__", type(env).__name__)
    return type(
        f"GymnasiumTask[{called}]", (GymnasiumTask,), {"adapter": adapter, "__doc__": GymnasiumTask.__doc__}
    )


def _make(adapter: Adapter, image_size: int) -> Any:
    """The unwrapped environment, drawing at `image_size` where its constructor lets us ask for that."""
    if isinstance(adapter.env, gymnasium.Env):
        return adapter.env.unwrapped
    try:
        create = load_env_creator(_entry(adapter.env)) if isinstance(adapter.env, str) else adapter.env
        takes = inspect.signature(create).parameters
        options: dict[str, Any] = {}
        if adapter.image is None and adapter.state != "mujoco":
            options = {"render_mode": "rgb_array"} if "render_mode" in takes else {}
            options |= next((dict.fromkeys(names, image_size) for names in SIZES if set(names) <= set(takes)), {})
        return (
            gymnasium.make(adapter.env, **options) if isinstance(adapter.env, str) else create(**options)
        ).unwrapped
    except gymnasium.error.Error as error:
        raise InputError(f"gymnasium cannot make {adapter.env}: {error}") from None


def _entry(name: str) -> Any:
    entry = gymnasium.spec(name).entry_point
    return entry if isinstance(entry, str) else f"{entry.__module__}:{entry.__qualname__}"


def _access(state: str | tuple[Get, Set], env: Any) -> tuple[Get, Set]:
    """The functions that read and set the state of `env`."""
    if state == "mujoco":
        return _mujoco_access(env)
    return _classic_access(env) if state == "classic" else state


def _classic_access(env: Any) -> tuple[Get, Set]:
    if not hasattr(env, "state"):
        raise InputError(f"{type(env).__name__} has no attribute `state`: give functions, state=(get, set)")
    env.step(env.action_space.low)
    kept = np.asarray(env.state).dtype  # some reset to float64 and step in float32: what is set is rounded alike

    def set_state(env: Any, vector: np.ndarray) -> None:
        env.state = vector.astype(kept)
        if hasattr(env, "last_u"):
            env.last_u = None  # Pendulum draws the last torque, which is no part of its state

    return lambda env: env.state, set_state


def _mujoco_access(env: Any) -> tuple[Get, Set]:
    mj = load_mujoco()
    parts = ("FULLPHYSICS", "WARMSTART", "MOCAP_POS", "MOCAP_QUAT", "EQ_ACTIVE")
    signature = sum(int(getattr(mj.mjtState, f"mjSTATE_{part}")) for part in parts)

    def get_state(env: Any) -> np.ndarray:
        vector = np.empty(mj.mj_stateSize(env.model, signature))
        mj.mj_getState(env.model, env.data, vector, signature)
        return vector

    def set_state(env: Any, vector: np.ndarray) -> None:
        mj.mj_setState(env.model, env.data, vector, signature)
        mj.mj_forward(env.model, env.data)  # for pictures and sensors; it overwrites the warm start
        mj.mj_setState(env.model, env.data, vector, signature)

    return get_state, set_state


def _camera(env: Any) -> int | mujoco.MjvCamera:
    """The one that the environment's own renderer would use."""
    mj, own = load_mujoco(), env.mujoco_renderer
    if own.camera_id >= 0:
        return own.camera_id
    camera = mj.MjvCamera()
    camera.lookat[:], camera.distance = np.median(env.data.geom_xpos, axis=0), env.model.stat.extent
    for name, value in (own.default_cam_config or {}).items():
        if isinstance(value, np.ndarray):
            getattr(camera, name)[:] = value
        else:
            setattr(camera, name, value)
    return camera
