"""What importing a package pulls in, and what planning needs."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("gymnasium", "mujoco", "dm_control", "hydra", "omegaconf", "matplotlib")
OURS = ("lewm", "envs", "experiments", "configs")


def run(code):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import lewm, planners", HEAVY),
        ("import planners", (*OURS, *HEAVY, "scipy", "einops", "torch._dynamo", "torch._inductor")),
        (
            "import envs",
            ("torch", "hydra", "omegaconf", "matplotlib", "mujoco", "dm_control", "pymunk", "ogbench"),
        ),
        ("import lewm", ("torch",)),
    ],
)
def test_import_pulls_in_nothing_it_should_not(statement, forbidden):
    done = run(f"{statement}\nimport sys\nprint(*sorted(sys.modules))")
    assert done.returncode == 0, done.stderr
    modules = set(done.stdout.split())
    loaded = modules | {name.split(".")[0] for name in modules}
    assert set(statement.removeprefix("import ").split(", ")) <= loaded
    assert not loaded & set(forbidden)


ISOLATED = """
import sys
import torch, numpy
available = {name.split(".")[0] for name in sys.modules} | set(sys.stdlib_module_names) | {"planners"}

class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in available:
            raise ModuleNotFoundError(f"blocked: {name}")

sys.meta_path.insert(0, Wall())
try:
    import scipy
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("the wall has a hole")

import planners
limits = planners.Limits(low=[-1.0], high=[1.0], rate=[0.5])
dynamics = planners.from_step(lambda state, action: state + action, limits)
cost = planners.Sum(terms=[lambda imagined: imagined.z_BSLD.square().sum(-1).mean(-1), planners.Effort()])
for make in (planners.ICEM, planners.MPPI, planners.PredictiveSampling, planners.Adam, planners.Chain):
    planner = make(horizon=8) if make is not planners.Chain else make(first=planners.CEM(horizon=8))
    agent = planners.MPC(dynamics, cost=cost, planner=planner, replan_every=1)
    state = numpy.array([2.0], numpy.float32)
    for _ in range(3):
        state = state + agent.act(state)
    assert abs(state[0]) < 1.5, (make, state)
with planners.BackgroundMPC(dynamics, cost=cost, planner=planners.CEM(horizon=8), dt=0.01) as agent:
    agent.act(state)
    agent.act(state)
print("planned")
"""


def test_planning_needs_torch_and_numpy_only():
    done = run(ISOLATED)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["planned"]


def test_everything_public_is_exported():
    import planners

    assert sorted(planners.__all__) == sorted(set(planners.__all__))
    for name in planners.__all__:
        assert hasattr(planners, name)
