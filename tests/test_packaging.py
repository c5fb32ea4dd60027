"""What is shipped, what imports what, and what `import` loads."""

import ast
import importlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("lewm", "envs", "planners", "configs", "experiments")


@pytest.mark.parametrize("name", PACKAGES)
def test_the_packages_are_ours(name):
    module = importlib.import_module(name)
    assert module.__lewm__ is True
    assert Path(module.__file__).is_relative_to(ROOT)


def test_import_rules_hold():
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "0 broken" in done.stdout


def test_the_wheel_holds_the_five_packages_and_their_data(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == set(PACKAGES)
    for data in (
        "configs/train.yaml",
        "configs/demo.yaml",
        "configs/presets/two_room/standard.yaml",
        "configs/manifests/two_room/free-0.json.gz",
        "experiments/report/page.html",
    ):
        assert data in names


def test_every_module_says_what_it_is():
    modules = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert [str(path) for path in modules if not ast.get_docstring(ast.parse(path.read_text()))] == []
