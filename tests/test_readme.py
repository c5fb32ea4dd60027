"""The README's commands and code run as written, with tiny settings appended."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import envs  # noqa: F401, registers its tasks
from lewm import registry

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[list[str]]:
    """Every `lewm VERB ...` line of the README's shell blocks, in order."""
    lines = [line for block in blocks("bash") for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line.partition("#")[0]) for line in lines if line.startswith("lewm ")]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("readme")


def run_python(code: str, folder: Path, path: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readme_shows_each_verb():
    assert [command[1] for command in commands()][:4] == ["collect", "train", "evaluate", "report"]


@pytest.mark.slow
def test_commands_then_code(home, tiny, lewm, monkeypatch):
    monkeypatch.chdir(home)
    for _, verb, *arguments in commands():
        if "plugins=[my_package]" in arguments:
            continue  # needs the package: the next test
        code, _, err = lewm(verb, *arguments, *tiny.get(verb, []))
        assert code == 0, err
    assert (home / "runs/two-room/report.html").exists()
    (robot,) = [block for block in blocks("python") if "planners.MPC" in block]
    assert run_python(robot, home).strip() in ("True", "False")


@pytest.mark.slow
def test_an_environment_from_outside_works_from_the_command_line(tiny, tmp_path):
    """The README's own example, installed by pip as somebody else's package."""
    (example,) = [block for block in blocks("python") if "@register" in block]
    (tmp_path / "package").mkdir()
    (tmp_path / "package/my_package.py").write_text(example)
    (tmp_path / "package/pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "my-package"\nversion = "1.0"\n'
        '[tool.hatch.build.targets.wheel]\ninclude = ["my_package.py"]\n'
    )
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", site]
    subprocess.run([*install, tmp_path / "package"], check=True, capture_output=True)

    mine = [arguments for _, _, *arguments in commands() if "plugins=[my_package]" in arguments]
    verbs = [verb for _, verb, *arguments in commands() if "plugins=[my_package]" in arguments]
    assert verbs == ["collect", "train", "evaluate"]
    for verb, arguments in zip(verbs, mine, strict=True):
        argv = ["lewm", verb, *arguments, *tiny[verb]]
        run_python(
            f"import sys; sys.argv = {argv!r}; from experiments.cli import main; main()", tmp_path, str(site)
        )
    summary = (tmp_path / "runs/dot/summary.json").read_text()
    assert '"random_final"' in summary and '"greedy_final"' not in summary
    refused = run_python(
        "import lewm\ntry: lewm.load('runs/dot'); print('loaded')\nexcept lewm.InputError as e: print(e)", tmp_path
    )
    assert refused.strip() == "loaded"  # the environment is not part of the model


def test_a_gymnasium_environment_is_adapted_in_a_few_lines(monkeypatch):
    monkeypatch.setitem(registry._PARTS, "env", dict(registry._PARTS["env"]))
    (example,) = [block for block in blocks("python") if "from_gymnasium" in block]
    exec(example, {})
    task = registry.build("env", {"name": "pusher"}, rows=2)
    task.reset(seeds=[0, 1])
    places = {1 + task.env.model.joint(f"obj_slide{axis}").qposadr[0] for axis in "xy"}  # time comes first
    assert task.render().shape == (2, 64, 64, 3) and places == {8, 9}
    moved = task.get_goal()
    moved[:, 8] += 0.05
    assert task.distance(moved, task.get_goal()).round(6).tolist() == [1, 1]
