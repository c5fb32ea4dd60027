"""Presets are settings as if typed; what the user types wins."""

import pytest
import yaml

from experiments import config
from experiments.presets import ROOT, presets
from lewm import registry
from lewm.data import DatasetInfo
from lewm.types import InputError


def compose(*overrides: str) -> dict:
    return config.compose("collect", ["out=x", *overrides])


@pytest.fixture
def written(monkeypatch, tmp_path):
    """written(env, text) makes the only preset there is, `mine`."""

    def write(env: str, text: str) -> None:
        (tmp_path / "presets" / env).mkdir(parents=True)
        (tmp_path / "presets" / env / "mine.yaml").write_text(text)
        monkeypatch.setattr("experiments.presets.ROOT", tmp_path / "presets")

    return write


@pytest.mark.parametrize("env", [env for env in presets() if env in registry.names("env")])
def test_every_preset_composes_to_what_its_file_says(env):
    for name in presets()[env]:
        text = (ROOT / env / f"{name}.yaml").read_text()
        said, composed = yaml.safe_load(text), compose(f"env={env}", f"preset={name}")
        assert composed["preset"] == name and composed["env"]["name"] == env
        for key, value in said.items():
            assert composed[key] == ({**composed[key], **value} if isinstance(value, dict) else value)
        registry.build("policy", composed["policy"])
        assert text.startswith("# ")  # it says why


@pytest.mark.slow
def test_two_room_standard_is_what_lewm_collect_does_anyway():
    plain = compose("env=two_room")
    assert compose("env=two_room", "preset=standard") == {**plain, "preset": "standard"}
    assert compose("preset=standard") == {**plain, "preset": "standard"}  # two_room is the default
    assert compose("preset=null") == plain


PRESET = """
# Values of all kinds.
steps: 70
codec: "jpeg:90"
env: {image_size: 32, door: 30}
policy:
  name: mixed
  parts: [ou, {name: straight, rest: 0.5}]
  weights: [3, 1.5]
"""


def test_values_of_all_kinds_come_through(written):
    written("two_room", PRESET)
    composed = compose("preset=mine")
    assert composed["policy"]["parts"] == ["ou", {"name": "straight", "rest": 0.5}]
    assert composed["policy"]["weights"] == [3, 1.5]
    assert (composed["steps"], composed["codec"], composed["env"]["door"]) == (70, "jpeg:90", 30)
    assert registry.build("policy", composed["policy"]).policies[1].rest == 0.5


def test_what_is_typed_wins_wherever_it_stands(written):
    written("two_room", PRESET)
    for order in (1, -1):
        typed = ["preset=mine", "steps=9", "env.door=40", "policy.weights=[1,1]"][::order]
        composed = compose(*typed)
        assert (composed["steps"], composed["env"]["door"], composed["policy"]["weights"]) == (9, 40, [1, 1])
        assert composed["env"]["image_size"] == 32 and len(composed["policy"]["parts"]) == 2


def test_a_policy_of_ones_own_takes_nothing_of_the_presets(written):
    written("two_room", PRESET)
    composed = compose("preset=mine", "policy=ou", "policy.scale=0.2")
    assert composed["policy"] == {"name": "ou", "correlation": 0.9, "scale": 0.2} and composed["steps"] == 70
    assert compose("preset=mine", "policy=mixed")["policy"]["parts"] == ["ou", "goal_directed", "straight"]


def test_a_mistake_in_a_preset_is_an_error(written):
    written("two_room", "epsiodes: 3")
    with pytest.raises(InputError, match=r"'epsiodes'.* did you mean 'episodes'"):
        compose("preset=mine")


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["preset=standrd"], r"env 'two_room' has no preset 'standrd': did you mean 'standard'\?"),
        (["env=wall", "preset=standard"], "env 'wall' has no presets; there are .*two_room: standard"),
        (["env=two_room,wall", "preset=standard"], "one environment at a time"),
    ],
)
def test_a_preset_that_is_not_there_names_those_that_are(typed, words):
    with pytest.raises(InputError, match=words):
        compose(*typed)


def test_no_other_verb_knows_the_word():
    with pytest.raises(InputError, match="unknown setting 'preset' of lewm train"):
        config.compose("train", ["data=x", "out=y", "preset=standard"])


def test_the_demo_collects_by_a_preset(written):
    written("two_room", PRESET)
    composed = config.compose("demo", ["collect.preset=mine", "collect.steps=5"])["collect"]
    assert (composed["steps"], composed["codec"], composed["policy"]["weights"]) == (5, "jpeg:90", [3, 1.5])


@pytest.mark.slow
def test_sweeps_help_and_what_is_recorded(lewm, written, tmp_path, monkeypatch):
    code, out, _ = lewm("collect", "--help")
    assert code == 0 and "env=two_room preset=standard" in out
    written("two_room", PRESET)
    monkeypatch.chdir(tmp_path)
    typed = ["preset=mine", "episodes=2", "steps=5,6", "out=set-${steps}"]
    code, _, err = lewm("collect", "-m", *typed)
    assert code == 0, err
    for steps in (5, 6):
        source = DatasetInfo.read(tmp_path / f"set-{steps}").source
        assert source["steps"] == steps and source["preset"] == "mine" and source["policy"]["weights"] == [3, 1.5]
    code, out, _ = lewm("collect", "preset=mine", "out=x", "--cfg", "job")
    assert code == 0 and "jpeg:90" in out and "image_size: 32" in out
