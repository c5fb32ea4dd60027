"""Search: minimise a cost over action sequences. Torch only; nothing of ours, no simulator, no config files.

    agent = planners.MPC(model, goal=goal_image)        # planner, cost, horizon as the model recommends
    action = agent.act(image)                           # uint8 image in, action in raw units out

Any cost works, learned or not:

    planner = planners.CEM(horizon=20)
    state = planner.init(rows=1, action_spec=spec, seeds=[0])     # spec: anything with low, high, std
    plan, state = planner.plan(lambda actions_BSHA: ..., state)   # -> (B, S), lower is better
"""

from planners.cem import CEM
from planners.costs import GoalDistance
from planners.latent import LatentCost
from planners.mpc import MPC
from planners.parts import COSTS, PLANNERS
from planners.proposals import Coloured
from planners.search import SamplingPlanner
from planners.types import ActionSpec, Cost, Dynamics, InputError, Plan, PlannerFailure, PlanState

__lewm__ = True

__all__ = [
    "CEM",
    "COSTS",
    "MPC",
    "PLANNERS",
    "ActionSpec",
    "Coloured",
    "Cost",
    "Dynamics",
    "GoalDistance",
    "InputError",
    "LatentCost",
    "Plan",
    "PlanState",
    "PlannerFailure",
    "SamplingPlanner",
]
