"""Training from the command's side: resume, what the checkpoint remembers, models of every size."""

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import lewm
from experiments import train as module
from experiments.train import train
from lewm import checkpoint
from lewm.data import EpisodeReader, split_episodes
from lewm.types import InputError


def weights(run: Path) -> dict[str, torch.Tensor]:
    return lewm.load(run).state_dict()


def test_an_interrupted_run_ends_with_the_same_weights(compose, tiny_run, tmp_path, monkeypatch):
    config = compose("train", f"data={tiny_run}/data", f"out={tmp_path}/run")

    class Cut(Exception):
        pass

    class Bar(nullcontext):
        n = 0

        def update(self, count):
            self.n += count
            if self.n == 3:
                raise Cut

        def set_postfix_str(self, text):
            pass

    real = module.progress
    monkeypatch.setattr(module, "progress", lambda *a: Bar() if a[1] == "train" else real(*a))
    Bar.__enter__ = lambda self: self
    with pytest.raises(Cut):
        train(config)
    assert not (tmp_path / "run/checkpoint").exists()
    monkeypatch.undo()
    train(config)
    mine, reference = weights(tmp_path / "run"), weights(tiny_run)
    assert all(torch.equal(mine[name], reference[name]) for name in reference)
    assert (tmp_path / "run/metrics.jsonl").read_text() == (tiny_run / "metrics.jsonl").read_text()


def test_a_finished_run_is_left_alone(compose, tiny_run, capsys):
    before = (tiny_run / "checkpoint/model.safetensors").stat().st_mtime_ns
    train(compose("train", f"data={tiny_run}/data", f"out={tiny_run}"))
    assert "already done" in capsys.readouterr().out
    assert (tiny_run / "checkpoint/model.safetensors").stat().st_mtime_ns == before


def test_the_checkpoint_knows_where_it_came_from(tiny_run):
    facts = checkpoint.provenance(tiny_run)
    assert facts["data"]["fingerprint"] == EpisodeReader(tiny_run / "data").fingerprint
    assert facts["data"]["source"]["env"]["name"] == "two_room"
    assert facts["steps"] == 6 and len(facts["probe_r2"]) == 2
    assert lewm.load(tiny_run).recommendation["planner"]["samples"] == 8


def test_metrics_tell_loss_and_health(tiny_run):
    lines = [json.loads(line) for line in (tiny_run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    for line in lines:
        assert line["loss"] == pytest.approx(line["prediction"] + 6.4 * line["regularisation"], rel=1e-5)
        assert 1 <= line["effective_rank"] <= 8


def test_a_transformer_with_history_trains_on_padded_windows(compose, tiny_run, tmp_path):
    overrides = ["model/predictor=adaln_transformer", "model.predictor.depth=1", "model.predictor.heads=2"]
    config = compose("train", f"data={tiny_run}/data", f"out={tmp_path}/run", *overrides, without="predictor.width")
    train(config)
    assert lewm.load(tmp_path / "run").history == 3


@pytest.mark.parametrize("mistake", ["planner.horizon=12", "replan_every=45", "planner.elites=9"])
def test_a_planner_that_cannot_work_is_refused_before_training(compose, tiny_run, tmp_path, mistake):
    with pytest.raises(ValueError, match=r"horizon|elites"):
        train(compose("train", f"data={tiny_run}/data", f"out={tmp_path}/run", mistake))
    assert not (tmp_path / "run").exists()


def test_an_unknown_trainer_setting_reaches_the_registry(compose, tiny_run, tmp_path):
    config = compose("train", f"data={tiny_run}/data", f"out={tmp_path}/run")
    config["trainer"]["stepps"] = 3
    with pytest.raises(InputError, match="did you mean 'steps'"):
        train(config)


@pytest.mark.slow
def test_who_reads_the_data_is_measured_and_said(compose, tiny_run, tmp_path, capsys):
    train(compose("train", f"data={tiny_run}/data", f"out={tmp_path / 'auto'}", "trainer.workers=auto"))
    assert "data is read by" in capsys.readouterr().out
    train(compose("train", f"data={tiny_run}/data", f"out={tmp_path / 'thread'}"))
    assert "data is read by" not in capsys.readouterr().out
    weights = [load_file(tmp_path / name / "checkpoint/model.safetensors") for name in ("auto", "thread")]
    assert all((weights[0][key] == weights[1][key]).all() for key in weights[0])


@pytest.mark.parametrize(("still", "expected"), [([1], 1), ([0, 1], None)])
def test_axes_that_never_change_are_left_out_of_the_probe(tiny_run, monkeypatch, still, expected):
    """NaN is no JSON, and would be the worst axis of any model."""
    reader, real = EpisodeReader(tiny_run / "data"), EpisodeReader.gather

    def gather(self, name, *where):
        rows = real(self, name, *where)
        if name == "state":
            rows[:, still] = 0.3
        return rows

    monkeypatch.setattr(EpisodeReader, "gather", gather)
    r2 = module.probe(lewm.load(tiny_run), reader, *split_episodes(reader, 0.1))
    assert r2 == expected or (len(r2) == expected and r2[0] == r2[0])
