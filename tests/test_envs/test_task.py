"""The GoalTask contract and its gymnasium face."""

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs import Factor, Factors, GoalEnv, GoalTask, SimulatorTask, TwoRoom
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

    def sample_state(self, rng):
        return rng.uniform(0, 9, 1)

    def advance(self, states, actions):
        return np.clip(states + actions, 0, 9)

    def draw(self, states):
        return np.uint8(255) * (np.arange(10) == np.round(states))[:, None, :, None].repeat(3, 3)

    def distance(self, states, goals):
        return 2 * np.abs(states - goals)[:, 0]


class Ball(SimulatorTask):
    """The least a simulator has to define: height and speed of a ball, dropped in a gravity that may vary."""

    image_shape = (10, 1, 3)

    def __init__(self, rows):
        self.rows, self.low, self.high = rows, np.array([-1], np.float32), np.array([1], np.float32)
        self.factors = Factors({"gravity": Factor(1.0, 0.5, 2.0)}, vary=["gravity"])
        self.state_dim = 2 + self.factors.size
        self.sensors = {"pose": 1}

    def sample_state(self, rng):
        return np.array([rng.uniform(0, 9), 0, *self.factors.draw(rng)])

    def simulate(self, state, action):
        height, speed, gravity = state
        speed += 0.1 * (action[0] - gravity)
        return np.array([height + speed, speed, gravity]) if height + speed > 0 else np.array([0, 0, gravity])

    def draw_one(self, state):
        return np.full(self.image_shape, 20 * state[0], np.uint8)

    def distance(self, states, goals):
        return np.abs(states - goals)[:, 0]

    def sense(self, states):
        return {"pose": states[:, :1]}


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


@pytest.fixture(params=[TwoRoom, Line, Ball])
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


def test_what_a_row_does_next_depends_on_its_state_and_action_alone(task):
    """Purity: rows in any order, alone or among others, after any past, advance and look the same."""
    rng = np.random.default_rng(2)
    states = np.stack([task.sample_state(rng) for _ in range(20)])
    actions = rng.uniform(task.low, task.high, (20, len(task.low)))
    given = states.copy(), actions.copy()
    after, images = task.advance(states, actions), task.draw(states)
    order = rng.permutation(20)
    assert np.array_equal(task.advance(states[order], actions[order]), after[order])
    assert np.array_equal(task.draw(states[order]), images[order])
    for k in (3, 11, 3):
        assert np.array_equal(task.advance(states[k : k + 1], actions[k : k + 1])[0], after[k])
        assert np.array_equal(task.draw(states[k : k + 1])[0], images[k])
    assert np.array_equal(states, given[0]) and np.array_equal(actions, given[1])  # arguments are left alone
    task.reset(states[:4], states[4:8])
    task.step(actions[:4])
    assert np.array_equal(task.get_state(), after[:4])
    task.advance(states[8:], actions[8:]), task.draw(states[8:]), task.distance(states, states[::-1])
    assert np.array_equal(task.get_state(), after[:4]), "asking about other states changed the rows"
    assert np.array_equal(task.get_goal(), states[4:8])


def test_success_is_a_distance_of_at_most_one(task):
    task.reset(seeds=range(4))
    states, goals = task.get_state(), task.get_goal()
    assert np.array_equal(task.success(), task.distance(states, goals) <= 1)
    assert (task.distance(goals, goals) == 0).all()
    task.reset(goals, goals)
    assert task.success().all()


def test_a_goal_shares_the_factors_of_its_start():
    task = Ball(50)
    task.reset(seeds=range(50))
    assert np.array_equal(task.get_state()[:, 2], task.get_goal()[:, 2])
    assert np.ptp(task.get_state()[:, 2]) > 1
    assert not np.array_equal(task.get_state()[:, 0], task.get_goal()[:, 0])


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


def test_the_first_reset_must_cover_every_row_and_come_before_anything_else(task):
    for use in (task.get_state, task.get_goal, task.render, task.success, lambda: task.step(np.zeros((4, 1)))):
        with pytest.raises(InputError, match=r"call reset first|expects actions"):
            use()
    with pytest.raises(InputError, match="every row"):
        task.reset(seeds=range(4), mask=np.array([True, False, True, True]))
    task.reset(seeds=range(4))
    task.close()
    with pytest.raises(InputError, match="call reset first"):
        task.get_state()


def test_what_sensors_read_is_in_info():
    env = GoalEnv(Ball(1))
    _, info = env.reset(seed=0)
    assert info["pose"].tolist() == [info["state"][0]]
    *_, info = env.step(np.array([1.0]))
    assert info["pose"].tolist() == [info["state"][0]]


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
    task.reset(seeds=range(10, 14))
    goal_images, goals = task.render_goal(), task.get_goal()
    assert not np.array_equal(goal_images, task.render())
    task.reset(goals, goals)
    assert np.array_equal(task.render(), goal_images)
    assert goal_images.dtype == np.uint8
    assert goal_images.shape == (4, *task.image_shape)
