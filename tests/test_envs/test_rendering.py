"""Renderers against MuJoCo's own, and against each other's life and death; backends, and their errors."""

import gc
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from envs.gl import BACKENDS, backend_name, load_mujoco, renderer_name
from envs.rendering import Renderer, probe
from lewm.types import InputError

MODEL = """
<mujoco>
  <asset><texture type="skybox" builtin="gradient" rgb1="0 1 0" rgb2="0 1 0" width="8" height="8"/></asset>
  <visual><quality shadowsize="512" offsamples="4"/><global offwidth="40" offheight="40"/></visual>
  <worldbody>
    <light pos="1 0 4" dir="-.2 0 -1"/>
    <camera name="above" pos="0 0 5"/>
    <geom type="plane" size="1.5 1.5 .1" rgba=".2 .3 .4 1"/>
    <body pos="0 0 .8"><joint type="slide" axis="1 0 0"/><geom type="box" size=".3 .3 .3" rgba=".9 .6 .1 1"/></body>
  </worldbody>
</mujoco>"""


@pytest.fixture(scope="module")
def mj():
    return load_mujoco()


@pytest.fixture
def scene(mj):
    """A model and its data, the box a little to the right."""
    model = mj.MjModel.from_xml_string(MODEL)
    return model, at(mj, model, 0.5)


def at(mj, model, x):
    data = mj.MjData(model)
    data.qpos[0] = x
    mj.mj_forward(model, data)
    return data


def box(picture):
    """Which pixels are the box's."""
    return picture[..., 0].astype(int) - picture[..., 2] > 60


@pytest.mark.parametrize("size", [(64, 64), (96, 96), (224, 224), (33, 57), (1, 1), (7, 300)])
@pytest.mark.parametrize("quality", ["fast", "standard"])
def test_the_picture_has_the_asked_size_and_shows_the_state(mj, scene, size, quality):
    model, data = scene
    renderer = Renderer(model, *size, quality=quality, camera="above")
    picture = renderer.draw(data)
    assert picture.shape == (*size, 3)
    assert picture.dtype == np.uint8
    if min(size) > 30:
        assert picture.std() > 10
        left = renderer.draw(at(mj, model, -0.5))
        columns = [np.nonzero(box(one))[1].mean() for one in (left, picture)]
        assert columns[0] < size[1] / 2 - 1
        assert columns[1] > size[1] / 2 + 1
    renderer.close()


def test_standard_quality_is_the_picture_of_mujocos_own_renderer(mj, scene):
    model, data = scene
    picture = Renderer(model, 37, 40, quality="standard", camera="above").draw(data)
    with mj.Renderer(model, 37, 40) as reference:
        reference.update_scene(data, "above")
        assert np.array_equal(picture, reference.render())


def test_fast_quality_leaves_out_shadow_and_sky(scene):
    model, data = scene
    fast, standard = (
        Renderer(model, 80, 80, quality=quality, camera="above").draw(data) for quality in ("fast", "standard")
    )
    assert (fast[0, 0] == 0).all()
    assert standard[0, 0].tolist() == [0, 255, 0]
    brightness = [picture[16:64, 16:64].sum(2) for picture in (fast, standard)]
    assert 0.02 < (brightness[1] < 0.6 * brightness[0]).mean() < 0.5  # the shadow, on the floor


def test_drawing_leaves_the_model_alone(scene):
    model, data = scene
    Renderer(model, 64, 64).draw(data)
    assert (model.vis.global_.offwidth, model.vis.global_.offheight) == (40, 40)
    assert (model.vis.quality.shadowsize, model.vis.quality.offsamples) == (512, 4)


def test_pictures_handed_out_are_copies(mj, scene):
    model, data = scene
    renderer = Renderer(model, 32, 32)
    first = renderer.draw(data)
    kept = first.copy()
    renderer.draw(at(mj, model, -1.0))
    assert np.array_equal(first, kept)


def test_renderers_outlive_each_other(mj, scene):
    model, data = scene
    survivor = Renderer(model, 48, 48)
    expected = survivor.draw(data)
    others = [Renderer(model, 40 + k, 48) for k in range(10)]
    for one in others:
        one.draw(data)
    for one in others[:5]:
        one.close()
    assert np.array_equal(survivor.draw(data), expected)
    del others[5:], one
    gc.collect()
    assert np.array_equal(survivor.draw(data), expected)
    reborn = others[0].draw(data)
    assert np.array_equal(reborn, Renderer(model, 40, 48).draw(data))
    survivor.close()
    assert np.array_equal(others[0].draw(data), reborn)


def test_threads_may_draw_at_once(scene):
    model, data = scene
    expected = Renderer(model, 32, 32).draw(data)
    same = []

    def draw():
        renderer = Renderer(model, 32, 32)
        same.extend(np.array_equal(renderer.draw(data), expected) for _ in range(20))

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert same == [True] * 80


def test_facts_say_what_decides_the_look(mj, scene):
    facts = Renderer(scene[0], 8, 8, quality="standard").facts
    assert facts == {"backend": backend_name(), "quality": "standard", "mujoco": mj.__version__}


def test_what_draws_has_a_name_once_it_has_drawn(scene):
    assert run("from envs.gl import renderer_name\nassert renderer_name() is None") == (0, "")
    Renderer(scene[0], 8, 8).draw(scene[1])
    assert len(renderer_name()) > 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quality": "fats"}, "did you mean 'fast'"),
        ({"camera": "abov"}, "did you mean 'above'"),
        ({"camera": 1}, "1 cameras, got number 1"),
        ({"height": 0}, "at least 1, got 0 and 8"),
    ],
)
def test_what_cannot_be_drawn_is_an_error(scene, options, message):
    with pytest.raises(InputError, match=message):
        Renderer(scene[0], **{"height": 8, "width": 8} | options)


@pytest.mark.parametrize("backend", BACKENDS)
def test_both_backends_work_where_their_packages_are(backend):
    found = probe(backend=backend, sizes=(16,), qualities=("fast", "standard"))
    assert found.error is None
    assert found.works
    assert found.backend == backend
    assert found.fps[16, "fast"] > 1
    assert found.fps[16, "standard"] > 1


@pytest.mark.parametrize(
    ("backend", "message"),
    [("bogus", "invalid value.*libegl1.*libosmesa6"), ("off", "without a working GL backend")],
)
def test_a_probe_reports_what_is_wrong(backend, message):
    found = probe(backend=backend)
    assert not found.works
    assert found.fps == {}
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(found.error)


def test_a_probe_gives_up_in_time():
    assert probe(0.01).error == "no picture within 0.01 s"


def run(code, **variables):
    """Exit code and last line of stderr of a process that begins with the backend unchosen."""
    env = {name: value for name, value in os.environ.items() if name not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    env |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | variables
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    return done.returncode, (done.stderr.splitlines() or [""])[-1]


@pytest.mark.parametrize(
    ("before", "variables", "message"),
    [
        ("", {"MUJOCO_GL": "bogus"}, "InputError: MUJOCO_GL=bogus does not work here"),
        (
            "import sys; sys.modules['mujoco'] = None",
            {},
            "the package mujoco: pip install 'dm-control<1.1,>=1.0.50' 'mujoco<4,>=3.17'",
        ),
        ("", {"PYOPENGL_PLATFORM": "glx"}, "`apt install libegl1 libgl1-mesa-dri` or `apt install libosmesa6`"),
    ],
    ids=["unknown backend", "no package", "no library"],
)
def test_what_is_missing_is_named(before, variables, message):
    code, error = run(f"{before}\nfrom envs.gl import load_mujoco\nload_mujoco()", **variables)
    assert code == 1
    assert message in error


FOREIGN = """
import gc
import numpy as np
from envs.gl import load_mujoco
from envs.rendering import Renderer

mj = load_mujoco()
model = mj.MjModel.from_xml_string('''{model}''')
data = mj.MjData(model)
mj.mj_forward(model, data)
ours = Renderer(model, 40, 40, quality="standard", camera="above")
expected = ours.draw(data)
foreign = [mj.Renderer(model, 40, 40) for _ in range(3)]
for one in foreign:
    one.update_scene(data, "above")
    one.render()
ours.draw(data)
foreign[0].close()
assert np.array_equal(ours.draw(data), expected)
del one, foreign[0:2]
gc.collect()
assert np.array_equal(ours.draw(data), expected)
ours.close()
assert np.array_equal(foreign[0].render(), expected)
foreign[0].close()
"""


def test_foreign_renderers_do_no_harm_and_come_to_none():
    """MuJoCo's own free their GL objects in whichever context is current: it must not be ours.

    In a process of its own, where both sides' objects have the same names.
    """
    assert run(FOREIGN.replace("{model}", MODEL)) == (0, "")


FORKS = """
import os
from envs import Reacher
from envs.gl import shared
from lewm.types import InputError

task = Reacher(1)
task.reset(seeds=[0])
assert not shared.alive  # nothing drawn yet: workers may still be forked
task.render()
assert shared.alive
if os.fork() == 0:
    try:
        task.render()
    except InputError as error:
        os._exit(7 if "forkserver" in str(error) else 1)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
"""


def test_gl_is_touched_by_the_first_picture_only_and_not_after_a_fork():
    assert run(FORKS) == (0, "")
