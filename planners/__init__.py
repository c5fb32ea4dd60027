"""Search: minimise a cost over action sequences, within hard limits. Torch only; nothing of ours, no simulator.

With a world model:

    agent = planners.MPC(model, goal=goal_image)              # planner, cost, horizon as the model recommends
    action = agent.act(image)                                 # uint8 image in, action in the robot's units out

With dynamics and a cost of your own, in torch (`examples/plan_your_own_dynamics.py` is this, complete):

    def step(state, action):                                  # (..., D), (..., A) -> (..., D), any leading axes
        return state + 0.05 * action

    def cost(imagined):                                       # -> (B, S); see planners.costs.Imagined
        return imagined.z_BSLD.square().sum(-1).mean(-1)      # states after each action of each candidate

    limits = planners.Limits(low=[-2.0], high=[2.0], rate=[0.5])      # newton-metres, and per step
    agent = planners.MPC(
        planners.from_step(step, limits), cost=cost, planner=planners.MPPI(horizon=30), deadline_s=0.02
    )
    torque = agent.act(np.array([1.0]))                       # numpy or torch in, the same out; within the limits

`BackgroundMPC(..., dt=0.05)` is the same and never makes the loop wait. A cost without dynamics, once:

    planner = planners.CEM(horizon=20)
    state = planner.init(rows=1, action_spec=limits, seeds=[0])
    plan, state = planner.plan(lambda actions_BSHA: actions_BSHA.square().sum((-1, -2)), state)
    plan.actions, plan.cost, plan.failed, plan.timings
    state = state.shift(3, executed=plan.actions[:, :3])      # to plan on three steps later

Planners: CEM, ICEM, CategoricalCEM, MPPI, PredictiveSampling, Adam, LBFGS, and Chain of two. Each is the one loop
of `planners.search` and an `update`. Horizons count environment steps; costs are minimised; `std` is a standard
deviation.
"""

from planners.background import BackgroundMPC
from planners.cem import CEM, ICEM, CategoricalCEM
from planners.chain import Chain
from planners.costs import Consistency, Effort, GoalDistance, Imagined, RateExcess, Smoothness, Sum
from planners.errors import InputError, PlannerFailure
from planners.gradient import LBFGS, Adam, GradientPlanner
from planners.latent import LatentCost, StepDynamics, from_step
from planners.limits import Limits
from planners.mpc import MPC, Latents
from planners.mppi import MPPI
from planners.parts import COSTS, KINDS, PLANNERS, PROPOSALS
from planners.population import Population, Search
from planners.predictive import PredictiveSampling
from planners.proposals import Categorical, Coloured, Kernel, PowerLaw, Proposal, Spline, White
from planners.search import Planner
from planners.types import ActionSpec, Cost, Dynamics, Plan, PlanState, Terms

__lewm__ = True

__all__ = [
    "CEM",
    "COSTS",
    "ICEM",
    "KINDS",
    "LBFGS",
    "MPC",
    "MPPI",
    "PLANNERS",
    "PROPOSALS",
    "ActionSpec",
    "Adam",
    "BackgroundMPC",
    "Categorical",
    "CategoricalCEM",
    "Chain",
    "Coloured",
    "Consistency",
    "Cost",
    "Dynamics",
    "Effort",
    "GoalDistance",
    "GradientPlanner",
    "Imagined",
    "InputError",
    "Kernel",
    "LatentCost",
    "Latents",
    "Limits",
    "Plan",
    "PlanState",
    "Planner",
    "PlannerFailure",
    "Population",
    "PowerLaw",
    "PredictiveSampling",
    "Proposal",
    "RateExcess",
    "Search",
    "Smoothness",
    "Spline",
    "StepDynamics",
    "Sum",
    "Terms",
    "White",
    "from_step",
]
