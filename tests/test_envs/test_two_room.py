"""Two-Room: geometry against a micro-stepping reference, pixels against states, detours and waypoints."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import shortest_path

from envs import TwoRoom
from envs.two_room import RANGES
from lewm.types import InputError

seeds = st.integers(0, 2**32 - 1)


@dataclass(frozen=True)
class World:
    """Settings of a Two-Room and, written independently, where its disc fits."""

    door: float = 22.0
    door_size: float = 12.0
    wall: float = 3.0
    border: float = 2.0
    radius: float = 2.5
    wall_x: float = 32.0

    def task(self, rows, **options):
        return TwoRoom(rows, **self.__dict__, **options)

    @property
    def half(self):
        """Half the width of the band around the wall's middle that the wall takes from the centre."""
        return self.wall / 2 + self.radius

    def fits(self, points, slack):
        """Whether a disc at (..., 2) stays clear of walls, give or take `slack`."""
        x, y = np.moveaxis(points, -1, 0)
        edge = self.border + self.radius - slack
        inside = (np.minimum(x, y) >= edge) & (np.maximum(x, y) <= 64 - edge)
        through = np.abs(y - self.door) <= self.door_size / 2 - self.radius + slack
        return inside & ((np.abs(x - self.wall_x) >= self.half - slack) | through)


@st.composite
def worlds(draw):
    world = World(
        door_size=draw(st.floats(5.5, 20)),
        wall=draw(st.floats(0.5, 12)),
        radius=draw(st.floats(0.5, 2.5)),
        wall_x=draw(st.floats(20, 44)),
    )
    margin = world.border + world.door_size / 2 + 0.01
    return World(**world.__dict__ | {"door": draw(st.floats(margin, 64 - margin))})


def free_states(world, rng, count):
    """Random free states, one in four of them inside the corridor."""
    task = world.task(1)
    points = np.stack([task.sample_state(rng) for _ in range(count)])
    gap = world.door_size / 2 - world.radius
    corridor = rng.uniform(-1, 1, (count, 2)) * [world.half, gap * 0.999] + [world.wall_x, world.door]
    return np.where(np.arange(count)[:, None] % 4 == 0, corridor, points)


@settings(max_examples=60, deadline=None)
@given(world=worlds(), speed=st.sampled_from([0.3, 2.0, 10.0, 1000.0]), seed=seeds)
def test_a_step_equals_a_thousand_small_ones(world, speed, seed):
    """Reference: creep along x, then along y, and stop before the first place where the disc does not fit."""
    rng, count, parts = np.random.default_rng(seed), 20, 1001
    states = free_states(world, rng, count)
    moves = np.clip(rng.uniform(-speed, speed, (count, 2)), -64, 64)
    task = world.task(count, speed=speed)
    task.reset(states, states)
    task.step(moves)
    expected = states.copy()
    for axis in (0, 1):
        path = np.repeat(expected[None], parts, axis=0)
        path[..., axis] += np.linspace(0, 1, parts)[:, None] * moves[:, axis]
        ok = np.logical_and.accumulate(world.fits(path, 1e-9), axis=0)
        expected[:, axis] = path[ok.sum(0) - 1, np.arange(count), axis]
        # one small step of leeway; along y start from where the task really is
        if axis == 0:
            assert np.allclose(task.get_state()[:, 0], expected[:, 0], atol=64 / 1000 + 1e-6)
            expected[:, 0] = task.get_state()[:, 0]
    assert np.allclose(task.get_state(), expected, atol=64 / 1000 + 1e-6)


@settings(max_examples=40, deadline=None)
@given(world=worlds(), speed=st.sampled_from([1.0, 5.0, 60.0]), seed=seeds)
def test_rooms_change_only_through_the_door(world, speed, seed):
    rng, rows = np.random.default_rng(seed), 32
    task = world.task(rows, speed=speed)
    task.reset(free_states(world, rng, rows), seeds=range(rows))
    for _ in range(40):
        before = task.get_state()
        task.step(rng.uniform(-speed, speed, (rows, 2)))
        after = task.get_state()
        assert world.fits(after, 1e-9).all()
        crossed = (before[:, 0] - world.wall_x) * (after[:, 0] - world.wall_x) < 0
        # x moves first, so the height of the crossing is the height before the step
        assert (np.abs(before[crossed, 1] - world.door) <= world.door_size / 2 - world.radius + 1e-9).all()


@settings(max_examples=40, deadline=None)
@given(world=worlds(), speed=st.sampled_from([1.0, 60.0]), seed=seeds)
def test_every_visited_state_can_be_set_again_exactly(world, speed, seed):
    rng, rows = np.random.default_rng(seed), 32
    task, copy = (world.task(rows, speed=speed) for _ in range(2))
    task.reset(free_states(world, rng, rows), seeds=range(rows))
    for _ in range(30):
        action = rng.uniform(-speed, speed, (rows, 2))
        copy.reset(task.get_state(), task.get_goal())
        assert np.array_equal(copy.get_state(), task.get_state())
        task.step(action)
        copy.step(action)
        assert np.array_equal(copy.get_state(), task.get_state())


@settings(max_examples=15, deadline=None)
@given(world=worlds(), seed=seeds)
def test_the_way_is_the_shortest_one(world, seed):
    """Against Dijkstra over the points and the corners of the corridor, joined where a disc fits all the way."""
    task, gap = world.task(1, tolerance=1.0), world.door_size / 2 - world.radius
    points, rng = free_states(world, np.random.default_rng(seed), 12), np.random.default_rng(seed)
    points[::2] = task.advance(points[::2], rng.uniform(-9, 9, (6, 2)))  # some of them up against walls
    corners = [(world.wall_x + x, world.door + y) for x in (-world.half, world.half) for y in (-gap, gap)]
    nodes = np.concatenate([points, corners])
    share = np.linspace(0, 1, 800)[:, None]
    free = [[world.fits(a + share * (b - a), 1e-6).all() for b in nodes] for a in nodes]
    apart = np.linalg.norm(nodes[:, None] - nodes, axis=2)
    expected = shortest_path(np.where(free, apart, 0))[:12, :12]
    travel = np.array([task.travel(points, np.tile(goal, (12, 1))) for goal in points])
    assert np.allclose(travel, expected, atol=0.01)
    rounded = points.astype(np.float32).astype(float)  # as in a search
    assert np.allclose([task.travel(rounded, np.tile(goal, (12, 1))) for goal in rounded], travel, atol=1e-4)


def test_drawn_states_are_free_uniform_and_in_both_rooms():
    rng, task = np.random.default_rng(0), TwoRoom(4000)
    states = np.stack([task.sample_state(rng) for _ in range(4000)])
    task.reset(states, states)
    assert (np.abs(states[:, 0] - 32) >= 4).all()
    assert abs((states[:, 0] < 32).mean() - 0.5) < 4.5 * 0.5 / np.sqrt(4000)
    for values, (low, high) in ((states[:, 1], (4.5, 59.5)), (32 + np.abs(states[:, 0] - 32), (36, 59.5))):
        fractions = np.histogram(values, 10, (low, high))[0] / 4000
        assert np.abs(fractions - 0.1).max() < 4.5 * 0.3 / np.sqrt(4000)


@pytest.mark.parametrize("point", [(32, 40), (28.1, 30), (1, 10), (10, 60), (70, 10), (32, 25.6), (-5, -5)])
def test_a_state_inside_a_wall_is_an_error_and_changes_nothing(point):
    task, free = TwoRoom(2), np.array([[10.0, 10.0], [50.0, 50.0]])
    task.reset(free, free)
    bad = np.array([[20.0, 20.0], point])
    for name, given_ in (("state", (bad, free)), ("goal", (free, bad))):
        with pytest.raises(InputError, match=f"{name} .* is impossible in TwoRoom"):
            task.reset(*given_)
    assert np.array_equal(task.get_state(), free)
    assert np.array_equal(task.get_goal(), free)


BAD_SETTINGS = [
    *({"door": door} for door in (0.0, 5.0, 60.0, 100.0, float("nan"))),
    *({"door_size": size} for size in (0.0, 5.0, 62.0)),
    *({"wall": wall} for wall in (-10.0, 60.0, float("nan"))),
    *({"border": border} for border in (-1.0, 30.0)),
    *({"radius": radius} for radius in (-1.0, 6.0, 40.0)),
    *({"wall_x": x} for x in (3.0, 60.0, -5.0, float("nan"))),
    *({"floor_color": colour} for colour in ([1, 2], [0, 0, 256], [-1, 0, 0], [0, 0, 0, 0])),
    {"vary": ["dor"]},
    {"vary": ["door", "door"]},
    *({"speed": speed} for speed in (0.0, -2.0, float("nan"), float("inf"))),
    *({"image_size": size} for size in (15, 0, -64)),
    *({"rows": rows} for rows in (0, -1)),
    {"tolerance": -1.0},
]


@pytest.mark.parametrize("bad", BAD_SETTINGS, ids=str)
def test_settings_without_a_world_are_an_error(bad):
    with pytest.raises(InputError):
        TwoRoom(**({"rows": 1} | bad))


@pytest.mark.parametrize(
    ("offset", "reached"),
    [((0, 0), True), ((4.47, 0), True), ((0, -4.49), False), ((3.1, 3.1), True), ((3.2, 3.2), False)],
)
def test_success_around_the_tolerance(offset, reached):
    task, goal = TwoRoom(1), np.array([[16.0, 40.0]])
    task.reset(goal + offset, goal)
    assert task.success().tolist() == [reached]


def test_success_includes_a_distance_of_exactly_the_tolerance():
    task, goal = TwoRoom(2, tolerance=4.0), np.full((2, 2), 16.0)
    task.reset(goal + np.array([[4.0, 0.0], [4.0 + 2**-40, 0.0]]), goal)
    assert task.success().tolist() == [True, False]


def agent_weight(image):
    """How much of each pixel is the disc's red, from red minus green: floor 3, wall -8, disc 145."""
    red, green = image[..., 0].astype(float), image[..., 1].astype(float)
    return np.clip((red - green - 6) / 139, 0, 1)


@pytest.mark.parametrize("size", [16, 33, 64, 97, 224])
def test_the_disc_is_drawn_where_the_state_says(size):
    world, rows = World(), 60
    states = free_states(world, np.random.default_rng(size), rows)
    states[:4] = [[4.5, 4.5], [59.5, 59.5], [4.5, 59.5], [28, 4.5]]  # corners
    images = TwoRoom(rows, image_size=size).draw(states)
    assert images.shape == (rows, size, size, 3)
    weights, centres = agent_weight(images), np.arange(size) + 0.5
    area = weights.sum((1, 2))
    x, y = (weights.sum(1) @ centres / area, weights.sum(2) @ centres / area)
    assert np.abs(np.stack([x, y], 1) - states * size / 64).max() < 0.5
    assert np.allclose(area, np.pi * (2.5 * size / 64) ** 2, rtol=0.2, atol=1)


@pytest.mark.parametrize("size", [33, 64, 224])
def test_the_background_shows_walls_and_door(size):
    states = np.array([[15.0, 50.0], [50.0, 15.0]])
    images = TwoRoom(2, image_size=size).draw(states)
    image = np.where((agent_weight(images[0]) > 0)[..., None], images[1], images[0])  # without either disc

    def colour(x, y):
        return tuple(image[int(y * size / 64), int(x * size / 64)].tolist())

    floor, wall = colour(50, 50), colour(32, 50)
    assert sum(floor) > sum(wall) + 300
    for y in (17.5, 22, 26.5):
        assert colour(32, y) == floor
    for y in (5, 14, 30, 60):
        assert colour(32, y) == wall
    for x, y in ((0.5, 20), (63.5, 20), (20, 0.5), (20, 63.5)):
        assert colour(x, y) == wall
    for x, y in ((29, 40), (35, 40), (4, 4), (60, 60)):
        assert colour(x, y) == floor


def test_images_change_with_the_state_and_depend_on_nothing_else():
    task, rng = TwoRoom(30), np.random.default_rng(0)
    states = np.linspace([5.0, 40.0], [11.0, 40.0], 30)  # a fifth of a pixel apart
    images = task.draw(states)
    assert len({image.tobytes() for image in images}) == 30
    task.reset(states, states[::-1])
    assert np.array_equal(task.render(), images)
    order = rng.permutation(30)
    assert np.array_equal(task.draw(states[order]), images[order])
    assert np.array_equal(TwoRoom(1).draw(states[3:4])[0], images[3])


DETOURS = [  # door at 22, the corridor for the centre from 18.5 to 25.5, the wall from x = 28 to 36
    ((10, 10), (20, 55), False, "same room"),
    ((10, 22), (54, 22), False, "straight through the door"),
    ((10, 50), (54, 50), True, "through the wall"),
    ((10, 10), (54, 10), True, "through the wall, other side"),
    ((10, 10), (54, 54), True, "a diagonal that misses the door"),
    ((10, 12), (54, 32), False, "a diagonal through the door: heights 20.2 and 23.8"),
    ((54, 32), (10, 12), False, "the same, back"),
    ((27, 10), (37, 34), True, "steep: enters at 12.4"),
    ((10, 26), (54, 26), True, "just below the corridor"),
    ((10, 25.5), (54, 25.5), False, "along the corridor's edge"),
    ((32, 22), (54, 22), False, "from the door"),
    ((32, 22), (54, 50), True, "from the door round the corner"),
    ((30, 20), (34, 24), False, "within the door"),
    ((32, 19), (32, 25), False, "within the door, vertical"),
    ((28, 5), (28, 59), False, "along the wall's face"),
    ((10, 40), (10, 40), False, "nowhere to go"),
]


@pytest.mark.parametrize("case", DETOURS, ids=[case[3] for case in DETOURS])
def test_detour_truth_table(case):
    state, goal, blocked, _ = case
    assert TwoRoom(1).detour(np.array([state], float), np.array([goal], float)).tolist() == [blocked]


@settings(max_examples=50, deadline=None)
@given(world=worlds(), seed=seeds)
def test_detour_agrees_with_points_along_the_way(world, seed):
    rng = np.random.default_rng(seed)
    states, goals = free_states(world, rng, 40), free_states(world, rng, 40)[::-1]
    points = states + np.linspace(0, 1, 2001)[:, None, None] * (goals - states)
    detour = world.task(40).detour(states, goals)
    assert not detour[world.fits(points, -0.05)[1:-1].all(0)].any()  # free with room to spare
    assert detour[~world.fits(points, 0.05).all(0)].all()  # cuts clearly into the wall


@settings(max_examples=40, deadline=None)
@given(world=worlds(), speed=st.sampled_from([0.7, 2.0, 20.0, 100.0]), seed=seeds)
@example(world=World(door=22.3, door_size=11.7), speed=2.0, seed=0)
def test_steering_by_waypoints_reaches_every_goal(world, speed, seed):
    rng, rows = np.random.default_rng(seed), 40
    states, goals = free_states(world, rng, rows), free_states(world, rng, rows)[::-1]
    gap = world.door_size / 2 - world.radius
    states[:4, 1], goals[:4, 1] = world.door + gap * 0.9999, world.door + gap * 0.9999  # along the edge
    task = world.task(rows, speed=speed, tolerance=1e-6)
    task.reset(states, goals)
    for _ in range(int(3 * 55 / speed) + 8):  # three legs, each at most the inner width
        task.step(task.steer(task.get_state(), task.waypoint(task.get_state(), goals)))
    assert task.success().all()


@settings(max_examples=40, deadline=None)
@given(world=worlds(), off=st.sampled_from([0.0, 5e-10, -5e-10, 1e-8]), side=st.sampled_from([-1, 1]))
def test_steering_works_at_the_very_edge_of_the_corridor(world, off, side):
    """Rounding must not make the way look free to `detour` and blocked to the motion: the disc would hang."""
    height = world.door + side * (world.door_size / 2 - world.radius) + off
    states, goals = np.array([[10.0, height], [54.0, height]]), np.array([[54.0, height], [10.0, height]])
    task = world.task(2, tolerance=1e-6)
    assume(world.fits(states, 0.0).all() and world.fits(goals, 0.0).all())
    task.reset(states, goals)
    for _ in range(90):
        task.step(task.steer(task.get_state(), task.waypoint(task.get_state(), goals)))
    assert task.success().all()


def test_steering_straight_does_not_reach_every_goal():
    task = TwoRoom(300)
    task.reset(seeds=range(300))
    blocked = task.detour(task.get_state(), task.get_goal())
    for _ in range(200):
        task.step(task.steer(task.get_state(), task.get_goal()))
    assert task.success()[~blocked].all()
    assert 0.2 < task.success().mean() < 0.9


@settings(max_examples=30, deadline=None)
@given(speed=st.floats(0.1, 50), seed=seeds)
def test_steer_is_straight_within_bounds_and_does_not_overshoot(speed, seed):
    rng = np.random.default_rng(seed)
    states, targets = rng.uniform(5, 59, (2, 30, 2))
    assume((np.abs(targets - states).max(1) > 1e-3).all())
    actions, way = TwoRoom(30, speed=speed).steer(states, targets), targets - states
    share = actions[:, 0] * way[:, 1] - actions[:, 1] * way[:, 0]
    assert np.abs(share).max() < 1e-6 * np.abs(way).max() * speed  # parallel
    fast = np.minimum(np.abs(way).max(1), np.float32(speed))
    assert np.allclose(np.abs(actions).max(1), fast, rtol=1e-6)
    assert ((actions * way).sum(1) > 0).all()


EVERYTHING = tuple(RANGES)
GEOMETRY = ("door", "door_size", "wall", "wall_x", "radius", "speed")


def apart(task, state):
    """The world of one varied row as a task of its own, without variation, and the row's state there."""
    values = {name: value[0].tolist() for name, value in task.factors.of(state[None]).items()}
    settings = {name: value if len(value) == 3 else value[0] for name, value in values.items()}
    return TwoRoom(1, image_size=task.image_shape[0], **settings), state[None, :2]


@pytest.mark.parametrize("size", [64, 33])
@pytest.mark.parametrize("vary", [EVERYTHING, EVERYTHING[::-1], ("door",), ("speed", "agent_color")])
def test_every_varied_row_is_a_world_of_its_own(vary, size):
    """Motion, images, detours, waypoints and steering equal those of a task built with the row's values."""
    rng, rows = np.random.default_rng(0), 40
    task = TwoRoom(rows, image_size=size, vary=vary)
    task.reset(seeds=range(rows))
    for _ in range(20):  # away from the start, into doors and along walls
        task.step(task.steer(task.get_state(), task.waypoint(task.get_state(), task.get_goal())))
    states, goals, actions = task.get_state(), task.get_goal(), rng.uniform(-2, 2, (rows, 2))
    after, images, detours = task.advance(states, actions), task.draw(states), task.detour(states, goals)
    targets, steered = task.waypoint(states, goals), task.steer(states, goals)
    travels = task.travel(states, goals)
    assert np.array_equal(after[:, 2:], states[:, 2:]) and np.array_equal(targets[:, 2:], states[:, 2:])
    assert detours.any() and not detours.all()
    for k in range(rows):
        alone, state = apart(task, states[k])
        goal, gain = goals[k : k + 1, :2], alone.high[0] / 2.0
        assert np.allclose(alone.advance(state, actions[k : k + 1] * gain)[0], after[k, :2], atol=1e-6)
        assert np.array_equal(alone.draw(state)[0], images[k])
        assert alone.detour(state, goal)[0] == detours[k]
        assert alone.travel(state, goal)[0] == travels[k]
        assert np.array_equal(alone.waypoint(state, goal)[0], targets[k, :2])
        assert np.allclose(alone.steer(state, goal)[0], steered[k] * gain, atol=1e-6)
        assert alone.possible(state) and alone.possible(goal)


@settings(max_examples=30, deadline=None)
@given(vary=st.lists(st.sampled_from(EVERYTHING), min_size=1, unique=True), seed=seeds)
def test_drawn_worlds_fit_together_stay_and_hold_their_goals(vary, seed):
    task, rng = TwoRoom(16, vary=vary), np.random.default_rng(seed)
    task.reset(seeds=rng.integers(2**32, size=16))
    states, goals = task.get_state(), task.get_goal()
    assert np.array_equal(states[:, 2:], goals[:, 2:])
    assert (np.ptp(states, axis=0) > 0).all()
    for name, value in task.factors.of(states).items():
        factor = task.factors.known[name]
        assert name not in vary or ((value >= factor.low) & (value <= factor.high)).all()
    for _ in range(5):
        task.step(rng.uniform(-2, 2, (16, 2)))
    assert np.array_equal(task.get_state()[:, 2:], states[:, 2:])
    assert np.array_equal(task.sense(states)["pose"], states[:, :2])


@settings(max_examples=30, deadline=None)
@given(speed=st.sampled_from([0.5, 2.0, 30.0, 500.0]), seed=seeds)
def test_nothing_passes_a_wall_at_any_speed_in_any_variation(speed, seed):
    rng, rows = np.random.default_rng(seed), 32
    task = TwoRoom(rows, speed=speed, vary=GEOMETRY)
    task.reset(seeds=rng.integers(2**32, size=rows))
    value = {name: values[:, 0] for name, values in task.factors.of(task.get_state()).items()}
    # one `World` for all rows: its numbers are arrays
    world = World(**{name: value[name] for name in ("door", "door_size", "wall", "wall_x", "radius")})
    for _ in range(30):
        before = task.get_state()
        task.step(rng.uniform(-speed, speed, (rows, 2)))
        after = task.get_state()
        assert world.fits(after[:, :2], 1e-9).all()
        crossed = (before[:, 0] - value["wall_x"]) * (after[:, 0] - value["wall_x"]) < 0
        gap = np.abs(before[:, 1] - value["door"]) - (value["door_size"] / 2 - value["radius"])
        assert (gap[crossed] <= 1e-9).all()


@settings(max_examples=8, deadline=None)
@given(speed=st.sampled_from([1.0, 20.0]), seed=seeds)
def test_steering_by_waypoints_reaches_goals_in_varied_worlds(speed, seed):
    rows = 40
    task = TwoRoom(rows, speed=speed, tolerance=1e-6, vary=EVERYTHING)
    task.reset(seeds=np.random.default_rng(seed).integers(2**32, size=rows))
    for _ in range(int(3 * 55 / (0.5 * speed)) + 8):  # half the speed at the slowest
        task.step(task.steer(task.get_state(), task.waypoint(task.get_state(), task.get_goal())))
    assert task.success().all()


def test_discs_walls_and_floors_can_be_told_apart():
    task = TwoRoom(300, vary=["agent_color", "wall_color", "floor_color"])
    task.reset(seeds=range(300))
    agent, wall, floor = (task.factors.of(task.get_state())[f"{name}_color"] for name in ("agent", "wall", "floor"))
    for a, b in ((agent, wall), (agent, floor), (wall, floor)):
        assert np.abs(a - b).max(1).min() >= 60
    hue = agent.argmax(1)
    assert {0, 1, 2} == set(hue)  # red, green and blue ones


def test_a_state_without_a_world_is_impossible():
    task = TwoRoom(1, vary=EVERYTHING)
    task.reset(seeds=[0])
    column, state = 2, task.get_state()
    bad = {"door": 5.0, "door_size": 2.0, "wall": -1.0, "wall_x": 61.0, "radius": -1.0, "speed": 0.0}
    bad |= {name: 300.0 for name in ("agent_color", "wall_color", "floor_color")}
    for name in EVERYTHING:
        broken = state.copy()
        broken[0, column] = bad[name]
        column += task.factors.known[name].size
        assert not task.possible(broken)[0], name
    assert task.possible(state)[0] and column == task.state_dim


def test_variation_that_can_make_no_world_is_said_at_once():
    grey = {"agent_color": [200, 200, 200], "wall_color": [180, 180, 180]}
    with pytest.raises(InputError, match=r"\['floor_color'\] made no world"):
        TwoRoom(1, vary=["floor_color"], **grey)


def test_images_of_varied_rows_do_not_remember_others():
    """Backgrounds are kept between calls; that must not show."""
    task = TwoRoom(12, vary=EVERYTHING)
    states = np.stack([task.sample_state(np.random.default_rng(k)) for k in range(12)])
    images = task.draw(states)
    assert np.array_equal(task.draw(states[::-1]), images[::-1])
    assert np.array_equal(task.draw(states[3:5]), images[3:5])
    moved = states.copy()
    moved[:, 2] += 1.0  # the door: a factor alone
    assert all((a != b).any() for a, b in zip(task.draw(moved), images, strict=True))
    assert np.array_equal(task.draw(states), images)
