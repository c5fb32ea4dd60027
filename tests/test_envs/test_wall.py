"""Wall: the engine of Two-Room, so only what is its own: the way leads through the door, wherever that is."""

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs import Wall
from experiments.pairs import draw_pairs
from lewm.registry import build, defaults


def test_gymnasium_finds_nothing_to_complain_about():
    with warnings.catch_warnings():
        # raw action units are the project's rule, so this recommendation is declined knowingly
        warnings.filterwarnings("ignore", message=".*we recommend using a symmetric and normalized space.*")
        check_env(gymnasium.make("lewm/Wall-v0").unwrapped)


def test_wall_and_door_are_elsewhere_in_every_episode_and_goals_in_the_other_room():
    task = Wall(300)
    task.reset(seeds=range(300))
    states, goals = task.get_state(), task.get_goal()
    wall_x, door = states[:, 2], states[:, 3]
    assert np.array_equal(states[:, 2:], goals[:, 2:])
    assert ((states[:, 0] < wall_x) != (goals[:, 0] < wall_x)).all()
    assert 0.4 < (states[:, 0] < wall_x).mean() < 0.6
    assert ((wall_x >= 20) & (wall_x <= 44)).all() and np.ptp(wall_x) > 22
    assert ((door > 5 + 6) & (door < 59 - 6)).all() and np.ptp(door) > 38


def test_it_is_two_room_with_other_settings():
    settings = defaults("env", "wall")
    assert set(settings) == set(defaults("env", "two_room"))
    wall, room = Wall(20), build("env", {"name": "two_room", **settings}, rows=20)
    wall.reset(seeds=range(20))
    states, actions = wall.get_state(), np.random.default_rng(0).uniform(-1.8, 1.8, (20, 2))
    assert np.array_equal(wall.advance(states, actions), room.advance(states, actions))
    assert np.array_equal(wall.draw(states), room.draw(states))


def test_the_fixed_wall_has_the_published_layout():
    task = Wall(1, vary=[])
    assert task.state_dim == 2
    heights = np.linspace(20, 40, 201)  # the corridor, for the centre: 26 to 34, in the middle of the picture
    free = task.possible(np.stack([np.full(201, 32.0), heights], axis=1))
    assert np.array_equal(free, np.abs(heights - 30) < 4 + 1e-9)
    goal = np.array([[15.0, 15.0]])
    for offset, reached in ((4.5, True), (4.51, False)):
        task.reset(goal + np.array([0, offset]), goal)
        assert task.success()[0] == reached


def test_the_expert_gets_everywhere_and_the_straight_way_hardly_anywhere():
    pairs = draw_pairs(Wall(1), 60, seed=0)
    task = Wall(60)
    for way, expected in ((task.waypoint, 1.0), (lambda states, goals: goals, 0.5)):
        task.reset(pairs.starts, pairs.goals)
        for _ in range(80):
            task.step(task.steer(task.get_state(), way(task.get_state(), task.get_goal())))
        assert task.success().mean() == pytest.approx(expected, abs=0.2 * (expected < 1))
        assert task.success()[~pairs.detour].all()


@pytest.mark.parametrize("size", [33, 64, 97])
def test_the_picture_shows_the_wall_where_the_state_says(size):
    task = Wall(30, image_size=size)
    task.reset(seeds=range(30))
    states, images = task.get_state(), task.render()
    column = (states[:, 2] * size / 64).astype(int)
    solid = images[np.arange(30), :, column]  # (B, size, 3): down the middle of the wall
    is_wall = (solid == [150, 60, 50]).all(-1)
    heights = (np.arange(size) + 0.5) * 64 / size
    inside = np.abs(heights - states[:, 3:4]) < 6
    free = np.abs(states[:, :1] - states[:, 2:3]) > 5  # the disc does not cover it
    assert (is_wall == ~inside)[free[:, 0]].all() and free.sum() > 20
