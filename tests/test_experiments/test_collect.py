"""Collection resumes, extends, and gives the same data however it is batched."""

import io
import json
import re
import shutil
import subprocess
import sys
from functools import wraps
from pathlib import Path
from time import sleep
from types import SimpleNamespace

import imageio.v3 as iio
import numpy as np
import pytest
from filelock import FileLock
from tqdm import tqdm

from envs import TwoRoom
from experiments.collect import collect, verb, worker
from experiments.data_view import overview_positions
from lewm.data import EpisodeReader
from lewm.types import InputError


@pytest.fixture(autouse=True)
def without_a_sheet(request, monkeypatch):
    """Most tests look at data; the pictures of it take longer than collecting it."""
    if "sheet" not in request.function.__name__:
        monkeypatch.setattr(verb, "save_overview", lambda *_: None)


def fingerprint(folder) -> str:
    return EpisodeReader(folder).fingerprint


def test_batching_changes_nothing(compose, tmp_path):
    config = compose("collect", "out=x")
    for name, rows in (("one", 24), ("many", 5)):
        collect({**config, "out": str(tmp_path / name), "rows": rows})
    assert fingerprint(tmp_path / "one") == fingerprint(tmp_path / "many")


def test_an_interrupted_collection_continues_to_the_same_set(compose, tmp_path, monkeypatch):
    config = compose("collect", f"out={tmp_path / 'cut'}", "rows=10")
    collect({**config, "out": str(tmp_path / "whole")})
    real, batches = worker.envs.record, []

    def interrupted(*args, **kwargs):
        batches.append(args)
        if len(batches) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(worker.envs, "record", interrupted)
    with pytest.raises(KeyboardInterrupt):
        collect(config)
    assert len(EpisodeReader(tmp_path / "cut")) == 10
    monkeypatch.setattr(worker.envs, "record", real)
    collect(config)
    assert fingerprint(tmp_path / "cut") == fingerprint(tmp_path / "whole")


def test_workers_change_nothing(compose, tmp_path):
    config = compose("collect", f"out={tmp_path / 'alone'}")
    collect(config)
    collect({**config, "out": str(tmp_path / "two"), "workers": 2, "rows": 5})
    assert fingerprint(tmp_path / "two") == fingerprint(tmp_path / "alone")
    assert {path.name for path in (tmp_path / "two").glob("*.jsonl")} == {
        "episodes-w0000.jsonl",
        "episodes-w0001.jsonl",
    }


def test_more_episodes_extend_the_set(compose, tmp_path):
    config = compose("collect", f"out={tmp_path / 'set'}", "episodes=4")
    collect(config)
    collect({**config, "episodes": 9})
    collect({**config, "episodes": 9, "out": str(tmp_path / "at-once")})
    assert fingerprint(tmp_path / "set") == fingerprint(tmp_path / "at-once")


def test_the_seed_makes_another_set(compose, tmp_path):
    config = compose("collect", "out=x")
    for seed in (0, 1):
        collect({**config, "out": str(tmp_path / str(seed)), "seed": seed})
    assert fingerprint(tmp_path / "0") != fingerprint(tmp_path / "1")


def test_a_set_is_collected_into_by_one_command_at_a_time(compose, tmp_path):
    config = compose("collect", f"out={tmp_path / 'set'}")
    collect(config)
    with FileLock(tmp_path / "set/.collect.lock"), pytest.raises(InputError, match="another `lewm collect`"):
        collect({**config, "episodes": 30})
    assert len(EpisodeReader(tmp_path / "set")) == 24


KILLED = """
import json, sys
from pathlib import Path
from experiments.collect import crew
from experiments.collect.executors import LocalExecutor
from lewm.data import DatasetInfo

if __name__ == "__main__":
    config = json.loads(sys.argv[1])
    info = DatasetInfo.read(Path(config["out"]))
    crew.record(LocalExecutor(), config, info, range(1, 20_000), lambda count: None)
"""


def test_workers_end_with_the_collection_that_was_killed(compose, tmp_path):
    config = compose("collect", f"out={tmp_path / 'set'}", "env.image_size=16", "episodes=1")
    collect(config)
    (tmp_path / "killed.py").write_text(KILLED)
    settings = json.dumps({**config, "rows": 2, "workers": 2})
    process = subprocess.Popen([sys.executable, tmp_path / "killed.py", settings], cwd=Path(__file__).parents[2])
    logs = [tmp_path / f"set/episodes-w000{k}.jsonl" for k in (0, 1)]
    before = logs[0].stat().st_size
    while not (logs[0].stat().st_size > before and logs[1].exists() and logs[1].stat().st_size):
        assert process.poll() is None
        sleep(0.02)
    process.kill()
    process.wait()
    for writer in ("w0000", "w0001"):  # whose lock is free once its process has ended
        FileLock(tmp_path / f"set/.{writer}.lock").acquire(timeout=10).lock.release()
    reader = EpisodeReader(tmp_path / "set")
    assert len(reader) < 20_000 and not list(reader.verify())


def test_a_task_is_built_once_per_batch_size_and_closed(compose, tmp_path, monkeypatch):
    config = compose("collect", f"out={tmp_path / 'set'}", "rows=5", "episodes=23")
    built, closed = [], []
    init, close = TwoRoom.__init__, TwoRoom.close

    @wraps(init)
    def counted(self, rows, **settings):
        built.append(rows)
        init(self, rows, **settings)

    monkeypatch.setattr(TwoRoom, "__init__", counted)
    monkeypatch.setattr(TwoRoom, "close", lambda self: (closed.append(self.rows), close(self)))
    collect(config)
    assert sorted(built) == sorted(closed) == [1, 1, 3, 5]  # to ask, to estimate, for the last 3, for 4 times 5


def test_rows_and_workers_are_numbers_or_auto(compose, tmp_path):
    config = compose("collect", f"out={tmp_path / 'set'}", "rows=auto", "workers=auto", "episodes=3")
    for key, wrong in (("rows", "many"), ("rows", 1.5), ("rows", 0), ("workers", -2)):
        with pytest.raises(InputError, match=f"{key} must be auto or a whole number of at least 1, got {wrong}"):
            collect({**config, key: wrong})
    with pytest.raises(InputError, match="at most 256"):
        collect({**config, "rows": 257})
    assert not (tmp_path / "set").exists()
    collect(config)
    assert len(EpisodeReader(tmp_path / "set")) == 3


def test_what_it_will_take_is_said_before_and_is_true(compose, tmp_path, capsys):
    collect(compose("collect", f"out={tmp_path / 'set'}", "episodes=200"))
    first, last = capsys.readouterr().out.splitlines()
    found = re.fullmatch(r"collect   200 episodes of about ([0-9.]+) kB need ([0-9.]+) MB, .* are free", first)
    size = sum(path.stat().st_size for path in (tmp_path / "set").rglob("*") if path.suffix != ".png")
    assert 0.8 * size < float(found[2]) * 1e6 < 1.2 * size
    assert re.search(r"200 episodes, [0-9.]+ MB in .*/set \([0-9.]+ s, [0-9,]+ frames/s\)", last)


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(compose, tmp_path, monkeypatch):
    config = compose("collect", f"out={tmp_path / 'old'}")
    collect(config)
    before = fingerprint(tmp_path / "old")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100_000))
    for name in ("new", "old"):
        with pytest.raises(InputError, match=r"need .* MB, 100.0 kB are free .* smaller images"):
            collect({**config, "out": str(tmp_path / name), "episodes": 500})
    assert not (tmp_path / "new").exists()
    assert fingerprint(tmp_path / "old") == before
    collect({**config, "episodes": 25})  # one episode of 8 kB fits


def test_the_bar_counts_episodes_and_shows_frames_per_second(compose, tmp_path, monkeypatch):
    text = io.StringIO()

    def shown(total, name, unit, initial=0):
        return tqdm(total=total, desc=name, unit=unit, initial=initial, file=text, mininterval=0, ncols=120)

    monkeypatch.setattr(verb, "progress", shown)
    config = compose("collect", f"out={tmp_path / 'set'}", "episodes=6", "rows=3")
    collect(config)
    collect({**config, "episodes": 24})
    last = text.getvalue().split("\r")[-1]
    assert "24/24" in last
    assert int(re.search(r"([0-9,]+) frames/s", last)[1].replace(",", "")) > 100


def test_a_contact_sheet_shows_each_policy(compose, tmp_path):
    config = compose("collect", f"out={tmp_path / 'set'}", "env.image_size=32")
    collect(config)
    sheet = tmp_path / "set/contact_sheet.png"
    pixels = iio.imread(sheet)[..., :3].astype(int)
    discs = (pixels[..., 0] > 180) & (pixels[..., 1] < 110)  # the agent is the only red thing there is
    rows = np.flatnonzero(np.diff(discs.any(1).astype(int)) == 1)
    assert len(rows) >= 6 and discs.sum() > 48 * 10  # eight discs in each of six rows
    reader = EpisodeReader(tmp_path / "set")
    assert [reader.facts(k)["policy"] for k in overview_positions(reader)] == [
        name for name in ("goal_directed", "ou", "straight") for _ in "12"
    ]
    stamp = sheet.stat().st_mtime_ns
    collect(config)
    assert sheet.stat().st_mtime_ns == stamp  # nothing was recorded, nothing is drawn


BLIND = """
import envs
from lewm import register

@register("env", "blind")
class Blind(envs.TwoRoom):
    steer = envs.GoalTask.steer
"""


def test_a_policy_that_cannot_act_is_refused_before_anything_is_written(compose, tmp_path, plugin):
    plugin(BLIND)
    settings = [f"out={tmp_path / 'set'}", "episodes=3"]
    blind = [*settings, "env=blind", "plugins=[outside]"]
    with pytest.raises(InputError, match=r"policy=mixed cannot record blind: Blind has no `steer`.*policy=ou"):
        collect(compose("collect", *blind))
    for policy in (["policy=greedy"], ["policy.parts=[ou,greedy]", "policy.weights=[9,1]"]):
        with pytest.raises(InputError, match="pursues the task's own goal, which a recorded episode does not have"):
            collect(compose("collect", *settings, *policy))
    assert not (tmp_path / "set").exists()
    collect(compose("collect", *blind, "policy.weights=[1,0,1]"))
    assert len(EpisodeReader(tmp_path / "set")) == 3


def test_facts_of_all_kinds_reach_the_log(compose, tmp_path, plugin):
    plugin(FACTS)
    collect(compose("collect", f"out={tmp_path / 'set'}", "plugins=[outside]", "policy=talks", "episodes=3"))
    facts = EpisodeReader(tmp_path / "set").facts(2)
    assert facts["success"] is True and facts["goals"] == [{"at": 2, "pose": [0.5, None]}] and facts["note"] == "ok"
    assert facts["policy"] == "talks" and facts["seed"] == [0, 2]


FACTS = """
import envs
from lewm import register

@register("policy", "talks")
class Talks:
    def begin(self, task, rngs, steps):
        facts = [{} for _ in rngs]
        def act(t, states):
            if t == 2:
                for row in facts:
                    row |= {"success": True, "goals": [{"at": t, "pose": [0.5, None]}], "note": "ok"}
            return 0 * states[:, :2]
        return envs.Actor(act, ["talks"] * len(rngs), facts)
"""
