"""The console script: verbs, help, and one line for every mistake."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def assert_one_line(result: tuple[int, str, str], *words: str) -> None:
    code, _, err = result
    assert code == 2
    assert err.startswith("error: ") and err.count("\n") == 1, err
    for word in words:
        assert word in err


def test_help_lists_every_verb_and_teaches_settings(lewm):
    code, out, _ = lewm("--help")
    assert code == 0
    for verb in ("collect", "train", "pretrain", "evaluate", "diagnose", "demo", "ablation", "report", "import"):
        assert verb in out
    code, out, _ = lewm("train", "--help")
    assert code == 0
    for word in ("lewm train data=data/two-room", "validation: 0.1", "model=lewm | small", "planner=adam |"):
        assert word in out


def test_cfg_job_prints_the_configuration_and_runs_nothing(lewm, tmp_path):
    code, out, _ = lewm("collect", f"out={tmp_path}/set", "env.door=40", "--cfg", "job")
    assert code == 0
    assert "door: 40" in out and "name: two_room" in out and "name: mixed" in out
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["colect"], ["unknown verb", "'collect'"]),
        (["collect", "env=two_rom", "out=x"], ["unknown env 'two_rom'", "did you mean 'two_room'?"]),
        (["collect", "policy=mixd", "out=x"], ["unknown policy", "'mixed'"]),
        (["collect", "episods=3", "out=x"], ["unknown setting 'episods'", "did you mean 'episodes'?"]),
        (["collect", "env.dor=3", "out=x"], ["unknown setting 'env.dor'", "did you mean 'door'?"]),
        (["train", "model/encoder=vitt", "data=x", "out=y"], ["unknown model/encoder", "'vit'"]),
        (["collect", "model=small", "out=x"], ["lewm collect has no choice 'model'", "env, executor, policy"]),
        (["demo", "model=small"], ["no choice 'model'", "model@train.model"]),
        (["evaluate", "run=x", "env.door=3"], ["'env.door'", "choose env=... first"]),
        (["collect", "out=x", "episodes=null"], ["'episodes' must be a whole number"]),
        (["collect", "out=x", "seed=-1"], ["seed must be at least 0"]),
        (["train", "data=x", "out=y", "model.encoder.channels=[a]"], ["model.encoder.channels", "got 'a'"]),
        (["train", "data=x", "out=y", "threads=0"], ["threads must be at least 1"]),
        (["demo", "train.trainer.stps=1"], ["unknown setting 'train.trainer.stps'", "'steps'"]),
        (["collect", "episodes=many", "out=x"], ["episodes", "whole number", "many"]),
        (["train", "data=x", "out=y", "trainer.steps=1.5"], ["trainer.steps", "whole number"]),
        (["collect"], ["out=... must be given"]),
        (["evaluate"], ["run=... must be given"]),  # though `out` says the same as `run`
        (["ablation", "out=x", "run=y", "variants=[smmw]"], ["unknown variant 'smmw'", "did you mean 'smwm'?"]),
        (["collect", "runs/x"], ["'runs/x' is not key=value"]),
        (["collect", "out=[", "env=two_room"], ["out=["]),
        (["collect", "plugins=[no_such_package]", "out=x"], ["no_such_package", "pip install"]),
        (["collect", "out=x", "episodes=0"], ["at least 1"]),
        (["collect", "out=x", "env.door=70"], ["door", "70"]),
        (["train", "data=nowhere", "out=y"], ["nowhere is not a data set", "lewm collect"]),
        (["evaluate", "run=nowhere"], ["no checkpoint at nowhere"]),
        (["report", "nowhere"], ["nowhere/summary.json does not exist"]),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing_behind(lewm, monkeypatch, tmp_path, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert_one_line(lewm(*arguments), *words)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_another_run_is_refused_untouched(lewm, tiny, tiny_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    before = snapshot(run)
    assert_one_line(lewm("collect", *tiny["collect"], f"out={run}/data", "seed=1"), "another data set", "out=")
    other = [*tiny["train"], f"data={run}/data", f"out={run}"]
    assert_one_line(
        lewm("train", *other, "trainer.learning_rate=0.5"), "another train run", "trainer.learning_rate"
    )
    assert_one_line(lewm("evaluate", *tiny["evaluate"], f"run={run}", "budget=3"), "another evaluate run", "budget")
    assert_one_line(lewm("collect", f"out={run}/checkpoint"), "not a data set")
    assert snapshot(run) == before


@pytest.mark.parametrize("name", ["metrics.jsonl", "training_state.pt", "checkpoint/precious"])
def test_a_folder_of_something_else_is_refused_untouched(lewm, tiny, tiny_run, tmp_path, name):
    path = tmp_path / "theirs" / name
    path.parent.mkdir(parents=True)
    path.write_text("not ours")
    result = lewm("train", *tiny["train"], f"data={tiny_run}/data", f"out={tmp_path}/theirs")
    assert_one_line(result, "already holds", name.partition("/")[0])
    assert snapshot(tmp_path) == {f"theirs/{name}": b"not ours"}


def test_a_second_process_is_kept_out(lewm, tiny, tiny_run, tmp_path):
    from filelock import FileLock

    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run/.lock"):
        result = lewm("train", *tiny["train"], f"data={tiny_run}/data", f"out={tmp_path}/run")
    assert_one_line(result, "another lewm process is writing")


def test_damaged_bytes_are_found_before_training(lewm, tiny, tiny_run, tmp_path):
    shutil.copytree(tiny_run / "data", tmp_path / "data")
    path = tmp_path / "data/shards/w0000-0/state.bin"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    result = lewm("train", *tiny["train"], f"data={tmp_path}/data", f"out={tmp_path}/run")
    assert_one_line(result, "is damaged", "episode 0", "'state'")


def test_images_and_actions_that_do_not_fit(lewm, tiny, tiny_run, tmp_path):
    data = f"data={tiny_run}/data"
    assert_one_line(lewm("train", data, f"out={tmp_path}/r", "model=lewm"), "(64, 64, 3)", "(224, 224, 3)")
    wrong_size = ["env=two_room", "env.image_size=32"]
    result = lewm("evaluate", *tiny["evaluate"], *wrong_size, f"run={tiny_run}", f"out={tmp_path}/e")
    assert_one_line(result, "(64, 64, 3)", "(32, 32, 3)", "env.image_size=64")


def test_damaged_data_sets(lewm, tiny, tiny_run, tmp_path):
    def broken(name: str) -> Path:
        shutil.copytree(tiny_run / "data", tmp_path / name)
        return tmp_path / name

    def train(data: Path) -> tuple[int, str, str]:
        return lewm("train", *tiny["train"], f"data={data}", f"out={tmp_path}/r")

    empty = broken("empty")
    (empty / "episodes-w0000.jsonl").write_text("")
    assert_one_line(train(empty), "no committed episode")
    short = broken("short")
    pixels = short / "shards/w0000-0/pixels.bin"
    pixels.write_bytes(pixels.read_bytes()[:-10])
    assert_one_line(train(short), "pixels.bin is cut short", "episode 23")
    newer = broken("newer")
    info = json.loads((newer / "dataset.json").read_text())
    (newer / "dataset.json").write_text(json.dumps(info | {"version": 99}))
    assert_one_line(train(newer), "version 99")
    assert not (tmp_path / "r").exists()


def test_a_checkpoint_that_misses_a_tensor(lewm, tiny, tiny_run, tmp_path):
    shutil.copytree(tiny_run / "checkpoint", tmp_path / "checkpoint")
    weights = load_file(tmp_path / "checkpoint/model.safetensors")
    weights.pop("predictor.out.bias")
    save_file(weights, tmp_path / "checkpoint/model.safetensors")
    assert_one_line(
        lewm("evaluate", *tiny["evaluate"], f"run={tmp_path}"), "missing tensors ['predictor.out.bias']"
    )


def test_no_space_is_said_and_loses_nothing(lewm, tiny, monkeypatch, tmp_path):
    first = [*tiny["collect"], f"out={tmp_path}/set", "rows=12"]
    real, log, committed = os.fsync, tmp_path / "set/episodes-w0000.jsonl", []

    def full(descriptor: int) -> None:
        if committed:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)
        if log.exists() and log.stat().st_size:  # that was the log's own: one commit got through
            committed.append(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    assert_one_line(lewm("collect", *first), "no space left", "run the same again")
    monkeypatch.setattr(os, "fsync", real)
    from lewm.data import EpisodeReader

    assert len(EpisodeReader(tmp_path / "set")) == 12
    assert lewm("collect", *first)[0] == 0
    assert not list(EpisodeReader(tmp_path / "set").verify())
    assert len(EpisodeReader(tmp_path / "set")) == 24


def test_multirun_sweeps_seeds(lewm, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = lewm("collect", "-m", "episodes=2", "steps=5", f"out={tmp_path}/set-${{seed}}", "seed=3,4")
    assert code == 0, err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set-3", "set-4"]


def test_somebody_elses_package_is_noticed(tmp_path):
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs/__init__.py").write_text("")
    code = "import sys; sys.argv = ['lewm', '--help']; from experiments.cli import main; main()"
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(tmp_path), str(root)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "package 'envs'" in done.stderr and "is not ours" in done.stderr
