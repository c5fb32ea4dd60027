"""Data policies against what their docstrings state."""

import numpy as np
import pytest

from envs import Actor, TwoRoom
from lewm import registry
from lewm.registry import build
from lewm.types import InputError

DRAWN = ("uniform_hold", "ou", "momentum", "straight", "goal_directed", "expert", "mixed")


def begin(spec, rows, steps, *, seed=0, **world):
    """A Two-Room in drawn states and the policy's actor on it."""
    task = TwoRoom(rows, image_size=16, **world)
    rngs = [np.random.default_rng([seed, i]) for i in range(rows)]
    starts = np.stack([task.sample_state(rng) for rng in rngs])
    task.reset(starts, starts)
    return task, build("policy", spec).begin(task, rngs, steps)


def play(spec, rows, steps, *, seed=0, **world):
    """States (steps + 1, rows, 2) and actions (steps, rows, 2) of a policy in Two-Room."""
    task, act = begin(spec, rows, steps, seed=seed, **world)
    starts = task.get_state()
    states, actions = [starts], []
    for t in range(steps):
        actions.append(act(t, states[-1]))
        task.step(actions[-1])
        states.append(task.get_state())
    return np.stack(states), np.stack(actions)


def crossings(states):
    """Room changes per row, the corridor counted as no room: states (T, B, 2) -> (B,)."""
    count = []
    for x in states[..., 0].T:
        room = np.sign(x - 32)[np.abs(x - 32) >= 4]  # the corridor is 8 wide for the centre
        count.append((np.diff(room) != 0).sum())
    return np.array(count)


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("speed", [0.5, 2.0, 30.0])
def test_actions_are_finite_and_within_bounds(name, speed):
    _, actions = play({"name": name}, 16, 150, speed=speed)
    assert np.isfinite(actions).all()
    assert np.abs(actions).max() <= speed
    assert np.abs(actions).max() > 0.5 * speed


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9, 0.99])
def test_ou_is_stationary_with_the_stated_variance_and_autocorrelation(correlation):
    scale, speed, rows = 0.2, 2.0, 2000  # bounds at five standard deviations: clipping does not show
    spec = {"name": "ou", "correlation": correlation, "scale": scale}
    noise = play(spec, rows, 21, speed=speed)[1] / (scale * speed)  # unit variance expected
    samples = rows * 2  # independent at any one time
    for t in (0, 1, 5, 20):
        assert abs(noise[t].mean()) < 4.5 / np.sqrt(samples)
        assert abs(noise[t].var() - 1) < 4.5 * np.sqrt(2 / samples)
    for lag in (1, 3, 10):
        products = noise[20] * noise[20 - lag]
        assert abs(products.mean() - correlation**lag) < 4.5 * products.std() / np.sqrt(samples)
    across = (noise[:, :, 0] * noise[:, :, 1]).mean(0)  # the two axes are independent
    assert abs(across.mean()) < 4.5 * across.std() / np.sqrt(rows)


@pytest.mark.parametrize("hold", [1, 3, 5])
def test_uniform_hold_holds_and_is_uniform(hold):
    _, actions = play({"name": "uniform_hold", "hold": hold}, 300, 23)
    changes = (np.diff(actions, axis=0) != 0).any(-1)  # (22, rows): between t and t + 1
    expected = (np.arange(1, 23) % hold == 0)[:, None]
    assert np.array_equal(changes, np.broadcast_to(expected, changes.shape))
    drawn = actions[::hold].reshape(-1)
    fractions = np.histogram(drawn, 8, (-2, 2))[0] / drawn.size
    assert np.abs(fractions - 1 / 8).max() < 4.5 * np.sqrt(1 / 8 * 7 / 8 / drawn.size)


@pytest.mark.parametrize("step", [0.05, 0.2, 1.0, 5.0])
def test_momentum_is_a_walk_reflected_at_the_bounds(step):
    """Uniform at any time; and cos(pi (a + 1) / 2), of a in -1..1, decays by exp(-(pi step / 2)^2 / 2) a step.

    That is the slowest mode of a Gaussian walk between two mirrors, exactly and at any step.
    """
    rows, speed = 2000, 0.5
    actions = play({"name": "momentum", "step": step}, rows, 31, speed=speed)[1] / speed
    count = rows * 2  # independent at any one time
    for t in (0, 1, 30):
        fractions = np.histogram(actions[t], 8, (-1, 1))[0] / count
        assert np.abs(fractions - 1 / 8).max() < 4.5 * np.sqrt(1 / 8 * 7 / 8 / count)
    mode = np.cos(np.pi * (actions + 1) / 2)
    for lag in (1, 3, 10):
        products = mode[30] * mode[30 - lag]
        expected = 0.5 * np.exp(-((np.pi * step / 2) ** 2) / 2 * lag)
        assert abs(products.mean() - expected) < 4.5 * products.std() / np.sqrt(count)
    if step < 0.1:  # far from the bounds nothing is reflected
        moves = np.diff(actions, axis=0)[np.abs(actions[:-1]) < 0.5]
        assert moves.std() == pytest.approx(step, rel=4.5 / np.sqrt(2 * len(moves)))


def test_straight_is_piecewise_constant_with_lengths_in_range():
    _, actions = play({"name": "straight", "shortest": 4, "longest": 9, "rest": 0.0}, 200, 120)
    lengths = []
    for row in actions.transpose(1, 0, 2):
        ends = np.flatnonzero((np.diff(row, axis=0) != 0).any(-1)) + 1
        lengths.append(np.diff([0, *ends]))
        assert 120 - ends[-1] <= 9  # the last segment may be cut off
    lengths = np.concatenate(lengths)
    assert set(lengths) == set(range(4, 10))
    # the larger component is the speed: 20 % to 100 % of the bound
    fastest = np.abs(actions).max(-1) / 2
    assert fastest.min() >= 0.2 - 1e-12
    assert fastest.max() <= 1
    assert fastest.max() > 0.95


@pytest.mark.parametrize("settings", [{"shortest": 0}, {"shortest": 9, "longest": 8}])
def test_straight_needs_ordered_lengths(settings):
    with pytest.raises(InputError, match="shortest"):
        build("policy", {"name": "straight", **settings})


def test_goal_directed_crosses_rooms_more_often_than_a_random_walk():
    walk, directed = (crossings(play({"name": n}, 64, 200)[0]) for n in ("ou", "goal_directed"))
    error = np.sqrt(walk.var() / 64 + directed.var() / 64)
    assert directed.mean() > walk.mean() + 4 * error
    assert (directed > 0).mean() > 0.8


def test_goal_directed_without_noise_goes_on_to_new_goals():
    states, _ = play({"name": "goal_directed", "noise": 0.0}, 16, 400)
    assert (crossings(states) >= 2).mean() > 0.5
    assert (np.ptp(states, axis=0) > 15).all()


@pytest.mark.parametrize("patience", [1, 5, 1000])
def test_goal_directed_works_for_any_patience(patience):
    _, actions = play({"name": "goal_directed", "patience": patience}, 4, 150)
    assert np.isfinite(actions).all()


def test_straight_rests_for_the_stated_share_of_segments():
    _, actions = play({"name": "straight", "shortest": 10, "longest": 10, "rest": 0.3}, 600, 50)
    still = (actions == 0).all(-1).mean()
    assert abs(still - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 3000)


def test_greedy_heads_straight_for_the_goal_and_is_stopped_by_the_wall():
    task = TwoRoom(2, image_size=16)
    states, goals = np.array([[10.0, 50.0], [10.0, 50.0]]), np.array([[20.0, 60.0 - 4.5], [54.0, 50.0]])
    task.reset(states, goals)
    act = build("policy", {"name": "greedy"}).begin(task, [np.random.default_rng(0)] * 2, 100)
    for t in range(100):
        task.step(act(t, task.get_state()))
    assert task.success().tolist() == [True, False]
    assert task.get_state()[1].tolist() == [28.0, 50.0]  # at the wall, less the radius


def holds_its_first_action(actions):
    """Rows whose first five actions are one: (T, B, 2) -> (B,); true for `straight`, never for a random walk."""
    return (np.ptp(actions[:5], axis=0) == 0).all(-1)


@pytest.mark.parametrize(("ou", "straight"), [(1.0, 3.0), (2.0, 0.5), (0.0, 1.0), (1.0, 0.0)])
def test_mixed_frequencies_follow_the_weights(ou, straight):
    rows, share = 1500, straight / (ou + straight)
    spec = {"name": "mixed", "parts": ["ou", "straight"], "weights": [ou, straight]}
    drawn = holds_its_first_action(play(spec, rows, 6)[1]).mean()
    # the walk may sit at a corner of its bounds for five steps; rarer than the width of the interval
    assert abs(drawn - share) <= 4.5 * np.sqrt(share * (1 - share) / rows) + 0.01


def test_mixed_says_who_acts_in_each_row_and_plays_every_member_by_weight():
    rows = 400
    _, actor = begin({"name": "mixed"}, rows, 6)
    for name, share in (("ou", 1 / 4), ("goal_directed", 1 / 2), ("straight", 1 / 4)):
        drawn = np.mean([acting == name for acting in actor.names])
        assert abs(drawn - share) <= 4.5 * np.sqrt(share * (1 - share) / rows)
    held = holds_its_first_action(play({"name": "mixed"}, rows, 6)[1])
    assert held[[acting == "straight" for acting in actor.names]].all()


@pytest.mark.parametrize("name", [*DRAWN, "greedy"])
def test_an_actor_names_itself_in_every_row(name):
    names = begin({"name": name}, 3, 5)[1].names
    own = {"mixed": {"ou", "goal_directed", "straight"}, "expert": {"goal_directed"}}.get(name, {name})
    assert len(names) == 3 and set(names) <= own


def test_members_of_mixed_may_have_settings_of_their_own():
    spec = {"name": "mixed", "parts": [{"name": "ou", "scale": 0.0}, "ou"], "weights": [1, 1]}
    actions = play(spec, 200, 6)[1]
    still = (actions == 0).all((0, 2)).mean()
    assert abs(still - 0.5) < 4.5 * np.sqrt(0.25 / 200)


def test_a_member_of_mixed_acts_as_it_would_alone():
    """The mixture draws one number from a row's generator and hands the generator on."""
    _, actions = play({"name": "mixed", "parts": ["ou", "straight"], "weights": [0, 1]}, 5, 40)
    task = TwoRoom(5, image_size=16)
    rngs = [np.random.default_rng([0, i]) for i in range(5)]
    for rng in rngs:
        task.sample_state(rng), rng.random()
    alone = build("policy", {"name": "straight"}).begin(task, rngs, 40)
    assert np.array_equal(actions, np.stack([alone(t, np.zeros((5, 2))) for t in range(40)]))


class Noted:
    """Stands still; reports what it was given, and how far it came, in its facts."""

    def __init__(self, *, word: str = "none"):
        self.word = word

    def begin(self, task, rngs, steps):
        facts = [{"word": self.word, "steps": 0} for _ in rngs]

        def act(t, states):
            for fact in facts:
                fact["steps"] = t + 1
            return np.zeros((len(states), 2))

        return Actor(act, [f"noted {self.word}"] * len(rngs), facts)


def test_mixed_hands_on_the_facts_of_whoever_acts(monkeypatch):
    monkeypatch.setitem(registry._PARTS["policy"], "noted", Noted)
    parts = [{"name": "noted", "word": "a"}, {"name": "noted", "word": "b"}, "ou"]
    _, actor = begin({"name": "mixed", "parts": parts, "weights": [1, 1, 1]}, 30, 4)
    for t in range(4):
        actor(t, np.zeros((30, 2)))
    for name, facts in zip(actor.names, actor.facts, strict=True):
        assert facts == ({} if name == "ou" else {"word": name.split()[1], "steps": 4})
    assert len(set(actor.names)) == 3


class Pusher(Noted):
    """Has the settings every expert has."""

    def __init__(self, *, noise: float = 0.0, correlation: float = 0.0):
        super().__init__(word=f"{noise} {correlation}")


def test_expert_is_whom_the_task_names_with_the_noise_it_is_given(monkeypatch):
    same = play({"name": "expert", "noise": 0.3, "correlation": 0.5}, 3, 30)[1]
    assert np.array_equal(same, play({"name": "goal_directed", "noise": 0.3, "correlation": 0.5}, 3, 30)[1])
    monkeypatch.setitem(registry._PARTS["policy"], "pusher", Pusher)
    monkeypatch.setattr(TwoRoom, "expert", "pusher")
    assert begin({"name": "expert", "noise": 0.3, "correlation": 0.5}, 2, 5)[1].names == ["noted 0.3 0.5"] * 2


@pytest.mark.parametrize(
    "settings",
    [
        {"parts": ["ou"], "weights": [-1.0]},
        {"parts": ["ou", "straight"], "weights": [0.0, 0.0]},
        {"parts": ["ou", "straight"], "weights": [1.0, -0.1]},
        {"parts": ["ou"], "weights": [float("nan")]},
        {"parts": ["ou"], "weights": [float("inf")]},
        {"parts": ["ou", "straight"], "weights": [1.0]},
        {"parts": [], "weights": []},
    ],
)
def test_mixed_needs_weights_that_can_be_drawn_from(settings):
    with pytest.raises(InputError, match="weight"):
        build("policy", {"name": "mixed", **settings})


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "uniform_hold", "hold": 0},
        {"name": "momentum", "step": -0.1},
        {"name": "momentum", "step": float("nan")},
        {"name": "ou", "correlation": 1.5},
        {"name": "ou", "correlation": -1.5},
    ],
)
def test_settings_that_mean_nothing_are_an_error(spec):
    with pytest.raises(InputError):
        build("policy", spec)
