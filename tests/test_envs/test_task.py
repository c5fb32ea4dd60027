"""The GoalTask contract and its gymnasium face."""

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs import GoalEnv, GoalTask, TwoRoom
from lewm.types import InputError

START, GOAL = np.array([10.0, 20.0]), np.array([50.0, 40.0])


@pytest.fixture
def env():
    made = gymnasium.make("lewm/TwoRoom-v0", render_mode="rgb_array")
    yield made
    made.close()


class Line(GoalTask):
    """The least a task has to define: a point on [0, 9] that may move by one."""

    state_dim, image_shape = 1, (1, 10, 3)

    def __init__(self, rows):
        self.rows, self.low, self.high = rows, np.array([-1], np.float32), np.array([1], np.float32)
        self.at, self.goal = np.zeros((rows, 1)), np.zeros((rows, 1))

    def sample_state(self, rng):
        return rng.uniform(0, 9, 1)

    def set_state(self, states, goals, mask):
        self.at[mask], self.goal[mask] = states[mask], goals[mask]

    def get_state(self):
        return self.at.copy()

    def get_goal(self):
        return self.goal.copy()

    def advance(self, actions):
        self.at = np.clip(self.at + actions, 0, 9)

    def draw(self, states):
        return np.uint8(255) * (np.arange(10) == np.round(states))[:, None, :, None].repeat(3, 3)

    def success(self):
        return np.abs(self.at - self.goal)[:, 0] < 0.5


@pytest.mark.parametrize("mode", [None, "rgb_array"])
def test_gymnasium_finds_nothing_to_complain_about(mode):
    with warnings.catch_warnings():
        # raw action units are the project's rule, so this recommendation is declined knowingly
        warnings.filterwarnings("ignore", message=".*we recommend using a symmetric and normalized space.*")
        check_env(gymnasium.make("lewm/TwoRoom-v0", render_mode=mode).unwrapped)


def test_settings_reach_the_task():
    env = gymnasium.make("lewm/TwoRoom-v0", image_size=33, speed=3.0)
    assert env.observation_space.shape == (33, 33, 3)
    assert env.action_space.high.tolist() == [3, 3]
    assert env.reset(seed=0)[0].shape == (33, 33, 3)


def test_reset_options_set_state_and_goal(env):
    image, info = env.reset(seed=0, options={"state": START, "goal": GOAL})
    assert np.array_equal(info["state"], START)
    assert np.array_equal(info["goal"], GOAL)
    task = TwoRoom(1)
    assert np.array_equal(image, task.draw(START[None])[0])
    assert np.array_equal(info["goal_image"], task.draw(GOAL[None])[0])
    assert np.array_equal(env.render(), image)


def test_what_reset_options_leave_out_is_drawn_from_the_seed(env):
    _, both = env.reset(seed=5)
    _, other = env.reset(seed=6)
    assert not np.array_equal(both["state"], other["state"])
    _, given_state = env.reset(seed=5, options={"state": START})
    assert np.array_equal(given_state["state"], START)
    assert np.array_equal(given_state["goal"], both["goal"])
    _, given_goal = env.reset(seed=5, options={"goal": GOAL})
    assert np.array_equal(given_goal["state"], both["state"])
    assert np.array_equal(given_goal["goal"], GOAL)
    # without a seed the next start differs, as gymnasium asks
    assert not np.array_equal(env.reset()[1]["state"], env.reset()[1]["state"])


@pytest.mark.parametrize("options", [{"states": START}, {"sate": START}, {"goal": GOAL, "speed": 1}])
def test_unknown_reset_options_are_an_error(env, options):
    with pytest.raises(InputError, match="'state' and 'goal'"):
        env.reset(seed=0, options=options)


def test_success_is_a_measurement_and_nothing_ends_an_episode(env):
    _, info = env.reset(seed=0, options={"state": GOAL, "goal": GOAL})
    assert info["is_success"] is True
    for t in range(300):
        # away from the goal for a while, then back
        _, reward, terminated, truncated, info = env.step(np.array([-2.0 if t < 5 else 2.0 * (t < 10), 0]))
        assert (terminated, truncated) == (False, False)
        assert set(info) == {"state", "goal", "goal_image", "is_success"}
        assert info["is_success"] == (np.linalg.norm(info["state"] - GOAL) <= 4.48)
        assert reward == float(info["is_success"])
        assert info["is_success"] == (not 2 <= t <= 6)


def test_the_face_and_the_batched_task_move_alike(env):
    env.reset(seed=0, options={"state": START, "goal": GOAL})
    task = TwoRoom(1)
    task.reset(START[None], GOAL[None])
    for action in np.random.default_rng(0).uniform(-2, 2, (50, 2)).astype(np.float32):
        image, *_, info = env.step(action)
        task.step(action[None])
        assert np.array_equal(info["state"], task.get_state()[0])
        assert np.array_equal(image, task.render()[0])


def test_the_face_shows_one_row_and_renders_only_when_asked():
    with pytest.raises(InputError, match="one row"):
        GoalEnv(TwoRoom(2))
    silent = GoalEnv(TwoRoom(1))
    silent.reset(seed=0)
    assert silent.render() is None


@pytest.fixture(params=[TwoRoom, Line])
def task(request):
    return request.param(4)


def test_continuing_from_a_state_equals_the_original(task):
    actions = np.random.default_rng(1).uniform(task.low, task.high, (60, 4, len(task.low)))
    task.reset(seeds=range(4))
    visited = []
    for action in actions:
        visited.append(task.get_state())
        task.step(action)
    visited.append(task.get_state())
    copy = type(task)(4)
    for start in (0, 17, 59):
        copy.reset(visited[start], task.get_goal())
        assert np.array_equal(copy.get_state(), visited[start])
        assert np.array_equal(copy.get_goal(), task.get_goal())
        for t in range(start, 60):
            copy.step(actions[t])
            assert np.array_equal(copy.get_state(), visited[t + 1])


def test_mask_resets_only_the_chosen_rows(task):
    task.reset(seeds=range(4))
    states, goals = task.get_state(), task.get_goal()
    mask = np.array([True, False, False, True])
    task.reset(seeds=range(10, 14), mask=mask)
    fresh = type(task)(4)
    fresh.reset(seeds=range(10, 14))
    assert np.array_equal(task.get_state(), np.where(mask[:, None], fresh.get_state(), states))
    assert np.array_equal(task.get_goal(), np.where(mask[:, None], fresh.get_goal(), goals))
    assert not np.array_equal(task.get_state(), states)


def test_a_drawn_row_depends_on_its_seed_alone(task):
    task.reset(seeds=[3, 1, 4, 1])
    pairs = np.concatenate([task.get_state(), task.get_goal()], 1)
    assert np.array_equal(pairs[1], pairs[3])
    single = type(task)(1)
    for row, seed in enumerate([3, 1, 4, 1]):
        single.reset(seeds=[seed])
        assert np.array_equal(np.concatenate([single.get_state(), single.get_goal()], 1)[0], pairs[row])


def test_states_and_goals_handed_out_are_copies(task):
    task.reset(seeds=range(4))
    kept = task.get_state(), task.get_goal()
    task.get_state()[:] = 7
    task.get_goal()[:] = 7
    assert np.array_equal(task.get_state(), kept[0])
    assert np.array_equal(task.get_goal(), kept[1])


def test_actions_beyond_the_bounds_count_as_the_bounds(task):
    task.reset(seeds=range(4))
    copy = type(task)(4)
    copy.reset(task.get_state(), task.get_goal())
    task.step(np.full((4, len(task.low)), 1e9))
    copy.step(np.tile(task.high, (4, 1)))
    assert np.array_equal(task.get_state(), copy.get_state())


@pytest.mark.parametrize("shape", [(2,), (4, 3), (3, 2), (4, 1, 2), (4,)])
def test_actions_of_another_shape_are_an_error(shape):
    task = TwoRoom(4)
    task.reset(seeds=range(4))
    with pytest.raises(InputError, match=r"expects actions of shape \(4, 2\)"):
        task.step(np.zeros(shape))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_actions_that_are_not_finite_are_an_error_and_move_nothing(task, value):
    task.reset(seeds=range(4))
    before, actions = task.get_state(), np.ones((4, len(task.low)))
    actions[2, 0] = value
    with pytest.raises(InputError, match="finite"):
        task.step(actions)
    assert np.array_equal(task.get_state(), before)


@pytest.mark.parametrize("name", ["states", "goals"])
@pytest.mark.parametrize("bad", [np.zeros((4, 3)), np.zeros(2), np.full((3, 2), 9.0), np.full((4, 2), np.nan)])
def test_states_of_another_shape_or_not_finite_are_an_error(name, bad):
    task = TwoRoom(4)
    good = np.full((4, 2), 10.0)
    task.reset(good, good)
    with pytest.raises(InputError, match=name):
        task.reset(**({"states": good + 1, "goals": good + 1} | {name: bad}))
    assert np.array_equal(task.get_state(), good)


@pytest.mark.parametrize("seeds", [None, [1, 2, 3]])
def test_drawing_needs_a_seed_per_row(task, seeds):
    with pytest.raises(InputError, match="4 seeds"):
        task.reset(seeds=seeds)


def test_tasks_without_obstacles_need_no_map():
    task = Line(3)
    task.reset(seeds=range(3))
    states, goals = task.get_state(), task.get_goal()
    assert np.array_equal(task.waypoint(states, goals), goals)
    assert task.detour(states, goals).tolist() == [False] * 3
    with pytest.raises(InputError, match="Line has no `steer`"):
        task.steer(states, goals)


def test_the_goal_image_is_the_image_at_the_goal(task):
    task.reset(seeds=range(4))
    goal_images, goals = task.render_goal(), task.get_goal()
    assert not np.array_equal(goal_images, task.render())
    task.reset(goals, goals)
    assert np.array_equal(task.render(), goal_images)
    assert goal_images.dtype == np.uint8
    assert goal_images.shape == (4, *task.image_shape)
