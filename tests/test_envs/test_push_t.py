"""Push-T: physics against closed forms, purity, success, pictures."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.push_t import PushT, centre_of, clearance, turn
from lewm.types import InputError

CORNERS = np.array([(-60, 0), (60, 0), (60, 30), (15, 30), (15, 120), (-15, 120), (-15, 30), (-60, 30)], float)
REST = np.array([100.0, 100, 300, 250, 0.7, 0, 0])  # agent and block far apart
PHYSICS = ("friction", "agent_size")
COLOURS = ("agent_color", "block_color", "background_color")


def state(agent=(100.0, 100.0), block=(300.0, 250.0), angle=0.0, velocity=(0.0, 0.0), varied=()):
    return np.array([*agent, *block, angle, *velocity, *varied], float)


def play(task, start, actions):
    """States (steps + 1, s) of one row under actions (steps, 2)."""
    states = [np.asarray(start, float)]
    for action in actions:
        states.append(task.advance(states[-1][None], np.asarray(action, float)[None])[0])
    return np.stack(states)


def corners_of(states):
    """The T's corners (B, 8, 2) in the arena."""
    tops = np.broadcast_to(CORNERS, (len(states), 8, 2))
    return states[:, None, 2:4] + turn(tops, states[:, 4:5])


def wrapped(angle):
    return np.remainder(angle + np.pi, 2 * np.pi) - np.pi


def chase(task, states, rng, noise):
    """Actions at full stretch towards the middle of the block, more or less."""
    aim = centre_of(states) - states[:, :2] + noise * rng.standard_normal((len(states), 2))
    return np.clip(aim / 60, -1, 1)


@pytest.fixture(scope="module")
def visited():
    """Transitions (states, actions, next) of agents that push the block about, into walls too; factors vary."""
    task, rng = PushT(10, vary=[*COLOURS, *PHYSICS]), np.random.default_rng(0)
    states = np.stack([task.sample_state(rng) for _ in range(10)])
    rows = []
    for _ in range(30):
        actions = chase(task, states, rng, noise=40)
        after = task.advance(states, actions)
        rows.append((states, actions, after))
        states = after
    before, actions, after = (np.concatenate(column) for column in zip(*rows, strict=True))
    pushed = np.abs(after - before)[:, 2:5].max(1) > 1
    depth = np.minimum(corners_of(before) - 7, 504 - corners_of(before)).min((1, 2))
    assert pushed.mean() > 0.3 and (depth < 1).mean() > 0.1  # what follows is about contacts and walls
    return before, actions, after


def test_gymnasium_finds_nothing_to_complain_about():
    check_env(gymnasium.make("lewm/PushT-v0", render_mode="rgb_array", image_size=32).unwrapped)


# Purity


def test_a_step_is_the_same_in_any_order_and_after_any_past(visited):
    before, actions, after = visited
    order = np.random.default_rng(1).permutation(len(before))
    task = PushT(1, vary=[*COLOURS, *PHYSICS])
    for k in order[:100]:  # each after another row, with its own friction and agent
        assert np.array_equal(task.advance(before[k : k + 1], actions[k : k + 1])[0], after[k])
    assert np.array_equal(task.advance(before[order], actions[order]), after[order])


def test_a_step_is_the_same_in_a_fresh_task(visited):
    before, actions, after = visited
    for k in range(0, len(before), 15):
        fresh = PushT(1, vary=[*COLOURS, *PHYSICS])
        assert np.array_equal(fresh.advance(before[k : k + 1], actions[k : k + 1])[0], after[k])


def test_a_picture_is_the_same_in_any_order(visited):
    states = visited[0][::7]
    task = PushT(1, vary=[*COLOURS, *PHYSICS], image_size=48, target=True)
    images, order = task.draw(states), np.random.default_rng(2).permutation(len(states))
    assert np.array_equal(task.draw(states[order]), images[order])
    for k in order[:10]:
        assert np.array_equal(task.draw(states[k : k + 1])[0], images[k])


def test_continuing_from_a_state_equals_the_original():
    actions = np.random.default_rng(3).uniform(-1, 1, (30, 2))
    start = state(agent=(256, 150), block=(256, 200))
    whole = play(PushT(1), start, actions)
    assert np.abs(whole[-1] - start)[2:5].max() > 5
    for at in (1, 13, 29):
        assert np.array_equal(play(PushT(1), whole[at], actions[at:]), whole[at:])


# Physics


def test_an_agent_that_meets_nothing_moves_as_its_controller_says():
    """Semi-implicit Euler of x'' = 100 (target - x) - 20 x', ten steps of 0.01 s: a power of one matrix."""
    k, d, dt = 100.0, 20.0, 0.01
    once = np.array([[1 - k * dt**2, dt * (1 - d * dt)], [-k * dt, 1 - d * dt]])  # of (x - target, x')
    ten = np.linalg.matrix_power(once, 10)
    actions = np.random.default_rng(4).uniform(-0.4, 0.4, (20, 2))
    states = play(PushT(1), state(agent=(120, 250), block=(400, 300)), actions)
    assert clearance(states).min() > 15.1
    for before, action, after in zip(states, actions, states[1:], strict=False):
        offset = ten @ np.stack([-100 * action, before[5:7]])
        assert after[:2] == pytest.approx(before[:2] + 100 * action + offset[0], abs=1e-9)
        assert after[5:7] == pytest.approx(offset[1], abs=1e-9)
    assert np.abs(np.diff(states[:, :2], axis=0)).max() > 10


def test_the_block_moves_on_contact_only():
    """Steps of agents near blocks of all angles: those that come within their radius move it, the others do not."""
    rng, task = np.random.default_rng(5), PushT(300)
    states = np.stack([task.sample_state(rng) for _ in range(300)])
    side = rng.uniform(0, 2 * np.pi, 300)
    states[:, :2] = centre_of(states) + rng.uniform(50, 110, (300, 1)) * np.stack([np.cos(side), np.sin(side)], 1)
    states = states[clearance(states) > 16]
    after = task.advance(states, rng.uniform(-1, 1, (len(states), 2)))
    way = np.linspace(states[:, :2], after[:, :2], 50)  # from rest an agent moves in a straight line
    room = np.stack([clearance(states, points) for points in way]).min(0)
    moved = np.abs(after - states)[:, 2:5].max(1)
    assert (room > 15.01).sum() > 50 and (room < 14.5).sum() > 20
    assert moved[room > 15.01].max() < 1e-9
    assert moved[room < 14.5].min() > 1e-3


@pytest.mark.parametrize("angle", [0.0, np.pi / 2, 2.2])
def test_a_push_through_the_centre_of_gravity_moves_the_block_straight(angle):
    """From the T's axis, beyond its bar: no turning, and the bar is where the agent takes it.

    What the last contact leaves to move is spent within the step, so that the bar is ahead of the agent by the
    way of one physics step, 0.01 s, less what a contact may overlap: 0.1 units.
    """
    along, across = turn(np.array([[0.0, 1.0], [1.0, 0.0]]), angle)
    top = np.array([256.0, 256.0]) - 60 * along
    start = state(agent=top - 20 * along, block=top, angle=angle)
    states = play(PushT(1), start, np.tile(0.3 * along, (6, 1)))
    shift = states[:, 2:4] - states[0, 2:4]
    assert np.abs(wrapped(states[:, 4] - angle)).max() < 1e-6
    assert np.abs(shift @ across).max() < 1e-6
    ahead, way = clearance(states)[1:] - 15, states[1:, 5:7] @ along * 0.01
    assert (ahead > 0.5 * way).all() and (ahead < way + 0.01).all()  # the first contact began with some overlap
    assert ahead[-1] == pytest.approx(way[-1], abs=0.12)
    travelled = (states[-1, :2] - states[0, :2]) @ along
    assert (shift @ along)[-1] == pytest.approx(travelled - 20 + 15 + ahead[-1], abs=1e-4)
    assert (shift @ along)[-1] > 60


@pytest.mark.parametrize("lever", [-45.0, -20.0, 20.0, 45.0])
def test_a_push_beside_the_centre_of_gravity_turns_the_block_by_the_lever_over_the_moment(lever):
    """Impulse j along y at a lever moves the centre by j and turns by lever * j / 3000, to first order in j."""
    start = state(agent=(256 + lever, 184.95), block=(256, 200))
    states = play(PushT(1), start, [(0, 0.01)] * 3)
    moved = centre_of(states)[-1] - centre_of(states)[0]
    assert 0.5 < moved[1] < 2
    assert wrapped(states[-1, 4]) / moved[1] == pytest.approx(lever / 3000, rel=0.03)
    assert abs(moved[0]) < 0.02 * moved[1]


@pytest.mark.parametrize(("height", "turns"), [(45.0, 0), (60.0, -1), (35.0, 1), (100.0, -1)])
def test_the_centre_of_gravity_lies_45_below_the_top_edge(height, turns):
    """A push from the left against the stem, so far below the T's top edge."""
    start = state(agent=(256 - 15 - 15.05, 200 + height), block=(256, 200))
    turned = wrapped(play(PushT(1), start, [(0.05, 0)] * 3)[-1, 4])
    assert abs(turned) < 1e-4 if turns == 0 else turned * turns > 0.005


def test_friction_drags_along_what_the_agent_slides_on():
    sideways = {}
    for friction in (0.0, 0.3, 1.0):
        start = state(agent=(216, 184), block=(256, 200))
        states = play(PushT(1, friction=friction), start, [(0.4, 0.1)] * 3)
        sideways[friction] = (centre_of(states)[-1] - centre_of(states)[0])[0]
    assert sideways[0.3] > sideways[0.0] + 0.5
    assert sideways[1.0] > sideways[0.3] + 5
    assert abs(sideways[0.0]) < 1.5


def test_the_block_stays_as_far_away_as_the_agent_is_large():
    gaps = {}
    for size in (0.7, 1.0, 1.5):
        actions = [(0, 0.3)] * 4 + [(0, 0)] * 8
        states = play(PushT(1, agent_size=size), state(agent=(256, 160), block=(256, 200)), actions)
        gaps[size] = clearance(states)[-1]
    assert gaps == pytest.approx({0.7: 10.5, 1.0: 15.0, 1.5: 22.5}, abs=0.3)


def test_varied_physics_live_in_the_state():
    """A row with friction and agent size in its state moves as a task made with them."""
    task = PushT(1, vary=["agent_size", "friction"])
    assert task.state_dim == 9
    for size, friction in ((0.7, 0.0), (1.5, 1.0), (1.5, 0.0)):
        start, actions = state(agent=(216, 170), block=(256, 200)), [(0.4, 0.15)] * 4
        varied = play(task, np.r_[start, size, friction], actions)
        usual = play(PushT(1, agent_size=size, friction=friction), start, actions)
        assert np.array_equal(varied[:, :7], usual)
        assert (varied[:, 7:] == [size, friction]).all()
        assert np.abs(usual[-1] - usual[0])[2:5].max() > 1


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 30.0, 300.0]), st.sampled_from([0.0, 0.8]))
def test_nothing_leaves_the_arena(seed, noise, friction):
    """Agents at full stretch towards the block, or wherever: what they reach is possible, and finite."""
    task, rng = PushT(2, friction=friction), np.random.default_rng(seed)
    states = np.stack([task.sample_state(rng) for _ in range(2)])
    for _ in range(40):
        states = task.advance(states, chase(task, states, rng, noise))
        assert task.possible(states).all(), states
        assert ((states[:, :2] >= 7) & (states[:, :2] <= 504)).all(), states
        assert np.abs(states[:, 5:7]).max() < 400 and np.isfinite(states).all()
        assert ((states[:, 4] >= 0) & (states[:, 4] < 2 * np.pi)).all()


# Starts, goals, success


def test_clearance_is_the_distance_to_the_outline():
    """Above the bar, beyond its corner, beside the stem, in the corner between them, inside; at any angle."""
    places = np.array([(0, -40), (-90, -40), (55, 70), (25, 50), (0, 20)], float)
    for angle in (0.0, 0.9, 4.0):
        states = np.stack(
            [state(block=(256, 200), agent=np.add((256, 200), turn(p, angle)), angle=angle) for p in places]
        )
        assert clearance(states) == pytest.approx([40, 50, 40, 10, -15], abs=1e-4)
        assert clearance(np.tile(states[:1], (5, 1)), states[:, :2]) == pytest.approx(clearance(states), abs=1e-4)


def test_drawn_states_are_at_rest_inside_and_apart():
    task, rng = PushT(1), np.random.default_rng(6)
    states = np.stack([task.sample_state(rng) for _ in range(300)])
    assert task.possible(states).all() and not states[:, 5:].any()
    assert (clearance(states) > 30).all()
    assert corners_of(states).min() > 7 and corners_of(states).max() < 504
    assert states[:, :2].min() < 60 and states[:, :2].max() > 450  # the agent: nearly everywhere
    assert np.histogram(states[:, 4], 4, (0, 2 * np.pi))[0].min() > 50
    goals = np.stack([task.sample_goal(rng, start) for start in states])
    assert (task.distance(states, goals) > 1).mean() > 0.99


@pytest.mark.parametrize(
    ("changed", "fine"),
    [
        ({}, True),
        ({"agent": (0.0, 512.0)}, True),
        ({"agent": (-0.1, 100.0)}, False),
        ({"agent": (100.0, 512.1)}, False),
        ({"block": (300.0, 530.0)}, False),
        ({"block": (300.0, 530.0), "angle": np.pi}, True),  # the top edge outside, the centre of gravity inside
        ({"block": (-20.0, 250.0)}, False),
        ({"varied": (0.5, 1.5)}, True),
        ({"varied": (1e9, 1.0)}, False),
        ({"varied": (-5.0, 1.0)}, False),
        ({"varied": (0.5, 1.6)}, False),
    ],
)
def test_what_is_possible(changed, fine):
    task, start = PushT(1, vary=PHYSICS if "varied" in changed else ()), state(**changed)
    assert task.possible(start[None]).tolist() == [fine]
    if not fine:
        with pytest.raises(InputError, match="impossible in PushT"):
            task.reset(start[None], seeds=[0])


@pytest.mark.parametrize("size", [0.7, 2.0, 3.0])
def test_large_agents_start_apart_from_the_block_too(size):
    task, rng = PushT(1, agent_size=size), np.random.default_rng(7)
    room = clearance(np.stack([task.sample_state(rng) for _ in range(200)]))
    assert max(30, 15 * size) < room.min() < max(30, 15 * size) + 10


TURN = np.radians(20)


@pytest.mark.parametrize(
    ("agent", "block", "angle", "reached", "block_reached"),
    [
        ((0, 0), (0, 0), 0.0, True, True),
        ((20, 0), (0, 0), 0.0, True, True),
        ((0, -20.001), (0, 0), 0.0, False, True),  # the agent counts, but not for `block`
        ((0, 0), (0, 20), 0.0, True, True),
        ((0, 0), (20.001, 0), 0.0, False, False),
        ((12, 0), (0, 16), 0.0, True, True),  # together, a vector of four: exactly 20
        ((12, 0), (0, 16.001), 0.0, False, True),
        ((10, 10), (10, -10), 0.0, True, True),
        ((10, 10), (10, -10.01), 0.0, False, True),
        ((0, 0), (0, 0), TURN - 1e-6, True, True),
        ((0, 0), (0, 0), TURN + 1e-6, False, False),
        ((0, 0), (0, 0), -TURN + 1e-6, True, True),
        ((0, 0), (0, 0), -TURN - 1e-6, False, False),
        ((0, 0), (0, 0), np.pi, False, False),
        ((0, 0), (0, 0), 2 * np.pi - 0.1, True, True),
        ((0, 0), (0, 0), -2 * np.pi + TURN + 1e-6, False, False),
        ((12, 0), (0, 16), TURN - 1e-6, True, True),  # both at their limits
    ],
)
@pytest.mark.parametrize("base", [0.0, 0.05, 6.2, 3.1])  # the goal's angle, near the seam and far
def test_success(agent, block, angle, reached, block_reached, base):
    goal = state(agent=(256.0, 128.0), block=(300.0, 256.0), angle=base)
    near = goal + state(agent, block, angle, velocity=(50, -70))  # speed does not matter
    task = PushT(1)
    task.reset(near[None], goal[None])
    assert task.success().tolist() == [reached]
    assert (task.measures(near[None], goal[None])["block"] <= 1).tolist() == [block_reached]
    near[4] %= 2 * np.pi
    assert (task.distance(near[None], goal[None]) <= 1).tolist() == [reached]
    assert task.distance(goal[None], near[None]) == pytest.approx(task.distance(near[None], goal[None]), abs=1e-9)


def test_distance_is_the_larger_of_two_in_their_tolerances():
    goal = state()
    for move, angle, expected in ((30.0, 0.0, 1.5), (30.0, np.radians(25), 1.5), (30.0, np.radians(50), 2.5)):
        there = state(agent=(100 + move, 100), angle=angle)
        assert PushT(1).distance(there[None], goal[None]) == pytest.approx([expected])


def test_pose_is_what_a_picture_can_show():
    turned, fast = REST + state((0, 0), (0, 0), 2 * np.pi), REST + state((0, 0), (0, 0), velocity=(30, 40))
    poses = [PushT(1).sense(one[None])["pose"][0] for one in (REST, turned, fast)]
    assert poses[0].tolist() == [100, 100, 300, 250, np.sin(0.7), np.cos(0.7)]
    assert poses[1] == pytest.approx(poses[0]) and np.array_equal(poses[2], poses[0])
    assert PushT(1).sensors == {"pose": 6}


def test_steer_goes_straight_to_the_targets_agent():
    targets = np.stack([state(agent=(130, 60)), state(agent=(400, 100))])
    assert PushT(2).steer(np.stack([REST, REST]), targets) == pytest.approx(np.array([[0.3, -0.4], [1, 0]]))


# Pictures


def colour_at(image, x, y):
    """The pixel over a point of the arena."""
    size = len(image)
    return image[int(y * size / 512), int(x * size / 512)].tolist()


WHITE, SLATE, BLUE, GREEN = [255] * 3, [119, 136, 153], [65, 105, 225], [144, 238, 144]


@pytest.mark.parametrize("size", [64, 96, 97, 224])
def test_every_shape_is_where_it_should_be(size):
    image = PushT(1, image_size=size).draw(state(agent=(100, 400), block=(300, 200))[None])[0]
    assert image.shape == (size, size, 3) and image.dtype == np.uint8
    for x, y in ((300, 215), (250, 215), (350, 215), (300, 240), (300, 310)):  # the bar, and the stem below it
        assert colour_at(image, x, y) == SLATE
    for x, y in ((300, 185), (225, 215), (375, 215), (270, 260), (330, 260), (300, 335), (256, 480), (40, 40)):
        assert colour_at(image, x, y) == WHITE
    assert colour_at(image, 100, 400) == BLUE
    assert colour_at(image, 100, 376) == colour_at(image, 124, 400) == WHITE
    assert max(colour_at(image, 9, 256)) < 250 < min(colour_at(image, 20, 256))  # the wall's line


@pytest.mark.parametrize("background", [(255, 255, 255), (180, 200, 190)])
def test_walls_are_lines_of_four_units_around_the_arena(background):
    """Their faces lie 245 and 249 from the middle, drawn here one pixel to the unit."""
    task = PushT(1, image_size=512, background_color=background)
    image = task.draw(state(agent=(256, 256), block=(256, 300))[None])[0]
    for line in (image[100], image[:, 400]):
        wall = (line == 211).all(-1)
        assert np.flatnonzero(wall).tolist() == [*range(7, 11), *range(501, 505)]
        assert (line[~wall] == background).all()
    assert (image[9, 9] == 211).all() and (image[5, 5] == background).all()


@pytest.mark.parametrize("quarter", range(4))
def test_the_t_is_turned_clockwise_by_its_angle(quarter):
    """y points down: at a quarter turn the stem points left, at two up, at three right."""
    image = PushT(1).draw(state(agent=(60, 60), block=(256, 256), angle=quarter * np.pi / 2)[None])[0]
    stem = [(0, 100), (-100, 0), (0, -100), (100, 0)]
    bar = [(50, 15), (-15, 50), (-50, -15), (15, -50)]
    for k in range(4):
        assert (colour_at(image, 256 + stem[k][0], 256 + stem[k][1]) == SLATE) == (k == quarter)
    assert colour_at(image, 256 + bar[quarter][0], 256 + bar[quarter][1]) == SLATE


def shown(image, colour):
    """Area of the arena (units squared) that a shape on white covers."""
    share = (255 - image.astype(float)[..., 0]) / (255 - colour[0])
    return share.sum() * (512 / len(image)) ** 2


@pytest.mark.parametrize("size", [64, 96, 224])
@pytest.mark.parametrize("angle", [0.0, 0.3, 4.0])
def test_shapes_cover_their_exact_area(size, angle):
    task = PushT(1, image_size=size, background_color=(255, 255, 255))
    alone = task.draw(state(agent=(-200, -200), block=(256, 230), angle=angle)[None])[0]
    empty = task.draw(state(agent=(-200, -200), block=(-300, -300))[None])[0]
    both = task.draw(state(agent=(90, 90), block=(256, 230), angle=angle)[None])[0]
    wall = shown(empty, SLATE)
    assert shown(alone, SLATE) - wall == pytest.approx(120 * 30 + 90 * 30, rel=0.02)
    agent = shown(both, BLUE) - shown(alone, BLUE)
    assert agent == pytest.approx(np.pi * 15**2, rel=0.04)


def test_the_picture_follows_agent_and_block_below_a_pixel():
    """At 64 pixels a pixel is 8 units; a shift by 2 still shows, and moves the shapes' centre of mass by 2."""
    task = PushT(1, image_size=64)
    empty = task.draw(state(agent=(-200, -200), block=(-300, -300))[None])[0].astype(float)

    def middle(image):
        weight = np.abs(image - empty).sum(-1)
        grid = (np.arange(64) + 0.5) * 8
        return np.array([(weight.sum(0) * grid).sum(), (weight.sum(1) * grid).sum()]) / weight.sum()

    for part, start in (("agent", (200, 210)), ("block", (250, 200))):
        away = {"agent": (-200, -200), "block": (-300, -300)}
        places = [middle(task.draw(state(**away | {part: np.add(start, d)})[None])[0]) for d in ((0, 0), (2, -3))]
        assert places[1] - places[0] == pytest.approx([2, -3], abs=0.35)


def test_the_target_is_drawn_below_everything_and_only_when_asked():
    start = state(agent=(256, 300), block=(60, 400), angle=-np.pi / 2)
    plain, marked = (PushT(1, target=target).draw(start[None])[0] for target in (False, True))
    point = 256 + np.array([-0.5, 0.5]) * 120 * np.sqrt(0.5) * 1.5  # on the stem of a T at (256, 256), turned by 45
    assert colour_at(marked, *point) == GREEN and colour_at(plain, *point) == WHITE
    on_bar = 256 + turn(np.array([40.0, 15.0]), np.pi / 4)
    assert colour_at(marked, *on_bar) == GREEN
    over = state(agent=on_bar, block=(60, 400), angle=-np.pi / 2)
    assert colour_at(PushT(1, target=True).draw(over[None])[0], *on_bar) == BLUE
    assert PushT(1, target=True).rendering != PushT(1).rendering


def test_the_agent_is_drawn_over_the_block():
    assert colour_at(PushT(1).draw(state(agent=(300, 265), block=(300, 250))[None])[0], 300, 265) == BLUE


def test_varied_looks_change_the_picture_and_nothing_else():
    colours = {"agent_color": [10.0, 20, 30], "block_color": [200.0, 100, 0], "background_color": [180.0, 190, 250]}
    task = PushT(1, vary=list(COLOURS))
    varied = np.r_[REST, np.concatenate([colours[name] for name in COLOURS])]
    fixed = PushT(1, **{name: [int(x) for x in value] for name, value in colours.items()})
    assert np.array_equal(task.draw(varied[None]), fixed.draw(REST[None]))
    assert np.array_equal(play(task, varied, [(1, 1)])[1, :7], play(fixed, REST, [(1, 1)])[1])
    larger, usual = PushT(1, vary=["agent_size"]).draw(np.stack([np.r_[REST, 1.5], np.r_[REST, 1.0]]))
    ratio = (larger == BLUE).all(-1).sum() / (usual == BLUE).all(-1).sum()
    assert 1.5**2 * 0.85 < ratio < 1.5**2 * 1.6


def test_varied_factors_are_drawn_within_their_ranges_and_shared_by_the_goal():
    task = PushT(40, vary=[*PHYSICS, *COLOURS], image_size=32)
    task.reset(seeds=range(40))
    states, goals = task.get_state(), task.get_goal()
    assert states.shape == (40, 7 + 2 + 9)
    assert np.array_equal(states[:, 7:], goals[:, 7:]) and not np.array_equal(states[:, :7], goals[:, :7])
    friction, size = states[:, 7], states[:, 8]
    assert 0 <= friction.min() < 0.2 and 0.8 < friction.max() <= 1
    assert 0.7 <= size.min() < 0.85 and 1.35 < size.max() <= 1.5
    assert states[:, 9:].min() >= 0 and states[:, 9:].max() <= 255
    assert len(np.unique(task.render().reshape(40, -1), axis=0)) == 40


@pytest.mark.parametrize("vary", [["agent_color"], ["block_color", "background_color"], list(COLOURS)])
def test_agent_block_and_floor_can_be_told_apart(vary):
    task, rng = PushT(1, vary=vary), np.random.default_rng(8)
    states = np.stack([task.sample_state(rng) for _ in range(200)])
    agent, block, floor = (task.factors.of(states)[name] for name in COLOURS)
    for a, b in ((agent, block), (agent, floor), (block, floor)):
        assert np.abs(a - b).max(1).min() >= 60


def test_colours_that_can_never_be_told_apart_are_said_at_once():
    alike = {"agent_color": (200, 200, 200), "block_color": (180, 180, 180)}
    PushT(1, **alike)  # nothing varies: as you like it
    with pytest.raises(InputError, match=r"\['background_color'\] made no world"):
        PushT(1, vary=["background_color"], **alike)


@pytest.mark.parametrize(
    "bad",
    [
        {"rows": 0},
        {"image_size": 15},
        {"friction": -0.1},
        {"friction": float("nan")},
        {"agent_size": 0.0},
        {"agent_size": 3.1},
        {"vary": ["frictoin"]},
        {"agent_color": (300, 0, 0)},
        {"block_color": (1, 2)},
        {"background_color": (-1, 0, 0)},
    ],
)
def test_settings_that_mean_nothing_are_an_error(bad):
    with pytest.raises(InputError, match=r"push_t needs|did you mean|0\.\.255"):
        PushT(**{"rows": 1} | bad)
