"""Push-T: a disc pushes a T-shaped block to where the goal image shows it, seen from above.

Physics and numbers are those of the published task (diffusion policy, arXiv 2303.04137; LeWM's variant with
relative actions and goals given as states, arXiv 2603.19312): a 512 x 512 arena, 100 physics steps per second on
pymunk, 10 control steps. An action moves the point that a PD controller pulls the agent to, relative to where the
agent is. Blocks have no momentum (all velocity is damped away each physics step) and no friction.

The state is LeWM's `state` column:

    0 1       2 3       4             5 6
    agent xy  block xy  block angle   agent velocity xy     + varied factors

`block xy` is the middle of the T's top edge, in units of the arena, y pointing down. Here a step is a function of
that state alone: the block's last velocity is spent before the step ends, and no contact is remembered from one
control step to the next. The agent's target and the block's centre of gravity stay inside the arena, wherever an
agent, which nothing stops, presses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from envs import raster
from envs.factors import TRIES, Factor, Factors, check_colours
from envs.task import SimulatorTask
from lewm.extras import need
from lewm.registry import register
from lewm.types import InputError

ARENA = 512.0
AGENT_RADIUS = 15.0
INNER, OUTER = 7.0, 504.0  # faces of the walls
BAR, STEM = (0.0, 15.0, 60.0, 15.0), (0.0, 75.0, 15.0, 45.0)  # boxes of the T: centre and half sizes, own frame
OUTLINE = [BAR, (0.0, 60.0, 15.0, 60.0)]  # the same shape of boxes that overlap, so that it has no seam
CENTRE = np.array([0.0, 45.0])  # of gravity, in the T's own frame
REACH = 77.0  # from the centre of gravity to the farthest corner
MOMENT = 3000.0  # of inertia, per unit of mass
REACH_PER_ACTION = 100.0
POSITION_TOLERANCE, ANGLE_TOLERANCE = 20.0, np.pi / 9
INNER_HALF = 249.0  # from the middle to the walls' faces, as drawn
WALL_COLOR = np.array([211, 211, 211], np.float32)
COLOURS = ("agent_color", "block_color", "background_color")
SUBSTEPS, DT, STIFFNESS, DAMPING = 10, 0.01, 100.0, 20.0


@register("env", "push_t")
class PushT(SimulatorTask):
    """`rows` Push-T worlds; see the module docstring. Action: target offset (dx, dy) in hundreds of units.

    Success as published: the distance of agent and block together (a vector of four) is at most 20 units, and the
    block's angle, wrapped, within 20 degrees. `measures` has the `block` alone.

    Args:
        rows: number of independent worlds B.
        image_size: side of the square image in pixels.
        target: draw the published task's green T at its fixed place, for models trained on such images.
        agent_color, block_color, background_color: red, green, blue.
        friction: of block and agent; agent_size: factor on the agent's radius.
        vary: which of these factors are drawn anew for every episode.
    """

    version = 1
    fps = 10
    sensors = MappingProxyType({"pose": 6})
    expert: ClassVar[str] = "push_t_expert"

    def __init__(
        self,
        rows: int,
        *,
        image_size: int = 96,
        target: bool = False,
        agent_color: Sequence[int] = (65, 105, 225),
        block_color: Sequence[int] = (119, 136, 153),
        background_color: Sequence[int] = (255, 255, 255),
        friction: float = 0.0,
        agent_size: float = 1.0,
        vary: Sequence[str] = (),
    ) -> None:
        if rows < 1 or image_size < 16:
            raise InputError(f"push_t needs rows >= 1 and image_size >= 16, got {rows} and {image_size}")
        if not (friction >= 0 and 0 < agent_size <= 3):
            raise InputError(f"push_t needs friction >= 0 and 0 < agent_size <= 3, got {friction} and {agent_size}")
        check_colours(agent_color, block_color, background_color)
        self.factors = Factors(
            {
                "agent_color": Factor(tuple(agent_color), (0, 0, 0), (200, 200, 255)),
                "block_color": Factor(tuple(block_color), (0, 0, 0), (200, 255, 200)),
                "background_color": Factor(tuple(background_color), (160, 160, 160), (255, 255, 255)),
                "friction": Factor(friction, 0.0, 1.0),
                "agent_size": Factor(agent_size, 0.7, 1.5),
            },
            vary,
        )
        self.rows, self.target = rows, target
        self.low, self.high = np.full(2, -1, np.float32), np.full(2, 1, np.float32)
        self.image_shape = (image_size, image_size, 3)
        self.state_dim = 7 + self.factors.size
        self.rendering: Mapping[str, Any] = {"backend": "numpy", "target": target}
        self._floor = None if "background_color" in vary else _floor(image_size, np.array(background_color))
        self._world: _World | None = None
        self._colours_vary = not set(vary).isdisjoint(COLOURS)
        if self._colours_vary:
            self.sample_state(np.random.default_rng(0))  # an error here and not in the middle of a collection

    def sample_state(self, rng: np.random.Generator) -> np.ndarray:
        """Agent and block anywhere apart from each other, at rest; if colours vary, ones that can be told apart."""
        for _ in range(TRIES):
            agent, centre = rng.uniform(40, ARENA - 40, 2), rng.uniform(95, ARENA - 95, 2)
            angle = rng.uniform(0, 2 * np.pi)
            state = np.r_[agent, centre - turn(CENTRE, angle), angle, 0, 0, self.factors.draw(rng)]
            size = self.factors.of(state[None])["agent_size"].item()
            apart = clearance(state[None])[0] > max(2, size) * AGENT_RADIUS
            if apart and (not self._colours_vary or self.factors.distinct(state[None], *COLOURS)[0]):
                return state
        raise InputError(f"{TRIES} draws of {list(self.factors.vary)} made no world: choose other colours")

    def possible(self, states: np.ndarray) -> np.ndarray:
        """Agent and block lie inside the arena, and what varies within its ranges."""
        points = np.stack([states[:, :2], centre_of(states)], axis=1)
        return ((points >= 0) & (points <= ARENA)).all((1, 2)) & self.factors.fits(states)

    def simulate(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        """One control step of ten physics steps."""
        if self._world is None:
            self._world = _World()
        factors = self.factors.of(state[None])
        self._world.shape(float(factors["agent_size"][0, 0]), float(factors["friction"][0, 0]))
        return np.concatenate([self._world.step(state[:7], action), state[7:]])

    def draw_one(self, state: np.ndarray) -> np.ndarray:
        """One image; `draw` makes many at once."""
        return self.draw(state[None])[0]

    def draw(self, states: np.ndarray) -> np.ndarray:
        """Walls, target, block, agent: shapes with antialiased edges, at the asked size."""
        states = np.asarray(states, np.float64)
        size, scale = self.image_shape[0], self.image_shape[0] / ARENA
        factors = self.factors.of(states)
        images = np.empty((len(states), size, size, 3), np.uint8)
        images[:] = _floor(size, factors["background_color"]) if self._floor is None else self._floor
        if self.target:
            _stamp_t(images, np.array([[256.0, 256.0]]), np.array([np.pi / 4]), (144, 238, 144), scale)
        _stamp_t(images, states[:, 2:4], states[:, 4], factors["block_color"], scale)
        radius = AGENT_RADIUS * scale * factors["agent_size"][:, :, None]
        raster.stamp(images, states[:, :2] * scale, radius.max(), raster.disc(radius), factors["agent_color"])
        return images

    def distance(self, states: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """Of agent and block together, and of the angle: the larger of the two, each in its tolerance."""
        return np.maximum(
            np.linalg.norm(states[:, :4] - goals[:, :4], axis=1) / POSITION_TOLERANCE, _turned(states, goals)
        )

    def measures(self, states: np.ndarray, goals: np.ndarray) -> dict[str, np.ndarray]:
        """The `block` alone."""
        apart = np.linalg.norm(states[:, 2:4] - goals[:, 2:4], axis=1) / POSITION_TOLERANCE
        return {"block": np.maximum(apart, _turned(states, goals))}

    def sense(self, states: np.ndarray) -> dict[str, np.ndarray]:
        """`pose`: agent xy, block xy, sine and cosine of its angle."""
        return {"pose": np.column_stack([states[:, :4], np.sin(states[:, 4]), np.cos(states[:, 4])])}

    def steer(self, states: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """The agent straight to where it should be, whatever is in between."""
        return np.clip((targets[:, :2] - states[:, :2]) / REACH_PER_ACTION, -1, 1)


def turn(points: np.ndarray, angle: np.ndarray | float) -> np.ndarray:
    """Points (..., 2) turned by `angle`."""
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = points[..., 0], points[..., 1]
    return np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)


def centre_of(states: np.ndarray) -> np.ndarray:
    """The block's centre of gravity (B, 2)."""
    return states[:, 2:4] + turn(np.broadcast_to(CENTRE, (len(states), 2)), states[:, 4])


def clearance(states: np.ndarray, points: np.ndarray | None = None) -> np.ndarray:
    """Distance (B,) of the agents' centres, or of other `points` (B, 2), to the block; negative inside."""
    offset = (states[:, :2] if points is None else points) - states[:, 2:4]
    sdf = raster.boxes(states[:, 4], OUTLINE, true=True)
    return sdf(offset[:, :1, None], offset[:, 1:, None])[:, 0, 0]


def _turned(states: np.ndarray, goals: np.ndarray) -> np.ndarray:
    difference = np.remainder(states[:, 4] - goals[:, 4] + np.pi, 2 * np.pi) - np.pi
    return np.abs(difference) / ANGLE_TOLERANCE


def _floor(size: int, colours: np.ndarray) -> np.ndarray:
    """Pictures (n, size, size, 3) uint8 of empty arenas with floors of these colours (n, 3), lines for walls."""
    edge = np.abs((np.arange(size) + 0.5) * ARENA / size - ARENA / 2)
    depth = np.maximum(edge[:, None], edge[None])  # how far out a pixel lies
    inside = np.minimum(depth - (INNER_HALF - 4), INNER_HALF - depth) * size / ARENA
    covered = np.clip(0.5 + inside, 0, 1)[..., None].astype(np.float32)
    floor = np.reshape(colours, (-1, 1, 1, 3)).astype(np.float32)
    return (floor + covered * (WALL_COLOR - floor) + 0.5).astype(np.uint8)


def _stamp_t(images: np.ndarray, tops: np.ndarray, angles: np.ndarray, colours: np.ndarray, scale: float) -> None:
    tops, angles = np.broadcast_to(tops, (len(images), 2)), np.broadcast_to(angles, len(images))
    centres = tops + turn(np.broadcast_to(CENTRE, tops.shape), angles)
    parts = [((x - CENTRE[0]) * scale, (y - CENTRE[1]) * scale, w * scale, h * scale) for x, y, w, h in OUTLINE]
    raster.stamp(images, centres * scale, REACH * scale, raster.boxes(angles, parts), colours)


class _World:
    """The bodies of one world; every step happens in a fresh pymunk space.

    A space remembers contacts, and the order in which it solves them depends on its past; bodies and shapes do not.
    """

    def __init__(self) -> None:
        pymunk = self._pymunk = need("pymunk", "pusht")
        ground = pymunk.Body(body_type=pymunk.Body.STATIC)
        thick = 100.0
        low, high = INNER - thick, OUTER + thick
        corners = [(low, low), (high, low), (high, high), (low, high)]
        walls = [
            pymunk.Segment(ground, a, b, thick) for a, b in zip(corners, corners[1:] + corners[:1], strict=True)
        ]
        self.agent = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
        self.block = pymunk.Body(1.0, MOMENT)
        self.block.center_of_gravity = tuple(CENTRE)
        self._still = [ground, *walls, self.agent, self.block]
        self._shapes: list[Any] = []
        self._shaped: tuple[float, float] | None = None

    def shape(self, agent_size: float, friction: float) -> None:
        """Give agent and block their shapes."""
        if self._shaped == (agent_size, friction):
            return
        for shape in self._shapes:
            shape.body = None
        boxes = [[(x - w, y - h), (x + w, y - h), (x + w, y + h), (x - w, y + h)] for x, y, w, h in (BAR, STEM)]
        self._shapes = [self._pymunk.Circle(self.agent, AGENT_RADIUS * agent_size)]
        self._shapes += [self._pymunk.Poly(self.block, corners) for corners in boxes]
        for shape in self._shapes:
            shape.friction = friction
        self._shaped = (agent_size, friction)

    def step(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        """The first seven numbers of the state one control step later."""
        ax, ay, bx, by, angle, vx, vy = state.tolist()
        agent, block = self.agent, self.block
        agent.position, agent.velocity, block.angle = (ax, ay), (0, 0), angle
        block.position = (bx, by)
        block.velocity, block.angular_velocity = (0, 0), 0
        space = self._pymunk.Space()
        space.gravity, space.damping = (0, 0), 0
        space.add(*self._still, *self._shapes)
        tx, ty = np.clip(state[:2] + action * REACH_PER_ACTION, INNER, OUTER).tolist()
        for _ in range(SUBSTEPS):
            vx += (STIFFNESS * (tx - ax) - DAMPING * vx) * DT
            vy += (STIFFNESS * (ty - ay) - DAMPING * vy) * DT
            agent.velocity = (vx, vy)
            space.step(DT)
            ax, ay = ax + vx * DT, ay + vy * DT
        self._pymunk.Body.update_position(block, DT)  # what the last contacts left to move
        space.remove(*self._still, *self._shapes)
        (ax, ay), (bx, by), centre = agent.position, block.position, block.local_to_world(tuple(CENTRE))
        (bx, by) = np.array([bx, by]) + (np.clip(centre, INNER, OUTER) - centre)
        return np.array([ax, ay, bx, by, block.angle % (2 * np.pi), vx, vy])
