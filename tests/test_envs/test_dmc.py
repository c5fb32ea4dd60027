"""Control-suite tasks: dynamics against dm_control, exact states, success by hand, pictures, factors."""

import sys
import warnings
from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import envs
from envs import BallInCup, CartPole, Cheetah, Finger, PointMass, Reacher, Walker
from lewm.registry import get
from lewm.types import InputError

TASKS = [Reacher, PointMass, CartPole, BallInCup, Finger, Cheetah, Walker]
IDS = [f"lewm/{task.__name__}-v0" for task in TASKS]
SUITE = {
    "reacher": "easy",
    "point_mass": "easy",
    "cartpole": "swingup",
    "ball_in_cup": "catch",
    "finger": "turn_easy",
    "cheetah": "run",
    "walker": "walk",
}


@pytest.fixture(params=TASKS, ids=lambda task: task.domain)
def kind(request):
    return request.param


def at(task, *poses):
    """States (B, s) at rest in the given joint positions."""
    return np.stack([task.state(np.array(pose, float)) for pose in poses])


def actions(task, steps, seed=0, hold=15):
    """Uniform actions (steps, B, A), each held for a while so that they lead somewhere."""
    shape = (-(-steps // hold), task.rows, len(task.low))
    return np.random.default_rng(seed).uniform(task.low, task.high, shape).repeat(hold, axis=0)[:steps]


# Contract


@pytest.mark.parametrize("name", IDS)
def test_gymnasium_finds_nothing_to_complain_about(name):
    env = gymnasium.make(name, render_mode="rgb_array")
    assert env.unwrapped.task.domain == envs.IDS[name][0]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*we recommend using a symmetric and normalized space.*")
        check_env(env.unwrapped)
    env.close()


def test_same_seed_same_trajectory(kind):
    states = []
    for _ in range(2):
        task = kind(2)
        task.reset(seeds=[3, 4])
        for action in actions(task, 20):
            task.step(action)
        states.append(np.stack([task.get_state(), task.get_goal()]))
    assert np.array_equal(*states)
    assert not np.array_equal(states[0][0, 0], states[0][0, 1])


@pytest.mark.parametrize(
    "vary", [(), ("mass", "friction", "damping", "strength", "light")], ids=["usual", "varied"]
)
def test_continuing_from_a_state_equals_the_original(kind, vary):
    """Whatever else the simulator computed in between: other rows, pictures, goals."""
    steps = 60
    task, copy = kind(2, vary=vary, image_size=16), kind(1, vary=vary, image_size=16)
    task.reset(seeds=[0, 1])
    copy.reset(seeds=[9])
    drawn, states, touched = actions(task, steps), [task.get_state()], 0
    for action in drawn:
        task.step(action)
        touched += task.data.ncon
        states.append(task.get_state())
    assert (touched > 0) == (kind in (BallInCup, Finger, Cheetah, Walker))
    for first in (0, 17, steps - 1):
        copy.reset(states[first][1:], task.get_goal()[1:])
        assert np.array_equal(copy.get_state(), states[first][1:])
        for t in range(first, steps):
            if t % 20 == 3:
                copy.render()
                copy.sample_goal(np.random.default_rng(t), states[t][0])
            copy.step(drawn[t, 1:])
            assert np.array_equal(copy.get_state(), states[t + 1][1:])


def test_motion_is_the_suites(kind, tmp_path, monkeypatch):
    from dm_control import suite

    monkeypatch.chdir(tmp_path)  # MuJoCo writes its complaints about the cheetah's file into the working directory
    reference = suite.load(kind.domain, SUITE[kind.domain])
    reference.reset()
    task = kind(1)
    assert task.fps == pytest.approx(1 / reference.control_timestep())
    assert np.array_equal(task.low, reference.action_spec().minimum)
    assert np.array_equal(task.high, reference.action_spec().maximum)
    task.reset(seeds=[0])
    start, physics = task.get_state()[0], reference.physics
    with physics.reset_context():
        physics.data.qpos[:] = start[: task.model.nq]
        physics.data.qvel[:] = start[task.model.nq :][: task.model.nv]
    for action in actions(task, 25):
        task.step(action)
        reference.step(action[0])
        assert np.allclose(task.qpos(task.get_state())[0], physics.data.qpos, atol=1e-6)
        assert np.allclose(task.qvel(task.get_state())[0], physics.data.qvel, atol=1e-4)


@pytest.mark.parametrize("kind", [Walker])
def test_one_process_or_several(kind):
    make = [partial(gymnasium.make, f"envs:lewm/{kind.__name__}-v0", image_size=32)] * 2
    both = [gymnasium.vector.SyncVectorEnv(make), gymnasium.vector.AsyncVectorEnv(make, context="forkserver")]
    seen = []
    for vector in both:
        images, infos = vector.reset(seed=5)
        seen.append([images.copy(), infos["state"]])
        for action in actions(get("env", kind.domain)(2), 5).astype(np.float32):
            images, _, _, _, infos = vector.step(action)
            seen[-1] += [images.copy(), infos["state"]]
        vector.close()
    for one, other in zip(*seen, strict=True):
        assert np.array_equal(one, other)


# Success, by hand


def reached(task, state, goal):
    return bool(task.distance(state[None], goal[None])[0] <= 1)


@pytest.mark.parametrize(
    ("pose", "goal", "result", "tip"),
    [
        ((0, 0), (0, 0), True, True),
        ((0.19, -0.19), (0, 0), True, True),
        ((0.21, 0), (0, 0), False, True),
        ((0, -0.21), (0, 0), False, True),
        ((3.1, 0), (-3.1, 0), True, True),  # across the cut, 0.08 rad apart
        ((0.1 + 6 * np.pi, 1), (0, 1), True, True),  # three turns later
        ((0, 2.75), (0, -2.75), False, False),  # either end of the wrist's range: 0.78 rad apart
        ((0.5, 1.0), (1.5, -1.0), False, True),  # same tip, other elbow
        ((1, 0), (0, 0), False, False),
    ],
)
def test_reacher_counts_wrapped_joints_and_measures_the_tip(pose, goal, result, tip):
    task = Reacher(1)
    state, aim = at(task, pose, goal)
    assert reached(task, state, aim) == result
    assert (task.measures(state[None], aim[None])["tip"][0] <= 1) == tip


def test_the_way_of_a_wrist_does_not_lead_through_its_limit():
    task = Reacher(1)
    state, goal = at(task, (3.0, 2.5), (-3.0, -2.5))
    assert task.distance(state[None], goal[None])[0] == pytest.approx((2 * np.pi - 5) / 0.2)
    assert task.travel(state[None], goal[None])[0] == pytest.approx(5 / 0.2)  # the shoulder still turns freely


def test_reacher_hard_is_the_finer_rule():
    task = Reacher(1, difficulty="hard")
    near, far, goal = at(task, (0.04, 0), (0.06, 0), (0, 0))
    assert reached(task, near, goal)
    assert not reached(task, far, goal)
    with pytest.raises(InputError, match="did you mean 'hard'"):
        Reacher(1, difficulty="hart")


def test_reacher_tip_is_where_the_simulator_has_it():
    task = Reacher(1)
    states = np.stack([task.sample_state(np.random.default_rng(seed)) for seed in range(10)])
    for state, tip in zip(states, task.tip(states), strict=True):
        task.load(state)
        task.mujoco.mj_forward(task.model, task.data)
        assert np.allclose(task.data.geom("finger").xpos[:2], tip, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "pose", "goal", "result"),
    [
        (PointMass, (0.02, 0.02), (0, 0), True),
        (PointMass, (0.025, 0.025), (0, 0), False),
        (CartPole, (0.2, 0.09), (0, 0), True),
        (CartPole, (0.2, 2 * np.pi - 0.09), (0, 0), True),
        (CartPole, (0.3, 0), (0, 0), False),
        (CartPole, (0, 0.11), (0, 0), False),
        (CartPole, (0, np.pi), (0, 0), False),
        (BallInCup, (0.1, 0, 0.1, 0.34), (0.1, 0, 0.1, 0.34), True),
        (BallInCup, (0.14, 0, 0.14, 0.34), (0.1, 0, 0.1, 0.34), True),
        (BallInCup, (0.16, 0, 0.16, 0.34), (0.1, 0, 0.1, 0.34), False),  # caught, elsewhere
        (BallInCup, (0.14, 0, 0.1, 0.34), (0.1, 0, 0.1, 0.34), False),  # ball in place, cup beside it
        (Finger, (0, 0, 0.5), (1, 1, 0), True),  # the finger itself does not count
        (Finger, (0, 0, 2 * np.pi - 0.5), (0, 0, 0), True),
        (Finger, (0, 0, 0.6), (0, 0, 0), False),
        (Cheetah, (0,) * 9, (7, 0.09, 0.29, *[-0.29] * 6), True),  # wherever along the track
        (Cheetah, (0,) * 9, (0, 0.11, *[0] * 7), False),
        (Cheetah, (0,) * 9, (0, 0, 2 * np.pi, *[0] * 6), True),
        (Cheetah, (0,) * 9, (0, 0, np.pi, *[0] * 6), False),
        (Cheetah, (0,) * 9, (*[0] * 8, 0.31), False),
        (Walker, (0,) * 9, (0.09, 5, *[0.29] * 7), True),  # here height comes first
        (Walker, (0,) * 9, (*[0] * 4, -0.31, *[0] * 4), False),
        (Walker, (0, 0, 0, 0.5, -1, 0, 0, 0, 0), (0, 0, 0, 0, 0, 0, 0.5, -1, 0), False),  # the other leg
    ],
)
def test_success(kind, pose, goal, result):
    task = kind(1)
    assert reached(task, *at(task, pose, goal)) == result


def test_ball_in_cup_measures_the_suites_task():
    task = BallInCup(1)
    states = at(task, (0.16, 0.1, 0.16, 0.44), (0, 0, 0, 0.2), (0.1, 0, 0.13, 0.35))
    caught = task.measures(states, states[[0, 0, 0]])["caught"] <= 1
    assert caught.tolist() == [True, False, False]


def test_no_goal_is_at_its_start_and_all_can_be(kind):
    task = kind(1)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        start = task.sample_state(rng)
        goal = task.sample_goal(rng, start)
        assert task.possible(np.stack([start, goal])).all()
        assert not np.array_equal(start, goal)
        assert reached(task, goal, goal)


@pytest.mark.parametrize("kind", [Reacher, BallInCup, Finger])
def test_goals_at_rest_stay_where_they_are(kind):
    task = kind(1)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        state = goal = task.sample_goal(rng, task.sample_state(rng))
        push = np.zeros(2)
        if kind is BallInCup:
            push = holding(task, goal)
        for _ in range(50):
            state = task.simulate(state, push)
        assert reached(task, state, goal)
        assert np.abs(task.qpos(state[None]) - task.qpos(goal[None])).max() < 0.01


def holding(task, goal):
    """The push under which the cup does not move: what the simulator's inverse dynamics asks for."""
    task.load(goal)
    task.mujoco.mj_forward(task.model, task.data)
    task.data.qacc[:] = 0
    task.mujoco.mj_inverse(task.model, task.data)
    return task.data.qfrc_inverse[:2] / task.model.actuator_gear[:, 0]


# Steering


@pytest.mark.parametrize(
    ("kind", "options", "steps"),
    [
        (Reacher, {}, 100),
        (Reacher, {"difficulty": "hard"}, 120),
        (PointMass, {"tolerance": 0.005}, 400),
        (CartPole, {}, 300),
        (CartPole, {"start": "swing_up"}, 900),
    ],
    ids=str,
)
def test_steering_reaches_every_goal_and_stays(kind, options, steps):
    task = kind(8, image_size=16, **options)
    task.reset(seeds=range(8))
    for _ in range(steps):
        task.step(task.steer(task.get_state(), task.get_goal()))
    for _ in range(20):
        assert task.success().all()
        task.step(task.steer(task.get_state(), task.get_goal()))


@pytest.mark.parametrize("kind", [Reacher, PointMass, CartPole])
def test_what_steers_a_row_does_not_depend_on_the_others(kind):
    """To the last digit, or an episode would depend on its batch."""
    task, rng = kind(1), np.random.default_rng(0)
    states, goals = (np.stack([task.sample_state(rng) for _ in range(37)]) for _ in range(2))
    states[:, : task.model.nq + task.model.nv] += rng.normal(0, 0.1, (37, task.model.nq + task.model.nv))
    together, measured = task.steer(states, goals), task.measures(states, goals)
    assert together.dtype == np.float64
    for row in range(37):
        one = slice(row, row + 1)
        assert np.array_equal(task.steer(states[one], goals[one])[0], together[row])
        for name, values in task.measures(states[one], goals[one]).items():
            assert np.array_equal(values, measured[name][one])


@pytest.mark.parametrize("kind", [BallInCup, Finger, Cheetah, Walker])
def test_tasks_without_a_controller_say_so(kind):
    task = kind(1)
    task.reset(seeds=[0])
    with pytest.raises(InputError, match="has no `steer`"):
        task.steer(task.get_state(), task.get_goal())


# Pictures


@pytest.mark.parametrize("size", [64, 96, 224, 57])
def test_pictures_show_the_state(kind, size):
    task = kind(3, image_size=size)
    task.reset(seeds=range(3))
    images, goals = task.render(), task.render_goal()
    assert images.shape == (3, size, size, 3)
    assert (images.std((1, 2, 3)) > 3).all()
    differs = (images[:, None] != images[None]).any((2, 3, 4)) | np.eye(3, dtype=bool)
    assert differs.all() or kind in (CartPole, Cheetah)  # whose starts are nearly alike
    assert (images != goals).any()
    task.reset(task.get_goal(), task.get_goal())
    assert np.array_equal(task.render(), goals)
    task.close()


@pytest.mark.parametrize("kind", [Reacher, Walker])
def test_ten_tasks_later_the_picture_is_the_same(kind):
    task = kind(1)
    task.reset(seeds=[0])
    expected = task.render()
    for k in range(10):
        other = kind(1, image_size=20 + k)
        other.reset(seeds=[k])
        other.render()
        if k % 2:
            other.close()
    del other
    assert np.array_equal(task.render(), expected)
    task.close()
    task.reset(seeds=[0])
    assert np.array_equal(task.render(), expected)


@pytest.mark.parametrize(("kind", "part"), [(Reacher, "geom_pos"), (PointMass, "geom_pos"), (Finger, "site_pos")])
def test_nothing_gives_the_suites_own_goal_away(kind, part):
    task = kind(1)
    task.reset(seeds=[0])
    before = task.render()
    number = (task.model.geom if part == "geom_pos" else task.model.site)("target").id
    getattr(task.model, part)[number] += (0.1, 0, 0.1)
    assert np.array_equal(task.render(), before)


def test_pose_is_what_is_seen():
    task = Walker(1)
    pose = np.array([0.1, 5.0, 0.3, *[0.2] * 6])
    here, along, turned = (
        task.sense(at(task, one))["pose"][0] for one in (pose, pose + np.eye(9)[1], pose + 2 * np.pi * np.eye(9)[2])
    )
    assert task.sensors == {"pose": 15}
    assert np.allclose(here, [0.1, np.sin(0.3), *[np.sin(0.2)] * 6, np.cos(0.3), *[np.cos(0.2)] * 6])
    assert np.array_equal(here, along)
    assert np.allclose(here, turned)


# Factors of variation


def test_usual_values_are_the_usual_task_and_leave_no_trace(kind):
    usual = kind(1, image_size=48)
    usual.reset(seeds=[0])
    every = tuple(usual.factors.known)
    task = kind(2, image_size=48, vary=every)
    plain = np.concatenate([usual.get_state()[0], *(np.ravel(f.value) for f in usual.factors.known.values())])
    other = task.sample_state(np.random.default_rng(1))
    action = actions(usual, 1)[0, 0]
    for _ in range(2):
        images = task.draw(np.stack([plain, other]))
        assert np.array_equal(images[0], usual.render()[0])
        assert not np.array_equal(
            images[1], task.draw(np.r_[other[: -task.factors.size], plain[-task.factors.size :]][None])[0]
        )
        after = task.advance(np.stack([plain, other]), np.stack([action, action]))[0]
        assert np.array_equal(after[: usual.state_dim], usual.simulate(plain[: usual.state_dim], action))


@pytest.mark.parametrize("name", ["agent_color", "floor_color", "light", "camera"])
def test_looks_vary(kind, name):
    task = kind(1, vary=[name], image_size=48)
    low, high = (np.ravel(getattr(task.factors.known[name], end)) for end in ("low", "high"))
    start = task.sample_state(np.random.default_rng(0))[: -task.factors.size]
    images = task.draw(np.stack([np.r_[start, low], np.r_[start, high]]))
    assert (images[0] != images[1]).any()


@pytest.mark.parametrize("name", ["mass", "strength", "damping"])
def test_physics_vary_and_pictures_do_not(name):
    task = Reacher(1, vary=[name])
    start = at(task, (0.5, 0.5))[0]
    light, heavy = (np.r_[start[:-1], value] for value in (0.7, 1.3))
    moved = [task.simulate(state, np.ones(2)) for state in (light, heavy)]
    assert not np.allclose(moved[0][:2], moved[1][:2])
    assert np.array_equal(*task.draw(np.stack([light, heavy])))
    if name == "strength":  # twice the motor, twice the torque: what doubling the action would do
        assert np.allclose(task.simulate(start, np.full(2, 0.7))[:4], moved[0][:4])


def test_a_heavier_model_is_the_model_compiled_heavier():
    class Heavy(BallInCup):
        def edit(self, spec):
            super().edit(spec)
            for geom in spec.geoms:
                geom.density *= 1.5

    task, compiled = BallInCup(1, vary=["mass"]), Heavy(1)
    task.reset(np.r_[0, 0, task.caught, np.zeros(8), 1.5][None], seeds=[0])
    compiled.reset(task.get_state()[:, :-1], seeds=[0])
    for action in actions(task, 30):
        task.step(action)
        compiled.step(action)
        assert np.allclose(task.get_state()[:, :8], compiled.get_state()[:, :8], atol=1e-9)
    assert task.data.ncon + compiled.data.ncon >= 2


def test_goals_share_the_factors_of_their_start(kind):
    task = kind(2, vary=["agent_color", "mass"], image_size=16)
    task.reset(seeds=[0, 1])
    assert np.array_equal(task.get_state()[:, -4:], task.get_goal()[:, -4:])
    assert not np.array_equal(*task.get_state()[:, -4:])


# Errors


@pytest.mark.parametrize(
    ("column", "value"), [(1, 9.0), (-1, 9.0), (-1, -1.0)], ids=["joint", "factor too high", "factor too low"]
)
def test_impossible_states_are_an_error(column, value):
    task = Reacher(1, vary=["mass"])
    state = at(task, (0, 0))
    state[0, column] = value
    with pytest.raises(InputError, match="impossible in Reacher"):
        task.reset(state, at(task, (0, 0)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 0}, "rows >= 1"),
        ({"image_size": 8}, "image_size >= 16"),
        ({"quality": "fastest"}, "did you mean 'fast'"),
        ({"vary": ["colour"]}, "unknown factor 'colour'"),
    ],
)
def test_settings_without_a_task_are_an_error(options, message):
    with pytest.raises(InputError, match=message):
        Reacher(**{"rows": 1} | options)


@pytest.mark.parametrize(("kind", "options"), [(CartPole, {"start": "up"}), (PointMass, {"tolerance": -1.0})])
def test_settings_of_single_tasks_are_checked(kind, options):
    with pytest.raises(InputError, match=r"unknown start 'up'|positive number, got -1"):
        kind(1, **options)


def test_a_state_that_explodes_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where MuJoCo writes its log
    task = PointMass(1)
    state = at(task, (0, 0))
    state[0, 2] = 1e300
    task.reset(state, state)
    with pytest.raises(InputError, match="PointMass diverged"):
        for _ in range(50):
            task.step(np.zeros((1, 2)))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "dm_control", None)
    with pytest.raises(
        InputError, match=r"the package dm_control: pip install 'dm-control<1\.1,>=1\.0\.50' 'mujoco<4,>=3\.17'"
    ):
        Reacher(1)
