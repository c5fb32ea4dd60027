"""`lewm diagnose` on a tiny run: its files, its table, and what it refuses."""

import json
import math

import imageio.v3 as iio
import pytest
import torch

from experiments import config
from experiments.collect import collect
from experiments.diagnose import diagnose
from experiments.diagnose_page import table
from lewm.data import EpisodeReader, split_episodes
from lewm.diagnosis import RolloutError
from lewm.types import InputError


def compose(run, *overrides):
    return config.compose("diagnose", [f"run={run}", "frames=120", "horizon=3", "threads=1", *overrides])


def test_a_run_is_diagnosed_on_its_own_held_out_episodes(tiny_run, tmp_path, capsys):
    found = diagnose(compose(tiny_run, f"out={tmp_path}", "symmetries.flip_x=[-1,1]"))
    shown = capsys.readouterr().out
    written = json.loads((tmp_path / "diagnosis.json").read_text())
    reader = EpisodeReader(tiny_run / "data")
    training, held = split_episodes(reader, 0.1)
    assert written["episodes"] == [len(training), len(held)] and written["data"] == reader.fingerprint
    assert written["truth_column"] == "state" and len(written["truth"]["linear"]) == 2
    assert written["rollout"]["relative"] == found.rollout.relative and len(found.rollout.relative) == 3
    assert written["surprises"].keys() == {"teleport", "colour"} and written["equivariance"].keys() == {"flip_x"}
    for name in ("effective rank", "two-NN dimension", "rollout error, 3 blocks", "equivariance, flip_x"):
        assert name in shown
    assert iio.imread(tmp_path / "diagnosis.png").std() > 10


def test_it_says_the_same_twice(tiny_run, tmp_path):
    first, again = (diagnose(compose(tiny_run, f"out={tmp_path}/{k}")) for k in range(2))
    texts = [(tmp_path / str(k) / "diagnosis.json").read_text() for k in range(2)]
    assert first.rollout == again.rollout and texts[0] == texts[1]


def test_another_data_set_counts_as_unseen(compose_collect, tiny_run, tmp_path):
    collect(compose_collect(f"out={tmp_path}/other", "seed=5"))
    diagnose(compose(tiny_run, f"out={tmp_path}/out", f"data={tmp_path}/other"))
    written = json.loads((tmp_path / "out/diagnosis.json").read_text())
    assert sum(written["episodes"]) == 24 and min(written["episodes"]) > 5


@pytest.fixture
def compose_collect(tiny):
    return lambda *overrides: config.compose("collect", [*tiny["collect"], *overrides])


def test_what_it_refuses(compose_collect, tiny_run, tmp_path):
    with pytest.raises(InputError, match=r"no train\.json"):
        diagnose(compose(tiny_run / "checkpoint", f"out={tmp_path}"))
    with pytest.raises(InputError, match="is a checkpoint"):
        diagnose(compose(tiny_run / "checkpoint", f"data={tiny_run}/data"))
    with pytest.raises(InputError, match="frames must be at least 100"):
        diagnose(compose(tiny_run, "frames=5"))
    with pytest.raises(InputError, match="did you mean 'flip_x'"):
        compose(tiny_run, "symmetries.flip_z=[1,1]")
    collect(compose_collect(f"out={tmp_path}/large", "env.image_size=32", "episodes=4"))
    with pytest.raises(InputError, match=r"images of shape \(64, 64, 3\)"):
        diagnose(compose(tiny_run, f"out={tmp_path}", f"data={tmp_path}/large"))
    assert not (tmp_path / "diagnosis.json").exists()


def test_the_table_marks_what_is_not_healthy(tiny_run, tmp_path):
    from dataclasses import replace

    found = diagnose(compose(tiny_run, f"out={tmp_path}"))
    sick = replace(
        found,
        health=replace(found.health, std=0.01, effective_rank=1.2, two_nn=math.nan),
        rollout=RolloutError([1.0] * 3, [1.0] * 3, [1.0] * 3),
        truth=None,
    )
    marked = [line for line in table(sick, 8, dict.fromkeys(found.surprises, 0.5)).splitlines() if "  ! " in line]
    names = " ".join(marked)
    for name in ("latent std", "effective rank", "rollout error, 1 block", "action gap", "surprise, teleport"):
        assert name in names
    assert "collapsed" in names and "linear probe" not in table(sick, 8, dict.fromkeys(found.surprises, 0.5))
    assert torch.isfinite(torch.tensor(found.rollout.relative)).all()
