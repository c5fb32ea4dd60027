"""Where metrics go, and that a continued run leaves no trace of the interruption."""

import csv
import json
import sys
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lewm.registry import build
from lewm.training.loggers import Logs, WandB
from lewm.types import InputError


def logs(run, first=0, extra=(), writes=True):
    return Logs(run, first, extra, {"steps": 9}, writes)


def write(run, steps, **options):
    with logs(run, **options) as log:
        for step in steps:
            log.write(step, {"loss": 1 / step, "rank": float(step)})
        log.sync()


def table(run):
    with (run / "metrics.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_table_holds_what_the_lines_hold(tmp_path):
    write(tmp_path, [3, 6, 9])
    assert lines(tmp_path) == table(tmp_path) == [{"step": k, "loss": 1 / k, "rank": k} for k in (3, 6, 9)]


def test_a_continued_run_leaves_the_same_files(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    write(whole, [3, 6, 9])
    write(parts, [3, 6])
    (parts / "metrics.csv").unlink()
    write(parts, [6, 9], first=3)
    for name in ("metrics.jsonl", "metrics.csv"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()


def test_a_process_that_does_not_write_leaves_nothing(tmp_path):
    write(tmp_path, [1], extra=["tensorboard"], writes=False)
    assert not list(tmp_path.iterdir())


def test_tensorboard_holds_what_the_lines_hold(tmp_path):
    write(tmp_path, [3, 6], extra=["tensorboard"])
    write(tmp_path, [6, 9], first=3, extra=["tensorboard"])
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    scalars = found.Scalars("loss")
    assert [event.step for event in scalars] == [3, 6, 9]
    assert [event.value for event in scalars] == pytest.approx([1 / 3, 1 / 6, 1 / 9])


def test_wandb_is_offline_unless_told_and_keeps_its_id(tmp_path, monkeypatch):
    calls = []
    run = SimpleNamespace(
        log=lambda metrics, step: calls.append((step, metrics)), finish=lambda: calls.append("end")
    )
    stub = SimpleNamespace(init=lambda **options: calls.append(options) or run)
    monkeypatch.setitem(sys.modules, "wandb", stub)
    write(tmp_path, [3], extra=["wandb"])
    options, line, end = calls
    assert line == (3, {"loss": 1 / 3, "rank": 3.0}) and end == "end"
    assert options["mode"] == "offline" and len(options["id"]) == 8 and options["config"] == {"steps": 9}
    write(tmp_path, [6], first=3, extra=[{"name": "wandb", "mode": "online", "project": "mine"}])
    assert calls[3]["id"] == options["id"] and calls[3]["resume"] == "allow" and calls[3]["project"] == "mine"


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_extra_is_named(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=f"needs the package {name}: pip install"):
        logs(tmp_path, extra=[name])


def test_a_trainer_takes_them_by_name_or_with_settings():
    spec = {"name": "default", "loggers": ["tensorboard", {"name": "wandb", "project": "mine"}]}
    assert build("trainer", spec).loggers == ["tensorboard", WandB(project="mine")]
    with pytest.raises(InputError, match="did you mean 'project'"):
        build("trainer", {"name": "default", "loggers": [{"name": "wandb", "projekt": "mine"}]})


def test_an_unknown_logger_is_an_error(tmp_path):
    with pytest.raises(InputError, match="did you mean 'tensorboard'"):
        logs(tmp_path, extra=["tensorbord"])
