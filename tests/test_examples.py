"""The examples do what they say."""

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_pendulum_swings_up_without_a_simulator():
    code = (
        "import runpy, sys; main = runpy.run_path(sys.argv[1])['main']; error = main(); "
        "print(f'{error:.1f}', sorted({'gymnasium', 'mujoco', 'hydra', 'lewm', 'envs'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, EXAMPLES / "plan_your_own_dynamics.py"],
        cwd=EXAMPLES.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    error, loaded = done.stdout.splitlines()[-1].split(" ", 1)
    assert float(error) < 5  # degrees from upright
    assert loaded == "[]"
