"""`lewm diagnose` on a tiny run: its files, its table, and what it refuses."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import imageio.v3 as iio
import pytest

import lewm
from experiments import config
from experiments.diagnose import _check_fits, _episodes, diagnose, record
from experiments.diagnose_page import table
from lewm.data import EpisodeReader, split_episodes
from lewm.diagnosis import RolloutError
from lewm.types import InputError


def compose(run, *overrides):
    return config.compose("diagnose", [f"run={run}", "frames=120", "horizon=3", "threads=1", *overrides])


@pytest.fixture(scope="module")
def diagnosed(tiny_run, tmp_path_factory):
    """What was found, and the folder it was written to."""
    out = tmp_path_factory.mktemp("diagnosed")
    return diagnose(compose(tiny_run, f"out={out}", "symmetries.flip_x=[-1,1]")), out


def test_a_run_is_diagnosed_on_its_own_held_out_episodes(diagnosed, tiny_run):
    found, out = diagnosed
    written = json.loads((out / "diagnosis.json").read_text())
    reader = EpisodeReader(tiny_run / "data")
    training, held = split_episodes(reader, 0.1)
    assert written["episodes"] == [len(training), len(held)] and written["data"] == reader.fingerprint
    assert written["truth_column"] == "state" and len(written["truth"]["linear"]) == 2
    assert written["rollout"]["relative"] == found.rollout.relative and len(found.rollout.relative) == 3
    assert 0 <= written["surprises"]["teleport"]["p"] <= 1 and written["surprises"].keys() == {"teleport", "colour"}
    assert written["equivariance"].keys() == {"flip_x"}
    assert iio.imread(out / "diagnosis.png").std() > 10


def test_an_undefined_number_is_written_as_null(diagnosed):
    sick = replace(diagnosed[0], straightness=math.nan)
    assert record(sick)["straightness"] is None and json.dumps(record(sick), allow_nan=False)


def test_the_table_marks_what_is_not_healthy(diagnosed):
    found, _ = diagnosed
    whole = table(found, 8, dict.fromkeys(found.surprises, 1e-4))
    for name in ("two-NN dimension", "linear probe R2", "rollout error, 3 blocks", "equivariance, flip_x"):
        assert name in whole
    sick = replace(
        found,
        health=replace(found.health, std=0.01, effective_rank=1.2, two_nn=math.nan),
        rollout=RolloutError([1.0] * 3, [1.0] * 3, [1.0] * 3),
        truth=None,
    )
    shown = table(sick, 8, dict.fromkeys(found.surprises, 0.5))
    marked = "\n".join(line for line in shown.splitlines() if line.startswith("  ! "))
    for name in ("latent std", "effective rank", "rollout error, 1 block", "action gap", "surprise, teleport"):
        assert name in marked
    assert "collapsed" in marked and "linear probe" not in shown


def test_all_of_another_data_set_is_unseen_and_split_for_the_probes(tiny_run):
    reader = EpisodeReader(tiny_run / "data")
    fitting, held = _episodes(reader, {"fingerprint": "another", "source": {"of": "elsewhere"}, "validation": 0.1})
    assert sorted([*fitting, *held]) == list(range(len(reader))) and min(len(fitting), len(held)) > 5


def test_what_it_refuses(tiny_run, tmp_path):
    with pytest.raises(InputError, match=r"no train\.json"):
        diagnose(compose(tiny_run / "checkpoint", f"out={tmp_path}"))
    with pytest.raises(InputError, match="is a checkpoint"):
        diagnose(compose(tiny_run / "checkpoint", f"data={tiny_run}/data"))
    with pytest.raises(InputError, match="frames must be at least 100"):
        diagnose(compose(tiny_run, "frames=5"))
    with pytest.raises(InputError, match="did you mean 'flip_"):
        compose(tiny_run, "symmetries.flip_z=[1,1]")
    reader, spec = EpisodeReader(tiny_run / "data"), lewm.load(tiny_run).action_spec
    with pytest.raises(InputError, match=r"images of shape \(32, 32, 3\)"):
        _check_fits(SimpleNamespace(columns=("pixels",), image_shape=(32, 32, 3), action_spec=spec), reader)
    other = SimpleNamespace(columns=("touch",), action_spec=SimpleNamespace(dim=7))
    with pytest.raises(InputError, match="actions of dimension 7"):
        _check_fits(other, reader)
    assert not (tmp_path / "diagnosis.json").exists()
