"""OGBench's tasks: exact continuation, success rules, goals, pictures, factors, oracles, ways through mazes."""

import sys
import warnings
from contextlib import contextmanager

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from scipy.sparse.csgraph import shortest_path

from envs import AntMaze, Cube, GoalEnv, PointMaze, Scene, rollout
from lewm.registry import build, defaults
from lewm.types import InputError

MAKE = {
    "cube": lambda rows=2, **options: Cube(rows, cubes=2, **options),
    "scene": lambda rows=2, **options: Scene(rows, **options),
    "antmaze": lambda rows=2, **options: AntMaze(rows, **options),
    "pointmaze": lambda rows=2, **options: PointMaze(rows, **options),
}
each = pytest.mark.parametrize("name", list(MAKE))


@pytest.fixture(scope="module")
def tasks():
    """name -> task of two rows; compiling an arm takes a second."""
    made = {}

    def task(name):
        if name not in made:
            made[name] = MAKE[name]()
        return made[name]

    yield task
    for one in made.values():
        one.close()


def draw(task, seed, like=None):
    rng = np.random.default_rng(seed)
    return task.sample_state(rng) if like is None else task.sample_goal(rng, like)


@contextmanager
def alone(task):
    """The same task with one row, as if it were made anew."""
    task.close()
    task.rows = 1
    yield task
    task.close()
    task.rows = 2


@each
def test_gymnasium_finds_nothing_to_complain_about(name, tasks):
    with alone(tasks(name)) as task, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(symmetric and normalized|not having a spec).*")
        check_env(GoalEnv(task, render_mode="rgb_array"))


def test_it_can_be_made_by_its_gymnasium_id():
    env = gymnasium.make("lewm/PointMaze-v0", image_size=33, render_mode="rgb_array").unwrapped
    image, info = env.reset(seed=0)
    assert image.shape == (33, 33, 3) and image.std() > 5
    assert not info["is_success"] and np.abs(image.astype(int) - info["goal_image"]).max() > 30
    env.close()


@each
def test_steps_equal_the_uninterrupted_ogbench_environment_bit_for_bit(name, tasks):
    """Whatever other rows and pictures come in between; the reference's robot has all of its triangles."""
    task, reference = tasks(name), MAKE[name](quality="standard")
    mine, other = draw(task, 0), draw(task, 1)
    rng, contacts = np.random.default_rng(2), set()
    downwards = np.array([0, 0, -0.6, 0, 0.3]) if len(task.low) == 5 else 0
    reference.load(mine)
    for t in range(60):
        action = np.clip(rng.normal(downwards, 0.7, len(task.low)), -1, 1)
        reference.environment.step(action)
        mine, other = task.advance(np.stack([mine, other]), np.stack([action, -action]))
        if t % 20 == 0:
            task.draw_one(other)
        contacts.add(reference.data.ncon)
        assert np.array_equal(mine, reference.save(np.zeros(0))), f"differs at step {t}"
    assert len(contacts) > 1, "nothing ever touched anything: this compared free motion only"


@each
def test_the_same_seed_gives_the_same_episode_alone_or_with_others(name, tasks):
    task = tasks(name)
    policy = build("policy", {"name": "ou" if name == "antmaze" else "expert"})
    both = rollout(task, policy, [3, 7], seed=1, steps=12)
    with alone(task):
        (one,) = rollout(task, policy, [7], seed=1, steps=12)
    for column, values in one.columns.items():
        assert np.array_equal(values, both[1].columns[column]), column
    assert one.facts == both[1].facts
    assert not np.array_equal(one.columns["state"], both[0].columns["state"])


@each
def test_goals_are_possible_not_reached_at_the_start_and_of_the_task_s_own_kind(name, tasks):
    task = tasks(name)
    starts = np.stack([draw(task, seed) for seed in range(12)])
    goals = np.stack([draw(task, 50 + seed, start) for seed, start in enumerate(starts)])
    assert task.possible(starts).all() and task.possible(goals).all()
    assert (task.distance(starts, goals) > 1).all()
    assert np.ptp(task.sense(goals)["pose"], axis=0).min() > 0


@pytest.mark.parametrize("name", ["cube", "scene"])
def test_cubes_of_a_goal_image_are_at_rest(name, tasks):
    """Half of the goals of several cubes are stacks, and they stand."""
    task = tasks(name)
    start = draw(task, 0)
    goals = np.stack([draw(task, seed, start) for seed in range(10)])
    later = goals
    for _ in range(10):
        later = task.advance(later, np.zeros((len(goals), 5)))
    assert np.abs(task.places(later) - task.places(goals)).max() < 0.002
    if name == "cube":
        assert 2 <= (task.places(goals)[..., 2].max(1) > 0.05).sum() <= 8


@each
def test_pictures_are_of_the_state(name, tasks):
    task = tasks(name)
    task.reset(seeds=[0, 1])
    image, goal = task.render(), task.render_goal()
    assert image.shape == (2, 64, 64, 3) and image.dtype == np.uint8
    assert (image.std((1, 2, 3)) > 5).all()
    assert (np.abs(image.astype(int) - goal).max((1, 2, 3)) > 30).all()
    task.reset(task.get_goal(), task.get_goal())
    assert np.array_equal(task.render(), goal)


def test_a_closed_task_works_again_after_a_reset():
    task = PointMaze(1)
    task.reset(seeds=[0])
    image = task.render()
    task.close()
    with pytest.raises(InputError, match="call reset"):
        task.render()
    task.reset(seeds=[0])
    assert np.array_equal(task.render(), image)


def test_success_in_cube_is_every_cube_within_4_cm_whatever_the_arm_does(tasks):
    task = tasks("cube")
    goal = draw(task, 0)

    def at(**moved):
        state = goal.copy()
        for name, offset in moved.items():
            column = task.column(f"object_joint_{name[-1]}")
            state[column : column + 3] += offset
        return task.distance(state[None], goal[None])[0]

    assert at() == 0
    assert at(cube_0=(0.039, 0, 0), cube_1=(0, 0.039, 0)) == pytest.approx(0.975)
    assert at(cube_0=(0.041, 0, 0)) == pytest.approx(1.025)
    assert at(cube_1=(0, 0, 0.041)) == pytest.approx(1.025), "height counts"
    assert at(cube_1=(0.03, 0.03, 0)) > 1, "it is a distance, not a box"
    other_arm = draw(task, 1)
    other_arm[task.column("object_joint_0") :][:14] = goal[task.column("object_joint_0") :][:14]
    assert task.distance(other_arm[None], goal[None])[0] == 0
    turned = goal.copy()
    column = task.column("object_joint_0") + 3
    turned[column : column + 4] = (0, 0, 0, 1)
    assert task.distance(turned[None], goal[None])[0] == 0, "OGBench does not ask how a cube is turned"


def test_success_in_scene_needs_every_part(tasks):
    task = tasks("scene")
    goal = draw(task, 0)
    columns = [task.column(joint) for joint in ("object_joint_0", "drawer_slide", "window_slide")]
    for column in columns:
        for offset, reached in ((0.039, True), (-0.041, False)):
            state = goal.copy()
            state[column] += offset
            assert (task.distance(state[None], goal[None])[0] <= 1) == reached
    for button in (1, 2):  # the last of the state
        state = goal.copy()
        state[-button] = 1 - state[-button]
        assert task.distance(state[None], goal[None])[0] == 2


@pytest.mark.parametrize(("name", "tolerance"), [("antmaze", 0.5), ("pointmaze", 1.0)])
def test_success_in_mazes_is_the_place_alone(name, tolerance, tasks):
    task = tasks(name)
    goal, other = draw(task, 0), draw(task, 1)
    other[:2] = goal[:2] + np.array([0.6, -0.8]) * tolerance
    assert task.distance(other[None], goal[None])[0] == pytest.approx(1)
    in_wall = goal.copy()
    in_wall[:2] = (-4, 0)  # the middle of a cell of the outer wall
    assert not task.possible(in_wall[None])[0]
    assert task.possible(np.array([[0.0, 0.0, *goal[2:]]]))[0], "the first free cell is around the origin"


def test_pose_shows_where_a_cube_went(tasks):
    task = tasks("cube")
    state = draw(task, 0)
    moved = state.copy()
    moved[task.column("object_joint_1")] += 0.1
    change = (task.sense(np.stack([moved]))["pose"] - task.sense(np.stack([state]))["pose"])[0]
    assert np.flatnonzero(change).tolist() == [11] and change[11] == pytest.approx(0.1)
    turned = state.copy()
    at = slice(task.column("object_joint_1") + 3, task.column("object_joint_1") + 7)
    w, _, _, z = state[at]
    turned[at] = np.array([w - z, 0, 0, w + z]) / np.sqrt(2)  # by 90 degrees: looks the same
    flat = state.copy()
    flat[at] = np.array([w, 0, 0, z])
    assert np.allclose(task.sense(turned[None])["pose"], task.sense(flat[None])["pose"], atol=1e-9)


@each
def test_sensors_are_as_long_as_they_say(name, tasks):
    task = tasks(name)
    sensed = task.sense(np.stack([draw(task, seed) for seed in range(3)]))
    assert {key: values.shape for key, values in sensed.items()} == {k: (3, n) for k, n in task.sensors.items()}


@pytest.mark.parametrize(("name", "physical"), [("cube", "stiffness"), ("antmaze", "gear"), ("pointmaze", "speed")])
def test_varied_factors_are_part_of_the_state_and_of_nothing_else(name, physical, tasks):
    plain = tasks(name)
    task = MAKE[name](vary=list(plain.factors.known))
    start = draw(task, 0)
    broken = np.stack([start] * 3)
    broken[1:, -1] = 1e9, -5.0
    assert task.possible(broken).tolist() == [True, False, False]
    assert np.array_equal(draw(task, 1, start)[-task.factors.size :], start[-task.factors.size :])
    state = draw(plain, 0)
    usual = [np.ravel(plain.factors.known[key].value) for key in task.factors.vary]
    same = np.concatenate([state, *usual])
    action = np.full(len(task.low), 0.5)
    stepped = task.simulate(same, action)
    assert np.array_equal(stepped[: plain.state_dim], plain.simulate(state, action))
    picture = plain.draw_one(state).astype(int)
    assert np.abs(task.draw_one(same) - picture).max() <= 3, "colours are rounded to 255 levels"
    column = plain.state_dim
    for key, value in zip(task.factors.vary, usual, strict=True):
        other = same.copy()
        other[column : column + len(value)] = task.factors.known[key].low
        column += len(value)
        if key == physical:
            assert not np.array_equal(task.simulate(other, action)[: plain.model.nq], stepped[: plain.model.nq])
        else:
            assert np.abs(task.draw_one(other) - picture).max() > 10, key
    assert np.array_equal(task.simulate(same, action), stepped), "back to usual, exactly"


@pytest.mark.parametrize(("style", "steps"), [("markov", 150), ("plan", 200)])
def test_the_oracle_brings_both_cubes_to_their_goals(style, steps, tasks):
    task = tasks("cube")
    task.reset(seeds=[0, 1])
    policy = build("policy", {"name": "ogbench_oracle", "noise": 0.05, "style": style, "goals": "task"})
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    act = policy.begin(task, [np.random.default_rng(k) for k in range(2)], steps)
    ever = np.zeros(2, bool)
    for t in range(steps):
        task.step(act(t, task.get_state()))
        ever |= task.success()
        if ever.all():
            break
    assert ever.all()
    assert np.array_equal(np.random.get_state()[1], before), "numpy's global generator was left as it was"  # noqa: NPY002


def test_the_oracle_of_the_scene_unlocks_and_opens(tasks):
    """From a start where all is shut and locked to a goal where drawer and window are open, unlocked."""
    task = tasks("scene")
    start = draw(task, 0)
    drawer, window = task.column("drawer_slide"), task.column("window_slide")
    start[[drawer, window]], start[-2:] = 0, 0
    goal = start.copy()
    goal[[drawer, window]], goal[-2:] = (-0.16, 0.2), 1
    task.reset(np.stack([start] * 2), np.stack([goal] * 2))
    policy = build("policy", {"name": "ogbench_oracle", "noise": 0.05, "goals": "task"})
    act = policy.begin(task, [np.random.default_rng(k) for k in range(2)], 300)
    done = []
    for t in range(300):
        states = task.get_state()
        done += [task.subtask(states[0], goal)]
        if task.success().all():
            break
        task.step(act(t, states))
    kinds = [one and (one.kind, one.index) for one in done]
    assert [kind for kind, last in zip(kinds, [None, *kinds], strict=False) if kind != last] == [
        *[("button", 0), ("drawer", 0), ("button", 1), ("window", 0)],
        None,
    ]
    assert task.success().all()


def test_the_ball_gets_everywhere_along_waypoints_and_never_into_a_wall():
    task = PointMaze(12, maze="large")
    task.reset(seeds=range(12))
    goals, ever = task.get_goal(), np.zeros(12, bool)
    for _ in range(320):
        states = task.get_state()
        assert task.possible(states).all()
        ever |= task.success()
        if ever.all():
            break
        task.step(task.steer(states, task.waypoint(states, goals)))
    assert ever.all()


def test_the_ball_s_straight_way_is_blocked_by_walls_only(tasks):
    """In the medium maze the free cells around the origin are (1, 1), (1, 2), (2, 1), (2, 2): 4 units apart."""
    task = tasks("pointmaze")
    start = draw(task, 0)

    def blocked(here, there):
        states = np.stack([start, start])
        states[:, :2] = here, there
        return bool(task.detour(states[:1], states[1:])[0])

    assert not blocked((0, 0), (4, 4)) and not blocked((0, 0), (0, 4))
    assert blocked((0, 0), (16, 0)), "cells (1, 3) and (1, 4) are walls"
    assert blocked((0, 4), (0, 12)), "cell (3, 1) is"
    assert not blocked((5.3, 0), (5.3, 4)), "touching a wall, along it"


@pytest.mark.parametrize("name", ["antmaze", "pointmaze"])
def test_the_way_through_a_maze_is_as_long_as_its_cells_are_many(name, tasks):
    """Against scipy's shortest paths between the middles of cells, straight where nothing is in between."""
    task = tasks(name)
    free, start = task._free, draw(task, 0)
    beside = np.abs(free[:, None] - free).sum(2) == 1
    expected = 4.0 * shortest_path(beside, unweighted=True)
    pairs = np.array(list(np.ndindex(expected.shape)))
    states = np.tile(start, (2, len(pairs), 1))
    states[:, :, :2] = task._middle(free[pairs.T])
    travel, straight = (measure(*states) * task.tolerance for measure in (task.travel, task.distance))
    clear = task._clear(states[0, :, :2], states[1, :, :2])
    assert 0.2 < clear.mean() < 0.8
    assert np.allclose(travel, np.where(clear, straight, expected[tuple(pairs.T)]))
    assert (travel >= straight - 1e-9).all()


def test_mistakes_are_answered(tasks, monkeypatch):
    with pytest.raises(InputError, match="did you mean 'medium'"):
        PointMaze(1, maze="medum")
    with pytest.raises(InputError, match="1 to 4 cubes, got 5"):
        Cube(1, cubes=5)
    with pytest.raises(InputError, match="unknown quality"):
        PointMaze(1, quality="best")
    with pytest.raises(InputError, match="unknown factor 'gearr'"):
        AntMaze(1, vary=["gearr"])
    with pytest.raises(InputError, match="needs a trained policy"):
        tasks("antmaze").steer(np.zeros((1, 43)), np.zeros((1, 43)))
    with pytest.raises(InputError, match="not in PointMaze"):
        build("policy", {"name": "ogbench_oracle"}).begin(tasks("pointmaze"), [np.random.default_rng(0)], 5)
    with pytest.raises(InputError, match="styles"):
        build("policy", {"name": "ogbench_oracle", "style": "zen"})
    monkeypatch.setitem(sys.modules, "ogbench", None)
    with pytest.raises(InputError, match="needs the package ogbench: pip install"):
        PointMaze(1)


def test_settings_are_those_of_the_command_line():
    shared = {"image_size": 64, "quality": "fast", "vary": []}
    assert defaults("env", "cube") == {"cubes": 1, **shared}
    assert defaults("env", "scene") == shared
    assert defaults("env", "antmaze") == defaults("env", "pointmaze") == {"maze": "medium", **shared}
