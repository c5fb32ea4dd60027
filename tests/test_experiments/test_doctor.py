"""`lewm doctor`: what it says where things work, and where they do not."""

from importlib.metadata import requires, version

import imageio.v3 as iio
import pytest

import envs
from envs.rendering import Probe
from experiments import doctor

FIGURES = {(size, quality): 100.0 for size in (64, 224) for quality in ("fast", "standard")}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Three tasks in place of all, and no processes to probe in."""
    chosen = {name: envs.IDS[name] for name in ("lewm/TwoRoom-v0", "lewm/Reacher-v0", "lewm/Walker-v0")}
    monkeypatch.setattr(envs, "IDS", chosen)
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr(doctor, "probe", lambda **_: Probe("egl", FIGURES))
    monkeypatch.setattr(doctor, "requires", lambda name: [line for line in requires(name) if "dmc" in line])


def test_it_says_what_works_and_draws_it(lewm, tmp_path):
    code, text, _ = lewm("doctor", "--out", str(tmp_path / "new" / "here.png"), "--seconds", "0.05")
    assert code == 0
    assert f"mujoco {version('mujoco')}" in text
    assert "egl       64 px: 100 fast, 100 standard   224 px: 100 fast, 100 standard" in text
    speeds = [line.split() for line in text.splitlines() if line.startswith("  lewm/")]
    assert [name for name, _ in speeds] == list(envs.IDS)
    assert all(float(fps.replace(",", "")) > 1 for _, fps in speeds)
    assert text.endswith("nothing to do\n")
    assert iio.imread(tmp_path / "new" / "here.png").std() > 10


def test_without_a_backend_it_says_what_to_install_and_the_base_works(lewm, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "probe", lambda **_: Probe("egl", error="killed by signal 11"))
    code, text, _ = lewm("doctor", "--out", str(tmp_path / "a.png"), "--seconds", "0.01")
    assert code == 0
    assert "egl       does not work: killed by signal 11" in text
    assert "apt install libegl1 libgl1-mesa-dri, or apt install libosmesa6" in text.partition("to do:")[2]


@pytest.mark.parametrize(
    ("wish", "used", "to_do"),
    [(" EGL ", "egl", ""), ("wgl", "wgl", ""), ("glfw", "disabled", "MUJOCO_GL=glfw does not work here: unset it")],
)
def test_the_users_own_backend_is_tried_too(lewm, tmp_path, monkeypatch, wish, used, to_do):
    """Spelled as MuJoCo allows."""
    monkeypatch.setenv("MUJOCO_GL", wish)
    error = {"glfw": "no display"}
    monkeypatch.setattr(doctor, "probe", lambda backend, **_: Probe(backend, FIGURES, error.get(backend)))
    monkeypatch.setattr(doctor, "_try", lambda name, seconds: doctor.Trial(name, error="not tried"))
    _, text, _ = lewm("doctor", "--out", str(tmp_path / "a.png"))
    assert f"used here: {used}\n" in text
    assert to_do in text.partition("to do:")[2] if to_do else "nothing to do" in text


def test_a_missing_extra_is_named_with_its_command(lewm, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda package: None if package == "dm-control" else "1.0")
    code, text, _ = lewm("doctor", "--out", str(tmp_path / "a.png"), "--seconds", "0.01")
    assert code == 0
    assert "needs dm-control" in text
    assert (
        "for the extra dmc: pip install 'dm-control<1.1,>=1.0.50' 'mujoco<4,>=3.17'" in text.partition("to do:")[2]
    )


def test_a_task_that_fails_does_not_hide_the_others(lewm, tmp_path, monkeypatch):
    def broken(spec, rows):
        if spec["name"] == "reacher":
            raise AttributeError("no flex_vertedge")
        return build(spec, rows)

    build = doctor.build_task
    monkeypatch.setattr(doctor, "build_task", broken)
    code, text, _ = lewm("doctor", "--out", str(tmp_path / "a.png"), "--seconds", "0.01")
    assert code == 0
    assert "lewm/Reacher-v0       AttributeError: no flex_vertedge" in text


def test_the_exit_code_is_one_where_the_base_fails(lewm, tmp_path, monkeypatch):
    monkeypatch.setitem(envs.IDS, "lewm/TwoRoom-v0", ("two_room", {"door": 1000.0}))
    assert lewm("doctor", "--out", str(tmp_path / "a.png"), "--seconds", "0.01")[0] == 1


def test_seconds_must_be_positive(lewm):
    code, _, error = lewm("doctor", "--seconds", "0")
    assert code == 2
    assert "must be positive" in error
