"""What importing a package pulls in."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("gymnasium", "mujoco", "dm_control", "hydra", "omegaconf", "matplotlib")


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import lewm, planners", HEAVY),
        ("import planners", ("lewm", "envs", "experiments", "configs")),
        ("import envs", ("torch", "hydra", "omegaconf", "matplotlib")),
        ("import lewm", ("torch",)),
    ],
)
def test_import_pulls_in_nothing_it_should_not(statement, forbidden):
    code = f"{statement}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert set(statement.removeprefix("import ").split(", ")) <= loaded
    assert not loaded & set(forbidden)
