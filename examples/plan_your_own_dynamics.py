"""Swing a pendulum up with dynamics and a cost of your own: no learned model, no gymnasium, only torch.

    python examples/plan_your_own_dynamics.py

The motor is too weak to lift the arm at once (2 Nm against 9.81 Nm), so the plan has to swing it. Each decision
takes at most 20 ms; the torque and its change from step to step keep hard limits.
"""

import math
import time

import torch
from torch import Tensor

import planners

DT, GRAVITY, LENGTH, MASS = 0.05, 9.81, 1.0, 1.0  # s, m/s^2, m, kg
DEADLINE_S = 0.02


def step(state: Tensor, torque: Tensor) -> Tensor:
    """(angle from upright in rad, speed in rad/s) and torque in Nm -> the state DT later; any leading axes."""
    angle, speed = state.unbind(-1)
    gravity = GRAVITY / LENGTH * angle.sin()
    speed = (speed + DT * (gravity + torque[..., 0] / (MASS * LENGTH**2))).clamp(-8, 8)
    return torch.stack([angle + DT * speed, speed], dim=-1)


def upright(imagined: planners.Imagined) -> Tensor:
    """Cost (B, S) of candidates by the states they lead to, (B, S, H, 2): away from upright, fast, or costly."""
    angle, speed = imagined.z_BSLD.unbind(-1)
    torque = imagined.actions_BSHA[..., 0]
    return (2 * (1 - angle.cos()) + 0.05 * speed.square() + 0.001 * torque.square()).mean(-1)


def main(seconds: float = 10.0) -> float:
    """Swing up; returns how far from upright the arm is at the end, in degrees."""
    torch.set_num_threads(1)  # tiny tensors: a second thread costs more than it gives
    motor = planners.Limits(low=[-2.0], high=[2.0], rate=[1.0])  # Nm, and Nm per step
    agent = planners.MPC(
        planners.from_step(step, motor),
        planner=planners.CEM(horizon=40, correlation=0.9, carry=1, iterations=100, warm_iterations=100),
        cost=upright,
        replan_every=1,
        deadline_s=DEADLINE_S,
        fallback="hold",
    )
    state, slowest = torch.tensor([math.pi, 0.0]), 0.0  # hanging, at rest
    agent.act(state)  # the first call warms torch up
    agent.reset()
    for k in range(round(seconds / DT)):
        begin = time.perf_counter()
        torque = agent.act(state)
        slowest = max(slowest, time.perf_counter() - begin)
        state = step(state, torque)
        if k % 10 == 9:
            angle = math.degrees(math.remainder(state[0].item(), 2 * math.pi))
            print(f"{(k + 1) * DT:4.1f} s  {angle:6.1f} degrees from upright, {torque.item():5.2f} Nm")
    print(f"slowest decision {1e3 * slowest:.1f} ms (deadline {1e3 * DEADLINE_S:.0f} ms)")
    return abs(math.degrees(math.remainder(state[0].item(), 2 * math.pi)))


if __name__ == "__main__":
    error = main()
    print("upright" if error < 5 else f"not upright: {error:.1f} degrees off")
    raise SystemExit(0 if error < 5 else 1)
