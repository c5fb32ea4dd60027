"""`lewm train` from another run's weights, stopped by a scheduler, and under torchrun."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import lewm
from experiments.train import train
from lewm import checkpoint
from lewm.data import EpisodeReader, Windows
from lewm.models import WorldModel
from lewm.types import InputError

ONE_STEP = ["trainer.steps=1", "trainer.learning_rate=1e-9", "trainer.warmup=0"]


def start(compose, tiny_run, out, *overrides):
    data = f"data={tiny_run}/data"
    train(compose("train", data, f"out={out}", f"init={tiny_run}", *ONE_STEP, *overrides, without="trainer.steps"))
    return lewm.load(out), checkpoint.provenance(out)["init"]


def test_a_run_starts_from_another_and_says_so(compose, tiny_run, tmp_path, capsys):
    """What a step of next to no length leaves is what it started from."""
    model, facts = start(compose, tiny_run, tmp_path / "run", "seed=7")
    source = lewm.load(tiny_run)
    for (name, tensor), other in zip(model.named_parameters(), source.parameters(), strict=True):
        torch.testing.assert_close(tensor, other, rtol=0, atol=1e-6, msg=name)
    assert torch.equal(model.action_mean, source.action_mean)
    assert facts["run"] == str(tiny_run) and facts["parts"] == ["all"] and facts["fresh_heads"] == []
    assert len(facts["sha256"]) == 64
    assert f"starts from {tiny_run}: all\n" in capsys.readouterr().out


def test_an_objective_may_bring_new_heads(compose, tiny_run, tmp_path):
    model, facts = start(compose, tiny_run, tmp_path / "run", "objective.auxiliary=[inverse_dynamics]")
    assert facts["fresh_heads"] == list(model.heads) != []


def test_parts_of_another_model(compose, tiny_run, tmp_path):
    other = ["model.action_block=10", "planner.horizon=20"]
    with pytest.raises(InputError, match=r"has another model: .*init_only=\[encoder,projector\]"):
        start(compose, tiny_run, tmp_path / "refused", *other)
    assert not (tmp_path / "refused").exists()
    model, facts = start(compose, tiny_run, tmp_path / "run", *other, "init_only=[encoder,projector]")
    assert facts["parts"] == ["encoder", "projector"]
    torch.testing.assert_close(model.projector[0].weight, lewm.load(tiny_run).projector[0].weight)


def test_a_predictor_learns_on_the_latents_of_a_frozen_encoder(compose, tiny_run, tmp_path):
    """What DINO-WM trains: the prediction error alone, on an encoder that stays as it was made."""
    settings = ["frozen=[encoder,projector]", "objective/regulariser=none", "trainer.learning_rate=1e-2"]
    model, _ = start(compose, tiny_run, tmp_path / "run", *settings)
    source = lewm.load(tiny_run).state_dict()
    changed = {name.partition(".")[0] for name, t in model.state_dict().items() if not torch.equal(t, source[name])}
    assert changed == {"predictor"}
    with pytest.raises(InputError, match="holds another train run \\(frozen is"):
        start(compose, tiny_run, tmp_path / "run", *settings[1:])
    with pytest.raises(InputError, match="no part 'encode' to freeze: did you mean 'encoder'"):
        start(compose, tiny_run, tmp_path / "other", "frozen=encode")


def test_latents_may_be_whitened_for_a_predictor_that_begins_anew(compose, tiny_run, tmp_path):
    """Changes of one block are then equally long in all directions; what would not fit is refused."""
    anew = ["init_only=[encoder,projector]", "objective/regulariser=none"]
    model, _ = start(compose, tiny_run, tmp_path / "run", "frozen=[encoder,projector]", "whiten=1.0", *anew)
    reader = EpisodeReader(tiny_run / "data")
    windows = Windows(reader, np.arange(len(reader)), frames=2, block=model.action_block)
    spreads = []
    for one in (lewm.load(tiny_run), model):
        z = one.encode(torch.from_numpy(windows.batch(np.arange(len(windows))).pixels)).detach()
        spread = torch.linalg.eigvalsh((z[:, 1] - z[:, 0]).T.cov())
        spreads.append((spread[-1] / spread[-3]).item())  # of the largest three, above the floor
    assert spreads[0] > 2 and spreads[1] < 1.5
    for wrong in (anew, ["frozen=[encoder,projector]"], ["frozen=[encoder,projector]", *anew, "whiten=2.0"]):
        with pytest.raises(InputError, match="whiten, from 0 to 1, needs latents that stay"):
            start(compose, tiny_run, tmp_path / "wrong", "whiten=1.0", *wrong)


def test_an_interrupted_run_on_whitened_latents_ends_the_same(compose, tiny_run, tmp_path, monkeypatch):
    """And no frame is encoded twice while it trains."""
    settings = [f"data={tiny_run}/data", f"init={tiny_run}", "init_only=[encoder,projector]", "whiten=0.8"]
    settings += ["frozen=[encoder,projector]", "objective/regulariser=none", "trainer.save_every=1"]
    frames, encode = [], WorldModel.encode

    def count(model, seen):
        frames.append(len(seen["pixels"]) if isinstance(seen, dict) and seen["pixels"].ndim == 4 else 0)
        return encode(model, seen)

    monkeypatch.setattr(WorldModel, "encode", count)
    train(compose("train", *settings, f"out={tmp_path}/whole", without="trainer.save_every"))
    reader = EpisodeReader(tiny_run / "data")
    assert 0 < sum(frames) <= (reader.steps + 1).sum()

    def cut(bar):
        def on_step(step, metrics):
            if step == 3:
                raise KeyboardInterrupt

        return on_step

    again = compose("train", *settings, f"out={tmp_path}/cut", without="trainer.save_every")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("experiments.train.shown", cut)
        train(again)
    assert not (tmp_path / "cut/checkpoint").exists()
    train(again)
    weights, expected = (lewm.load(tmp_path / name).state_dict() for name in ("cut", "whole"))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert checkpoint.provenance(tmp_path / "cut")["whiten"] == 0.8


def test_another_source_is_another_run(compose, tiny_run, tmp_path):
    start(compose, tiny_run, tmp_path / "run")
    source = lewm.load(tiny_run)
    with torch.no_grad():
        source.projector[0].weight.add_(1)
    checkpoint.save(source, tmp_path / "other/checkpoint")
    overrides = [f"out={tmp_path}/run", *ONE_STEP, f"init={tmp_path}/other"]
    with pytest.raises(InputError, match="holds another train run"):
        train(compose("train", f"data={tiny_run}/data", *overrides, without="trainer.steps"))


def command(tiny, tiny_run, out, *launcher):
    settings = ["trainer.steps=60" if "trainer.steps" in o else o for o in tiny["train"]]
    module = ["-m", "experiments.cli", "train", f"data={tiny_run}/data", f"out={out}", *settings]
    return [*(launcher or [sys.executable]), *module]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_scheduler_may_stop_a_run_and_start_it_again(tiny, tiny_run, tmp_path, processes):
    """SIGTERM: exit code 143 (torchrun has its own) and a message; the same command ends with the same weights."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    launcher = torchrun if processes == 2 else []
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    options = {"env": environment, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    subprocess.run(command(tiny, tiny_run, tmp_path / "whole", *launcher), check=True, **options)
    cut = command(tiny, tiny_run, tmp_path / "cut", *launcher)
    with subprocess.Popen(cut, **options) as process:
        while not (tmp_path / "cut/training_state.pt").exists():
            time.sleep(0.01)
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        said = process.communicate()[0]
    assert process.returncode == 143 if processes == 1 else process.returncode != 0
    assert "stopped by SIGTERM after step" in said and "goes on from there" in said
    assert not (tmp_path / "cut/checkpoint").exists()
    subprocess.run(cut, check=True, **options)
    weights, expected = (lewm.load(tmp_path / name).state_dict() for name in ("cut", "whole"))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert checkpoint.provenance(tmp_path / "cut")["processes"] == processes
