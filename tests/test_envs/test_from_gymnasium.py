"""Anybody's gymnasium environment as a task: restored exactly or refused, at any size, and used by name."""

import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.utils.env_checker import check_env

from envs import GoalEnv, from_gymnasium, rollout
from lewm import registry
from lewm.types import InputError


class Cart(gymnasium.Env):
    """A cart on a line with friction; ends at the walls. Its picture is 60 x 40 unless made otherwise."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    observation_space = Box(-10, 10, (2,))
    action_space = Box(np.array([[-1.0, 0.0]]), np.array([[1.0, 2.0]]), dtype=np.float64)  # pull, brake

    def __init__(self, render_mode=None):
        self.render_mode, self.closed, self.width, self.height = render_mode, False, 60, 40

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.v = self.np_random.uniform(-1, 1), 0.0
        return np.array([self.x, self.v], np.float32), {}

    def step(self, action):
        assert action.shape == (1, 2) and action.dtype == np.float64
        self.v = 0.9 * self.v + 0.1 * action[0, 0] / (1 + action[0, 1])
        self.x = np.clip(self.x + self.v, -2, 2)
        return np.array([self.x, self.v], np.float32), 0.0, bool(abs(self.x) == 2), False, {}

    def render(self):
        column = int((self.x + 2) / 4 * (self.width - 1) + 0.5)
        image = np.full((self.height, self.width, 3), 255, np.uint8)
        image[:, column] = [200, 0, 0]
        return image

    def close(self):
        self.closed = True


def read(env):
    return np.array([env.x, env.v])


def write(env, vector):
    env.x, env.v = vector.tolist()


def near(states, goals):
    return np.abs(states - goals)[:, 0] / 0.1


CART = {"state": (read, write), "success": near}


def test_rows_move_as_the_environment_does():
    task = from_gymnasium(Cart, **CART)(5)
    assert task.low.tolist() == [-1, 0] and task.high.tolist() == [1, 2]
    task.reset(seeds=range(5))
    states, actions = task.get_state(), np.random.default_rng(0).uniform([-1, 0], [1, 2], (30, 5, 2))
    for row in range(5):
        env = Cart()
        env.reset(seed=0)
        write(env, states[row])
        for t in range(30):
            env.step(actions[t, row][None])
        states[row] = read(env)
    for t in range(30):
        task.step(actions[t])
    assert np.array_equal(task.get_state(), states)
    assert np.array_equal(task.distance(states, states[::-1]), near(states, states[::-1]))


def test_the_face_passes_gymnasiums_checks_and_nothing_ends():
    env = GoalEnv(from_gymnasium(Cart, **CART)(1), render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(symmetric and normalized|not having a spec).*")
        check_env(env)
    env.reset(seed=0)
    for _ in range(100):
        _, _, terminated, truncated, info = env.step(np.array([1, 0]))
        assert not terminated and not truncated
    assert info["state"][0] == 2  # pressed to the wall, where the cart's own episode would have ended
    assert env.metadata["render_fps"] == 10


@pytest.mark.parametrize("size", [16, 33, 64, 200])
def test_pictures_of_another_size_are_resized_with_antialiasing(size):
    task = from_gymnasium(Cart, **CART)(2, image_size=size)
    task.reset(seeds=range(2))
    images, x = task.render(), task.get_state()[:, 0]
    assert images.shape == (2, size, size, 3) and images.dtype == np.uint8
    ink = 255.0 - images[..., 1]
    where = ink.sum(1) @ (np.arange(size) + 0.5) / ink.sum((1, 2)) / size
    assert np.abs(where - (x + 2) / 4).max() < 0.02
    assert np.allclose(ink.mean((1, 2)), 255 / 60, rtol=0.1)  # no column is lost between pixels


class Sized(Cart):
    """Can be asked for a picture of any size."""

    def __init__(self, render_mode=None, width=60, height=40):
        super().__init__(render_mode)
        assert render_mode == "rgb_array"
        self.width, self.height = width, height


def test_who_can_draw_at_a_size_is_asked_to():
    task = from_gymnasium(Sized, **CART)(1, image_size=50)
    task.reset(seeds=[0])
    assert task.env.render().shape == (50, 50, 3)
    assert np.array_equal(task.render()[0], task.env.render())


def test_a_drawing_of_ones_own():
    def draw(env, size):
        image = np.zeros((size, size, 3), np.uint8)
        image[: size // 2] = 100 + int(50 * env.x)
        return image

    task = from_gymnasium(Cart, image=draw, **CART)(1, image_size=24)
    states = np.array([[0.5, 0.0]])
    task.reset(states, states)
    assert (task.render()[0, :12] == 125).all() and not task.render()[0, 12:].any()
    assert task.rendering == {"backend": "numpy"}  # nothing that may need a driver


def test_an_id_an_instance_and_a_constructor_give_the_same():
    gymnasium.register("tests/Cart-v0", entry_point=Cart, max_episode_steps=3)
    instance = gymnasium.make("tests/Cart-v0", render_mode="rgb_array")
    given = ("tests/Cart-v0", instance, Cart)
    tasks = [from_gymnasium(env, **CART)(2) for env in given]
    for task in tasks:
        task.reset(seeds=[1, 2])
        for _ in range(10):  # beyond the time limit of the id
            task.step(np.ones((2, 2)))
    assert all(np.array_equal(task.get_state(), tasks[0].get_state()) for task in tasks)
    assert all(np.array_equal(task.render(), tasks[0].render()) for task in tasks)
    for task in tasks:
        task.close()
    assert [task.env.closed for task in tasks] == [True, False, True]  # the instance is its owner's
    del gymnasium.registry["tests/Cart-v0"]


def test_starts_and_goals_of_ones_own_and_sensors():
    task = from_gymnasium(
        Cart,
        start=lambda rng: np.array([rng.uniform(-2, -1), 0]),
        goal=lambda rng, start: start + np.array([rng.uniform(1, 2), 0]),
        sensors={"pose": lambda env: env.x, "observation": lambda env: (env.x, env.v)},
        **CART,
    )(3)
    task.reset(seeds=range(3))
    states, goals = task.get_state(), task.get_goal()
    assert (states[:, 0] <= -1).all() and (goals[:, 0] - states[:, 0] >= 1).all()
    assert task.sensors == {"pose": 1, "observation": 2}
    read = task.sense(states)
    assert np.array_equal(read["pose"], states[:, :1]) and np.array_equal(read["observation"], states)
    (episode,) = rollout(type(task)(1), registry.build("policy", {"name": "ou"}), [4], seed=0, steps=6)
    assert np.array_equal(episode.columns["pose"][:, 0], episode.columns["state"][:, 0])


def test_success_may_be_a_plain_yes_or_no():
    task = from_gymnasium(Cart, state=CART["state"], success=lambda states, goals: near(states, goals) < 1)(2)
    goals = np.array([[0.5, 0.0], [0.5, 0.0]])
    task.reset(np.array([[0.55, 0.0], [0.7, 0.0]]), goals)
    assert task.success().tolist() == [True, False]


class Narrow(Cart):
    """Its bounds, in double precision, lie within those of single precision."""

    action_space = Box(np.array([[-0.1, 0.0]]), np.array([[0.1, 0.3]]), dtype=np.float64)

    def step(self, action):
        assert self.action_space.contains(action), action
        return super().step(action)


def test_actions_never_leave_a_space_of_double_precision():
    task = from_gymnasium(Narrow, **CART)(2)
    assert float(task.high[0]) > 0.1  # as float32
    task.reset(seeds=[0, 1])
    task.step(np.stack([task.low, task.high]))
    task.step(np.full((2, 2), 7.0))


class Counting(Cart):
    """Keeps something to itself: the third step is another."""

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return super().reset(seed=seed)

    def step(self, action):
        self.steps += 1
        self.v += 0.01 * (self.steps == 2)
        return super().step(action)


class Noisy(Cart):
    """Draws noise in a step."""

    def step(self, action):
        self.v += 0.01 * self.np_random.standard_normal()
        return super().step(action)


class Arrow(Cart):
    """Draws the last action, as Pendulum does."""

    pull = 0.0

    def step(self, action):
        self.pull = action[0, 0]
        return super().step(action)

    def render(self):
        return np.full((8, 8, 3), int(100 + 100 * self.pull), np.uint8)


class Buttons(Cart):
    action_space = Discrete(3)


class Unbounded(Cart):
    action_space = Box(-np.inf, np.inf, (1, 2), np.float64)


class Vector(Cart):
    def render(self):
        return None


@pytest.mark.parametrize(
    ("env", "changed", "message"),
    [
        (Counting, {}, "state of Counting cannot be restored.*by 0.009"),
        (Noisy, {}, "state of Noisy cannot be restored.*draw nothing at random"),
        (Cart, {"state": (lambda env: [env.x], lambda env, vector: None)}, "cannot be restored"),
        (Arrow, {}, "picture of Arrow depends on more than its state"),
        (Buttons, {}, r"Buttons must take actions in a Box with finite bounds, got Discrete\(3\)"),
        (Unbounded, {}, "finite bounds"),
        (Vector, {}, "must draw uint8 images.*render_mode='rgb_array'"),
        (Cart, {"state": "classic"}, "no attribute `state`"),
        (Cart, {"state": "clasic"}, "must be 'classic', 'mujoco' or"),
        (Cart, {"success": lambda states, goals: 1.0}, "one value per row"),
        (Cart, {"success": lambda states, goals: (near(states, goals) < 1).astype(int)}, "bool, or floats"),
        (Cart, {"success": lambda states, goals: near(states, goals) * np.nan}, "floats that are not NaN"),
        ("tests/NoSuch-v0", {}, "gymnasium cannot make tests/NoSuch-v0"),
        ("MountainCarContinuous-v0", {"state": "classic"}, "cannot render.*pygame.*give from_gymnasium an `image`"),
    ],
)
def test_what_cannot_be_a_task_is_said_when_it_is_built(env, changed, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)  # wherever the tests run
    with pytest.raises(InputError, match=message):
        from_gymnasium(env, **(CART | changed))(1)


@pytest.mark.parametrize("settings", [{"rows": 0}, {"rows": 1, "image_size": 0}])
def test_sizes_that_mean_nothing_are_an_error(settings):
    with pytest.raises(InputError, match="at least 1"):
        from_gymnasium(Cart, **CART)(**settings)


@pytest.mark.parametrize("name", ["Pendulum-v1", "MountainCarContinuous-v0"])
def test_classic_environments_are_restored_exactly(name):
    def draw(env, size):
        shown = env.state[0] if getattr(env, "last_u", None) is None else np.nan
        return np.full((size, size, 3), 128 + 20 * shown, np.uint8)

    task = from_gymnasium(name, state="classic", image=draw, success=lambda states, goals: states[:, 0])(3)
    task.reset(seeds=range(3))
    states = task.get_state()
    after = task.advance(states, np.full((3, 1), 0.5))
    task.advance(states[::-1], np.full((3, 1), -1.0))
    assert np.array_equal(task.advance(states, np.full((3, 1), 0.5)), after)
    states += 1  # what was handed out and in belongs to others
    assert not np.array_equal(task.get_state(), states)
    env = gymnasium.make(name).unwrapped
    env.reset(seed=0)
    env.state = task.get_state()[0].astype(task.env.state.dtype)
    env.step(np.array([0.5], np.float32))
    assert np.allclose(env.state, after[0], atol=1e-6)


@pytest.mark.parametrize("name", ["Reacher-v5", "HalfCheetah-v5"])
def test_mujoco_environments_continue_exactly_and_are_drawn_at_any_size(name):
    make = from_gymnasium(name, state="mujoco", success=lambda states, goals: np.abs(states - goals).max(1))
    task = make(2, image_size=48)
    task.reset(seeds=[0, 1])
    rng, start = np.random.default_rng(0), task.get_state()
    actions = rng.uniform(task.low, task.high, (40, 2, len(task.low)))
    for action in actions:
        task.step(action)
    task._set(task.env, start[0])
    for action in actions[:, 0]:  # without interruption
        task.env.step(action.astype(np.float32))
    assert np.array_equal(task.get(), task.get_state()[0])
    images = task.render()
    assert images.shape == (2, 48, 48, 3) and images.std() > 5 and (images[0] != images[1]).any()
    assert task.rendering["quality"] == "fast" and task.fps == task.env.metadata["render_fps"]
    task.close()


class Pulled(from_gymnasium(Cart, **CART)):
    """With an expert: subclassing adds what gymnasium has no word for."""

    def steer(self, states, targets):
        return np.stack([np.sign(targets - states)[:, 0], np.zeros(len(states))], axis=1)


def test_what_it_returns_can_be_subclassed_and_registered(monkeypatch):
    monkeypatch.setitem(registry._PARTS, "env", dict(registry._PARTS["env"]))
    registry.register("env", "cart")(from_gymnasium(Cart, **CART))
    registry.register("env", "pulled")(Pulled)
    assert registry.defaults("env", "cart") == registry.defaults("env", "pulled") == {"image_size": 64}
    task = registry.build("env", {"name": "pulled", "image_size": 20}, rows=2)
    policy = registry.build("policy", {"name": "mixed"})
    episodes = rollout(task, policy, [0, 1], seed=0, steps=20)
    assert episodes[0].columns["pixels"].shape == (21, 20, 20, 3)
    with pytest.raises(InputError, match="has no `steer`"):
        rollout(registry.build("env", {"name": "cart"}, rows=1), policy, [1], seed=0, steps=20)


def test_two_environments_cannot_take_one_name(monkeypatch):
    monkeypatch.setitem(registry._PARTS, "env", dict(registry._PARTS["env"]))
    registry.register("env", "cart")(from_gymnasium(Cart, **CART))
    with pytest.raises(InputError, match="already"):
        registry.register("env", "cart")(from_gymnasium(Sized, **CART))
